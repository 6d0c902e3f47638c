"""``python -m persona_studies`` is the command ``persona-studies``, whatever folder the environment was made in."""

from persona_studies.cli import main

if __name__ == "__main__":
    main()
