"""How far a training is, read from the files of its run, and a page that shows it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import CheckpointError
from ..media import atomic_path
from ..weights.files import read_pickle
from .stages import Stage
from .trainer import STATES, read_log

SCORES = "scores.jsonl"
SHEET = "sheet.jpg"
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left }
img, svg { width: 100%; height: auto; background: white; border-radius: .3rem }
"""


@dataclass(frozen=True)
class Progress:
    """How far a stage is. loss: of the last line of its log; score: the last one measured; pflop: 10^15 floating-point
    operations spent."""

    run: str
    stage: str
    step: int
    steps: int
    loss: float | None
    score: float | None
    pflop: float | None
    state: Literal["done", "running", "waiting"]

    def cells(self) -> list[str]:
        """What a table shows of it, in the order of COLUMNS."""
        numbers = [
            "-" if value is None else f"{value:{form}}"
            for value, form in ((self.loss, ".4f"), (self.score, ".1f"), (self.pflop, ".3g"))
        ]
        return [self.run, self.stage, f"{self.step} of {self.steps}", *numbers, self.state]


COLUMNS = ("run", "stage", "step", "loss", "score", "PFLOP", "state")


def step_of(stage: Stage) -> int:
    """The step of a stage's newest checkpoint that is whole; 0: there is none."""
    for name in STATES:
        path = stage.root / stage.folder / name
        with suppress(CheckpointError):
            if path.exists():
                return read_pickle(path)["step"]
    return 0


def log_of(stage: Stage) -> list[dict[str, Any]]:
    """The lines of a stage's log."""
    path = stage.root / stage.folder / "log.jsonl"
    return read_log(path) if path.exists() else []


def scores_of(root: Path, stage: Stage | None = None) -> list[dict[str, Any]]:
    """The measurements of a run, or only those of a stage, oldest first."""
    lines = read_log(root / SCORES) if (root / SCORES).exists() else []
    return [line for line in lines if stage is None or line["stage"] == stage.folder]


def progress_of(stage: Stage, state: Literal["done", "running", "waiting"]) -> Progress:
    log, scores = log_of(stage), scores_of(stage.root, stage)
    last = log[-1] if log else {}
    return Progress(
        run=stage.root.as_posix(),
        stage=stage.folder,
        step=step_of(stage),
        steps=stage.config.steps,
        loss=last.get("loss"),
        score=scores[-1]["score"] if scores else None,
        pflop=last.get("pflop"),
        state=state,
    )


def write_page(root: Path, stages: Sequence[Stage], rows: Sequence[Progress]) -> None:
    """Write `log.html` in the folder of a run: a file that needs no other, and that loads itself anew every minute.

    It shows the table of `rows`, for each of the `stages` the loss and the scores over the steps, and the newest sheet.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row.cells())}</tr>" for row in rows)
    parts = [f"<h1>{escape(root.name)}</h1>", f"<table><tr>{head}</tr>{body}</table>"]
    for stage in stages:
        if log_of(stage):
            parts += [f"<h2>{escape(stage.folder)}</h2>", _charts(stage)]
    if (root / SHEET).exists():
        last = scores_of(root)[-1]
        jpeg = base64.b64encode((root / SHEET).read_bytes()).decode()
        parts += [f"<h2>{escape(last['stage'])}, step {last['step']}: score {last['score']:.1f}</h2>"]
        parts += [f'<img alt="results with what is wrong about each" src="data:image/jpeg;base64,{jpeg}">']
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="60">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(root.name)}</title>
<style>{_STYLE}</style></head>
<body>
{"".join(parts)}
</body></html>
"""
    with atomic_path(root / "log.html") as temporary:
        temporary.write_text(page, "utf-8")


def _charts(stage: Stage) -> str:
    """Loss and scores of a stage over its steps, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    log, scores = log_of(stage), scores_of(stage.root, stage)
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, losses = [line["step"] for line in log], np.array([line["loss"] for line in log])
    width = max(1, len(log) // 50)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    left.plot(steps, losses, color="#4051b5", alpha=0.3, linewidth=1)
    left.plot(steps[width - 1 :], smooth, color="#4051b5")
    left.set(xlabel="step", ylabel="loss", yscale="log" if losses.min() > 0 else "linear")
    if scores:
        for name in scores[-1]["values"]:
            right.plot([x["step"] for x in scores], [x["values"].get(name, np.nan) for x in scores], ".--", label=name)
        right.plot([x["step"] for x in scores], [x["score"] for x in scores], "o-", color="black", label="score")
        shipped = [x for x in scores if x["shipped"]]
        right.plot(
            [x["step"] for x in shipped], [x["score"] for x in shipped], "*", color="gold", ms=14, label="shipped"
        )
        if scores[-1]["to_beat"] is not None:
            right.axhline(scores[-1]["to_beat"], color="grey", linestyle=":", label="to beat")
        right.legend(fontsize="small")
    else:
        right.text(0.5, 0.5, "not measured yet", ha="center", va="center", color="grey")
    right.set(xlabel="step", ylabel="score")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    drawn = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
