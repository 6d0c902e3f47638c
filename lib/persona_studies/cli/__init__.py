"""The command line: ``persona-studies run | sweep | grid | verify | accept | plan | record | import | ...``."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable

import typer

from persona_studies.cli import recordings, studies
from persona_studies.cli.record import record
from persona_studies.cli.report import report
from persona_studies.cli.shared import complain
from persona_studies.errors import PersonaStudiesError

__all__ = ["app", "main"]

# What a full or a closed disk says; other errors of the system are faults of this program.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}
INTERRUPTED = 130

app = typer.Typer(
    name="persona-studies",
    help="Run studies of personas in language models, and check what they find against the committed reference.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": studies.run,
    "reproduce": studies.reproduce,
    "new": studies.new,
    "verify": studies.verify,
    "accept": studies.accept,
    "sweep": studies.sweep,
    "plan": recordings.plan,
    "grid": recordings.grid_,
    "record": record,
    "report": report,
    "pack": recordings.pack,
    "import": recordings.import_,
    "upload": recordings.upload,
    "fetch": recordings.fetch,
    "site": studies.site,
    "list": studies.list_,
    "show": studies.show,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line; errors that a user can mend are printed without a traceback."""
    # A terminated run cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
        # Newer versions of typer make a code of an interruption, and say nothing.
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except PersonaStudiesError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Interrupted; nothing half-written is left, and the same command goes on.", err=True)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = f"{error.filename}: " if error.filename else ""
        complain(
            f"{place}{error.strerror or error}. Make room, or make that place writable, and run the same command "
            "again; what was complete before still is."
        )
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own usage errors
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code or 0)
