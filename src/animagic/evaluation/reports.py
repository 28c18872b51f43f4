"""Reports for people: a table in Markdown, a sheet of results with what is wrong about each, a page of both, and a
picture of a mouth beside the sound."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .running import Result

ON_A_SHEET = 24  # results
MOST_TIMES = 1000  # more is a comparison with nothing


def _cell(values: Mapping[str, Any] | None) -> str:
    if values is None:
        return ""
    if "percent" in values:
        low, high = values["interval"]
        by_chance = f", chance {values['chance']:.0f}" if "chance" in values else ""
        return f"{values['percent']:.1f} % ({low:.0f} to {high:.0f}{by_chance})"
    if "ratio" in values:
        times = f": {values['ratio']:.2f} times" if values["ratio"] < MOST_TIMES else ""
        return f"{values['mean']:.2f} ({values['of']} {values['of mean']:.2f}{times})"
    return f"{values['mean']:.2f} (median {values['median']:.2f})"


def table(report: Mapping[str, Any]) -> str:
    """The summary as Markdown, for a model's card: a row a variant, or a row a metric where there is one variant."""
    rows = {}
    for name, summary in report["summary"].items():
        rows[name] = summary
        rows |= {f"{name}, {split} split": part for split, part in report["by split"].get(name, {}).items()}
    columns = dict.fromkeys(column for summary in rows.values() for column in summary)
    grid = [[report["suite"], *columns]]
    grid += [[name, *(_cell(summary.get(column)) for column in columns)] for name, summary in rows.items()]
    grid = grid if len(report["summary"]) > 1 else [list(line) for line in zip(*grid, strict=True)]
    lines = [f"| {' | '.join(line)} |" for line in grid]
    lines.insert(1, f"|---|{'---:|' * (len(grid[0]) - 1)}")
    ways = [f"{report['cases']} held-out cases from seed {report['seed']}", f"{report['frames']} frames"]
    ways += [f"{name} {report[name]}" for name in ("version", "steps", "guidance") if report.get(name) is not None]
    said = f"{report['model']}: {', '.join(ways)}; in brackets the 95 % interval."
    said += f"\nTargets: {report['targets']}." if "targets" in report else ""
    return "\n".join([*lines, "", said]) + "\n"


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """A line about a video, what is wrong with it first of all, and its colour."""
    wrong = [
        f"{name} {row['seen'][name]}" if name in row["seen"] else f"{name} {np.mean(right):.0%}"
        for name, right in row["right"].items()
        if not np.all(right)
    ]
    if wrong:
        return f"seen: {', '.join(wrong)}", "firebrick"
    values = ", ".join(f"{name} {value:.2f}" for name, value in row["values"].items())
    return ("right", "green") if row["right"] else (values, "black")


def sheet(result: Result) -> np.ndarray:
    """Results that are chosen at random, the same for the same cases: five frames each, the prompt, and what is wrong.

    Several variants stand side by side, with the same cases. Returns uint8 (H, W, 3).
    """
    rows, strips = result.report["rows"], result.strips
    order = np.random.default_rng(0).permutation(min(map(len, strips.values())))
    chosen = sorted(order[: max(1, ON_A_SHEET // len(strips))])
    cells = [(name, rows[name][i], strips[name][i]) for i in chosen for name in strips]
    columns, side, line = 3 if len(strips) % 3 == 0 else 2, 96 * result.lines, 13
    strip_width = round(cells[0][2].shape[1] * side / cells[0][2].shape[0])
    width, height = strip_width + 8, side + 3 * line + 8
    picture = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    draw = ImageDraw.Draw(picture)
    for cell, (name, row, strip) in enumerate(cells):
        x, y = cell % columns * width, cell // columns * height
        text = row["prompt"] + (f" + {row['motion prompt']}" if "motion prompt" in row else "")
        for number, words in enumerate(textwrap.wrap(text, width // 6)[:2]):
            draw.text((x + 2, y + number * line), words, "black")
        verdict, colour = _verdict(row)
        draw.text((x + 2, y + 2 * line), f"{name}: {verdict}" if len(strips) > 1 else verdict, colour)
        shown = Image.fromarray(strip).resize((strip_width, side), Image.Resampling.LANCZOS)
        picture.paste(shown, (x, y + 3 * line + 2))
    return np.asarray(picture)


def speech_plot(samples: np.ndarray, curves: Mapping[str, np.ndarray], fps: float) -> np.ndarray:
    """Curves of so many frames a second, each in its own unit, over the sound: uint8 (H, W, 3).

    samples: float32 (n,), 16 kHz. curves: name -> (F,), nan where it is unknown. Needs matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    axes.plot(np.arange(len(samples)) / 16_000, samples / max(np.abs(samples).max(), 1e-6), color="0.8", linewidth=0.4)
    for (name, curve), colour in zip(curves.items(), ("#4051b5", "#d1492e", "#3b8a4a"), strict=False):
        low, high = np.nanmin(curve), np.nanmax(curve)
        axes.plot(np.arange(len(curve)) / fps, (curve - low) / max(high - low, 1e-6), color=colour, label=name)
    axes.set(xlabel="seconds", yticks=[], xlim=(0, max(len(samples) / 16_000, 1e-3)))
    axes.legend(loc="lower right", fontsize="small")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def page(result: Result) -> str:
    """A page of HTML with all inside it: the table, what was published of others, and the sheet."""
    lines = table(result.report).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    said = "".join(
        f"<p>{escape(line)}</p>"
        for line in [*lines, *result.report.get("published", "").splitlines()]
        if line[:1] not in ("", "|")
    )
    packed = io.BytesIO()
    Image.fromarray(sheet(result)).save(packed, "PNG")
    picture = base64.b64encode(packed.getvalue()).decode()
    title = escape(f"{result.report['model']}: {result.report['suite']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>body{{font:15px '
        "sans-serif;margin:2em}td{border:1px solid #ccc;padding:.3em .6em}table{border-collapse:collapse}img{max-width:"
        f'100%}}</style></head><body><h1>{title}</h1><table>{rows}</table>{said}<img alt="results" '
        f'src="data:image/png;base64,{picture}"></body></html>\n'
    )
