"""The progress bar of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..requests import Report


@contextmanager
def reporter(quiet: bool, announcement: str = "") -> Iterator[Callable[[Report], None] | None]:
    """Gives a function that shows a Report on stderr: steps, frames, frames per second, time left.

    The bar is drawn on terminals only. `announcement` is printed once the work has begun.
    """
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[frames]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None, frames="", left="")

        def on_report(report: Report) -> None:
            nonlocal announcement
            if announcement:
                console.print(announcement, soft_wrap=True, markup=False, highlight=False)
                announcement = ""
            of = "" if report.total_frames is None else f"/{report.total_frames}"
            left = "" if report.seconds_left is None else f"{report.seconds_left:.0f} s left"
            frames = f"{report.frames}{of} frames, {report.frames_per_second:.1f}/s"
            bar.update(
                task,
                description="making",
                total=report.total_steps,
                completed=report.step,
                frames=frames,
                left=left,
            )

        yield on_report
