"""``python -m persona_studies.cli`` is the command ``persona-studies`` too."""

from persona_studies.cli import main

if __name__ == "__main__":
    main()
