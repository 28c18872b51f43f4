"""Reports for people: a table in Markdown, and a sheet of results with what is wrong about each."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
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
