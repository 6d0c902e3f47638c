"""Run a module with the words that were given to `make`.

They come in the environment, so that no shell reads them again: STUDY, MODEL, MEASURES, PARAMS, GRID and FLAGS.
ASSIGNMENTS holds one line for each parameter that was given to make itself, such as `alpha=0.01`.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping


def study(verb: str, given: Mapping[str, str]) -> list[str]:
    """Return the words for a command of persona-studies that is about one study, or about one model.

    >>> study("run", {"STUDY": "sycophancy", "PARAMS": "alpha=0.01", "ASSIGNMENTS": "frames=think,bare\\n"})
    ['run', 'sycophancy', '--params', 'alpha=0.01', '--parameter', 'frames=think,bare']
    """
    if verb == "report":
        return ["report", given["MODEL"]]
    # Make puts a blank between the lines.
    assignments = [line.lstrip(" ") for line in given.get("ASSIGNMENTS", "").split("\n") if line.strip(" ")]
    if verb == "sweep":
        grid = " ".join([given.get("GRID", ""), *map(shlex.quote, assignments)])
        return ["sweep", given["STUDY"], "--grid", grid.strip()]
    said = [verb, given["STUDY"]]
    if verb == "record":
        said += ["--model", given["MODEL"], *(["--measures", given["MEASURES"]] if given.get("MEASURES") else [])]
    said += ["--params", given.get("PARAMS", "")]
    return said + [word for one in assignments for word in ("--parameter", one)]


def main(module: str, words: list[str]) -> int:
    flags = os.environ.get("FLAGS", "")
    try:
        more = shlex.split(flags)
    except ValueError as error:
        sys.stderr.write(f"FLAGS={flags} cannot be split into words: {error}; close what it opens.\n")
        return 2
    said = study(words[0], os.environ) if module == "persona_studies" else words
    os.execv(sys.executable, [sys.executable, "-m", module, *said, *more])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
