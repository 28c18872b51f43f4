"""The command line. It parses, calls the library and prints; errors are one sentence."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DEBUG = "ANIMAGIC_DEBUG"
_LONGEST = 1000  # characters of a sentence about what was given


def command_line() -> Any:
    """The command line with all its commands, a `typer.Typer`."""
    from . import evaluate, generation, models, original, personalize, poses, serving, training, weights  # noqa: F401 - for their commands
    from .app import app

    return app


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 a fault of ours, 2 wrong input, 128 + N ended by the
    signal N, such as 130 by Ctrl-C."""
    # Threads that wait by spinning make a busy machine many times slower. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ended: list[int] = []
    try:
        with _ending_tidily(ended), _without_warnings():
            return _answer(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        number = ended[0] if ended else signal.SIGINT
        how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        _say(f"animagic: {how}; nothing half-written was left.")
        return 128 + number
    except BrokenPipeError:  # who reads the output has gone; what is left of it cannot be written
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python closes it at its end
        return _fail("the output cannot be written: nobody reads it any more.")
    except Exception as error:
        sentence = _sentence(error)
        return _fault(error) if sentence is None else _fail(sentence)


def _answer(argv: list[str]) -> int:
    import typer

    for word in argv:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            return _fail(f"{word!r} is not text in UTF-8; rename the file, or write it otherwise.")
        if "\0" in word:
            return _fail(f"{word!r} has a zero byte in it, which no text and no name has.")
    usage_error: Any = typer.BadParameter.__bases__[0]  # typer ships its own click, so the class has no public home
    try:
        answer = command_line()(args=argv, prog_name="animagic", standalone_mode=False)
        if answer == 130:  # typer has caught Ctrl-C, and says nothing
            raise KeyboardInterrupt
        return answer if isinstance(answer, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `animagic` alone: its message is the help
            _say(error.format_message())
            return 2
        return _fail(error.format_message())


@contextmanager
def _ending_tidily(ended: list[int]) -> Iterator[None]:
    """Inside, a signal that would end the process at once is as Ctrl-C; its number is put into `ended`."""

    def end(number: int, frame: Any) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # Not where it is ignored: nohup does that.
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Inside, libraries warn of nothing: what is wrong, we say ourselves."""
    if os.environ.get(_DEBUG):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sentence(error: Exception) -> str | None:
    """What is said of an error whose cause lies in what was given, or in the machine; None: it is a fault of ours."""
    from ..errors import AnimagicError, first_line

    if isinstance(error, AnimagicError):
        return str(error)
    if isinstance(error, FloatingPointError):  # a training that goes astray
        return str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"this machine has too little memory for that ({first_line(error)}); make it smaller, or give --memory."
    if isinstance(error, OSError):
        name = error.filename
        ours = isinstance(name, str) and Path(__file__).parents[1] in Path(name).absolute().parents
        full = error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EFBIG)
        if (name is not None and not ours) or full:
            return f"{name or 'the output'} cannot be read or written: {error.strerror}."
    return None


def _say(text: str) -> None:
    from .app import say

    say(text)


def _fail(message: str) -> int:
    text = " ".join(message.split())
    _say(f"animagic: {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'}")
    return 2


def _fault(error: Exception) -> int:
    if os.environ.get(_DEBUG):
        traceback.print_exc()
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
    _say(f"animagic: a fault of ours: {text} ({_DEBUG}=1 shows where)")
    return 1


def run() -> None:
    """The console script."""
    sys.exit(main())
