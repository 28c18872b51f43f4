"""Metrics of videos, and their means over many: rates with 95 % intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

SLOWEST = 0.1  # pixels a frame: what moves less goes nowhere

LIMITS = {
    "psnr": ("psnr of 24 dB or more", 24, math.inf),
    "degrees": ("under 30 degrees", -math.inf, 30),
    "part overlap": ("part overlap of 0.6 or more", 0.6, math.inf),
    "background psnr": ("background psnr of 24 dB or more", 24, math.inf),
    "flicker ratio": ("flicker ratio of 1.3 or less", -math.inf, 1.3),
    "sync": ("sync of 0.7 or more", 0.7, math.inf),
    "offset": ("offset of a frame or less", -1, 2),
    "identity": ("identity of 0.6 or less", -math.inf, 0.6),
    "drift": ("drift of 1.2 or less", -math.inf, 1.2),
    "seams": ("seams of 1.2 or less", -math.inf, 1.2),
}
"""Metric -> (name of the rate of values that are good enough, the least of these, the first that is too much)."""

Row = Mapping[str, Any]
"""A judged case. `asked`, `seen`: name -> text; `right`: name -> bool, or one a frame; `values`: metrics."""


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pixels in dB, at most 99."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def angle(a: Sequence[float], b: Sequence[float]) -> float:
    """Degrees between two motions (pixels a frame); 180 where one of them goes nowhere."""
    if min(math.hypot(*a), math.hypot(*b)) < SLOWEST:
        return 180.0
    turn = math.degrees(math.atan2(a[1], a[0]) - math.atan2(b[1], b[0]))
    return abs((turn + 180) % 360 - 180)


def changes(frames: np.ndarray) -> np.ndarray:
    """Mean difference of each frame from the one before it, 0 to 255: (F - 1,)."""
    return np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))


def seams(frames: np.ndarray, windows: Sequence[Sequence[Sequence[int]]]) -> tuple[float, float]:
    """Change from frame to frame at the windows' borders, relative to that inside them: (mean over the steps, largest
    of any step).

    windows: for every step the frames of each window. A pair of frames is a border where a window begins with the
    second or ends with the first; the clip's own ends are none.
    """
    change, ratios = changes(frames), []
    for step in windows:
        starts = {window[0] for window in step} | {window[-1] + 1 for window in step}
        border = np.isin(np.arange(1, len(frames)), list(starts))
        if border.any() and not border.all():
            ratios.append(change[border].mean() / max(1e-6, change[~border].mean()))
    return (float(np.mean(ratios)), float(np.max(ratios))) if ratios else (1.0, 1.0)


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson's score interval), 0 to 1."""
    if not count:
        return 0.0, 1.0
    share, spread = successes / count, z * z / count
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def rate(outcomes: Iterable[bool]) -> dict[str, Any]:
    """How many are true, in percent, with the 95 % interval."""
    outcomes = list(outcomes)
    right, count = sum(map(bool, outcomes)), len(outcomes)
    interval = [round(100 * bound, 1) for bound in wilson(right, count)]
    return {"percent": round(100 * right / max(1, count), 1), "interval": interval, "count": count}


def chance(rows: Sequence[Row], name: str) -> float:
    """In percent, how often what was seen would fit if the prompts were dealt out at random."""
    asked, seen = ([row[key][name] for row in rows] for key in ("asked", "seen"))
    return round(100 * sum(asked.count(value) * seen.count(value) for value in set(asked)) / len(rows) ** 2, 1)


def confusion(rows: Sequence[Row], name: str) -> dict[str, dict[str, int]]:
    """Asked for -> seen -> how often."""
    seen: dict[str, Counter[str]] = {asked: Counter() for asked in sorted({row["asked"][name] for row in rows})}
    for row in rows:
        seen[row["asked"][name]][row["seen"][name]] += 1
    return {asked: dict(counts.most_common()) for asked, counts in seen.items()}


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Rates of what can be right or wrong, beside chance where the prompt decides; mean and median of metrics."""
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row["right"]):
        part = [row for row in rows if np.size(row["right"].get(name, ()))]
        if not part:
            continue
        summary[name] = rate(right for row in part for right in np.atleast_1d(row["right"][name]))
        if name in part[0]["asked"]:
            summary[name]["chance"] = chance(part, name)
    if len(summary) > 1:
        summary["all"] = rate(all(np.all(right) for right in row["right"].values()) for row in rows)
    for name in dict.fromkeys(name for row in rows for name in row["values"]):
        values = [row["values"][name] for row in rows if name in row["values"]]
        summary[name] = {"mean": round(float(np.mean(values)), 3), "median": round(float(np.median(values)), 3)}
        if name in LIMITS:
            called, low, high = LIMITS[name]
            summary[called] = rate(low <= value < high for value in values)
    return summary


def ratios(rows: Sequence[Row], references: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Metrics of the cases that both have: the mean in `rows`, and its ratio to that in `references`."""
    ours, table = {row["seed"]: row["values"] for row in rows}, {}
    for name in dict.fromkeys(name for row in references for name in row["values"]):
        pairs = [(ours[row["seed"]], row["values"]) for row in references]
        both = [(one[name], other[name]) for one, other in pairs if name in one and name in other]
        if not both:
            continue
        mean, reference = (float(np.mean(side)) for side in zip(*both, strict=True))
        table[name] = {"of mean": round(mean, 3), "ratio": round(mean / max(reference, 1e-6), 3)}
    return table
