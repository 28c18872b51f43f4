"""The command that trains by a recipe, or by a queue of recipes."""

from __future__ import annotations

import math
import os
import signal
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .app import Json, app, print_json, say, tell
from .options import Threads


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A recipe file (YAML).")] = None,
    folder: Annotated[str | None, typer.Option(help="Where the run lives; default: runs/NAME-OF-RECIPE.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Train only this part or stage; may be repeated.")] = None,
    steps: Annotated[int | None, typer.Option(help="Another number of steps for the parts trained.")] = None,
    queue: Annotated[
        str | None, typer.Option(help="In place of a recipe: a file that lists stages; the topmost unfinished goes on.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Of a queue: stop, and save, after this time.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Of a queue: say how far it is, and leave.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a model by a recipe; a run that is started again goes on where it stopped."""
    if queue is not None:
        if recipe is not None or folder is not None or part or steps is not None:
            raise InputError("a recipe, --folder, --part and --steps are not for a queue, which says them itself.")
        if minutes is not None and not minutes > 0:
            raise InputError(f"--minutes is {minutes:g}; it must be more than 0.")
        if not (find_spec("skimage") and find_spec("skia")):
            raise InputError("training needs scikit-image and skia-python: pip install 'animagic[train]'.")
        _show(queue, as_json) if status else _work(queue, minutes, threads, as_json)
        return
    if recipe is None:
        raise InputError("give a recipe file, or a queue as --queue FILE.")
    if minutes is not None or status:
        raise InputError("--minutes and --status are for a queue: give one as --queue FILE.")
    from ..requests.training import train as run

    target = run(recipe, folder, part, steps, threads, _say_log)
    print_json({"output": str(target)}) if as_json else tell(target)


def _say_log(name: str, line: dict) -> None:
    values = "  ".join(f"{k} {v:.4g}" for k, v in line.items() if k != "step")
    say(f"{name}  step {line['step']}  {values}")


def _show(queue: str, as_json: bool) -> None:
    from ..requests.queue import queue_progress
    from ..training.progress import COLUMNS

    rows = queue_progress(queue)
    if as_json:
        print_json({"stages": [asdict(row) for row in rows]})
        return
    lines = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        tell("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _work(queue: str, minutes: float | None, threads: int | None, as_json: bool) -> None:
    if hasattr(os, "nice"):
        os.nice(19)  # everything else goes first
        if os.getsid(0) == os.getpid():  # Linux weighs sessions against each other; started by `setsid`, this is one
            with suppress(OSError):
                Path("/proc/self/autogroup").write_text("19")
    from ..requests.queue import queue_progress, train_queue
    from ..training.queue import Stop

    def on_score(name: str, line: dict) -> None:
        against = "" if line["to_beat"] is None else f", {line['to_beat']:.2f} to beat"
        say(f"{name}  step {line['step']}  score {line['score']:.2f}{against}{'; shipped' if line['shipped'] else ''}")

    with Stop(math.inf if minutes is None else 60 * minutes) as stop:
        done = train_queue(queue, stop, 1 if threads is None else threads, _say_log, on_score)
    rows = queue_progress(queue)
    at = next((row for row in rows if row.state != "done"), rows[-1])
    if as_json:
        print_json({"done": done, "stage": at.stage, "step": at.step, "steps": at.steps})
    if done:
        say(f"{queue} is done: nothing in it is left to train")
        return
    say(f"{at.stage} of {at.run} is saved at step {at.step} of {at.steps}; the same command goes on from there")
    if stop.signal == signal.SIGINT:
        raise KeyboardInterrupt
