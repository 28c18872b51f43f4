"""The command line. It parses, calls the library and prints; errors are one sentence."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any


def command_line() -> Any:
    """The command line with all its commands, a `typer.Typer`."""
    from . import evaluate, generation, models, original, personalize, poses, serving, training, weights  # noqa: F401 - for their commands
    from .app import app

    return app


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 a fault of ours, 2 wrong input, 130 interrupted."""
    # Threads that wait by spinning make a busy machine many times slower. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import typer

    from ..errors import AnimagicError

    app = command_line()
    usage_error: Any = typer.BadParameter.__bases__[0]  # typer ships its own click, so the class has no public home
    try:
        answer = app(args=argv, prog_name="animagic", standalone_mode=False)
        if answer == 130:  # typer has caught Ctrl-C, and says nothing
            raise KeyboardInterrupt
        return answer if isinstance(answer, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `animagic` alone: its message is the help
            print(error.format_message(), file=sys.stderr)
            return 2
        return _fail(error.format_message())
    except AnimagicError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("animagic: interrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EFBIG):
            return _fail(f"{error.filename or 'the output'} cannot be written: {error.strerror}.")
        return _fault(error)
    except Exception as error:  # the last resort: a fault of ours, said plainly
        return _fault(error)


def _fail(message: str) -> int:
    print(f"animagic: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _fault(error: Exception) -> int:
    if os.environ.get("ANIMAGIC_DEBUG"):
        traceback.print_exc()
    print(f"animagic: a fault of ours: {type(error).__name__}: {error} (ANIMAGIC_DEBUG=1 shows where)", file=sys.stderr)
    return 1


def run() -> None:
    """The console script."""
    sys.exit(main())
