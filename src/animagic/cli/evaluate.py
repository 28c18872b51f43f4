"""The command that measures how well a model does what it is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import Json, Model, app, print_json, say
from .options import Device, Quiet, Threads


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function that shows on stderr how many cases are done, and the time left. Drawn on terminals only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("loading", total=None)
        yield lambda variant, done, total: progress.update(task, description=variant, completed=done, total=total)


def _check_installed() -> None:
    """Raises InputError where a package is missing that judges need."""
    from importlib.util import find_spec

    if not (find_spec("skimage") and find_spec("skia")):
        raise InputError("evaluation needs scikit-image and skia-python: pip install 'animagic[eval]'.")


@app.command("eval")
def evaluate(
    suite: Annotated[str | None, typer.Argument(help="What is measured; without it, the suites are listed.")] = None,
    model: Model = "magi1-tiny",
    count: Annotated[int | None, typer.Option(help="Cases; default: the suite's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first case; default: the suite's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the model's.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the model's.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of every video; default: the suite's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Videos made together; default: the suite's.")] = None,
    motion_apart: Annotated[
        bool, typer.Option("--motion-apart", help="The motion prompt alone says how things move.")
    ] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="The report, a JSON file.")] = "report.json",
    sheet: Annotated[
        str | None, typer.Option(help="Also write a PNG of results, with what is wrong about each.")
    ] = None,
    list_suites: Annotated[bool, typer.Option("--list", help="List the suites and leave.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished cases beside the report, and go on from them.")
    ] = False,
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure how well a model does what it is asked, on scenes that it has never seen."""
    _check_installed()
    from .. import evaluation, zoo
    from ..evaluation.suites import find_suite
    from ..media import atomic_path, write_image
    from ..media.files import check_writable
    from ..pipelines.devices import use_threads
    from ..requests import load_pipeline

    if suite is None or list_suites:
        if as_json:
            print_json({one.name: one.summary for one in evaluation.SUITES.values()})
        for one in () if as_json else evaluation.SUITES.values():
            print(f"{one.name:>12}  {one.summary}")
        return
    chosen = find_suite(suite)
    check_writable(Path(output))
    if sheet is not None:
        if not sheet.lower().endswith((".png", ".jpg", ".jpeg")):
            raise InputError(f"{sheet} is no picture: end --sheet in .png or .jpg.")
        check_writable(Path(sheet))
    use_threads(threads)
    folder = Path(f"{output}.cases") if resume else None
    files: dict[str, Any] = {kind: zoo.loras(model, kind) for kind in ("loras", "motion_loras")}
    asked: dict[str, Any] = {
        "count": count,
        "seed": seed,
        "frames": frames,
        "steps": steps,
        "guidance": guidance,
        "batch": batch,
    }
    try:
        with _bar(quiet) as on_progress:
            pipe = load_pipeline(model, device)
            result = evaluation.evaluate(
                pipe, chosen, model=model, motion_apart=motion_apart, folder=folder, on_progress=on_progress,
                **files, **asked,
            )  # fmt: skip
    except KeyboardInterrupt:
        if folder is not None and folder.exists():
            say(f"{folder} holds the finished cases: the same command goes on from them.")
        raise
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(result.report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if sheet is not None:
        write_image(sheet, evaluation.sheet(result))
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        names = ("suite", "model", "cases", "seconds", "summary")
        print_json({"output": output, "sheet": sheet} | {name: result.report[name] for name in names})
        return
    say(f"done in {result.report['seconds']:.0f} s; the report is {output}{f', the sheet {sheet}' if sheet else ''}")
    print(evaluation.table(result.report))
