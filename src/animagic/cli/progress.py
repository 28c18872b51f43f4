"""Progress bars on stderr, drawn on terminals only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..requests import Report


@contextmanager
def bar(start: str, *columns: str, announcement: str = "") -> Iterator[Callable[..., None]]:
    """Gives a function that shows what is being done, how much of it is done, of how much, and the fields of columns.

    Args:
        start: what is being done at first.
        columns: names of rich's columns, or texts with {task.fields[NAME]}.
        announcement: printed once the work has begun.
    """
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    texts = {column for column in columns if "{" in column}
    made = [progress.TextColumn(name) if name in texts else getattr(progress, name)() for name in columns]
    description = progress.TextColumn("{task.description}")
    with progress.Progress(description, *made, console=console, disable=not console.is_terminal) as drawn:
        task = drawn.add_task(start, total=None, frames="", left="")

        def show(doing: str, done: int, total: int | None, **fields: Any) -> None:
            nonlocal announcement
            if announcement:
                console.print(announcement, soft_wrap=True, markup=False, highlight=False)
                announcement = ""
            drawn.update(task, description=doing, completed=done, total=total, **fields)

        yield show


@contextmanager
def reporter(quiet: bool, announcement: str = "") -> Iterator[Callable[[Report], None] | None]:
    """Gives a function that shows a Report: steps, frames, frames per second, time left; None if quiet."""
    if quiet:
        yield None
        return
    frames, left = "{task.fields[frames]}", "{task.fields[left]}"
    columns = ("BarColumn", "MofNCompleteColumn", frames, "TimeElapsedColumn", left)
    with bar("loading", *columns, announcement=announcement) as show:

        def on_report(report: Report) -> None:
            of = "" if report.total_frames is None else f"/{report.total_frames}"
            left = "" if report.seconds_left is None else f"{report.seconds_left:.0f} s left"
            frames = f"{report.frames}{of} frames, {report.frames_per_second:.1f}/s"
            show("making", report.step, report.total_steps, frames=frames, left=left)

        yield on_report
