"""The progress bar of the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .app import say

if TYPE_CHECKING:
    from ..requests import Report


@contextmanager
def bar(quiet: bool = False, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """A function that shows on stderr what is done, how much of it, a note, and the time left; on terminals only.

    Its arguments are (what, done, total, note=""); everything that it is called with has a line of its own.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    count, note = DownloadColumn() if in_bytes else MofNCompleteColumn(), TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, note, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        lines: dict[str, Any] = {"loading": progress.add_task("loading", total=None, note="")}

        def show(what: str, done: int, total: int | None, note: str = "") -> None:
            if what not in lines:  # the first one takes the place of "loading"
                first = lines.pop("loading", None)
                lines[what] = progress.add_task(what, note=note) if first is None else first
            progress.update(lines[what], description=what, completed=done, total=total, note=note)

        yield show


@contextmanager
def reporter(quiet: bool, announcement: str = "") -> Iterator[Callable[[Report], None] | None]:
    """A function that shows a Report; `announcement` is printed once the work has begun."""
    if quiet:
        yield None
        return
    with bar() as show:

        def on_report(report: Report) -> None:
            nonlocal announcement
            if announcement:
                say(announcement)
                announcement = ""
            of = "" if report.total_frames is None else f"/{report.total_frames}"
            note = f"{report.frames}{of} frames, {report.frames_per_second:.1f}/s"
            show("making", report.step, report.total_steps, note)

        yield on_report
