"""A plan as a picture: frames across, steps down, noise as colour, windows outlined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from PIL import Image, ImageDraw

from ..errors import InputError
from .plan import CHUNK_WIDTH, Frames, Plan, Window

_NOISE, _CLEAN = (58, 28, 96), (255, 214, 102)
_OUTLINE, _BACKGROUND, _TEXT, _FINAL = (235, 235, 245), (22, 22, 30), (190, 190, 200), (80, 200, 120)
MAX_STEPS = 2000


def _lanes(windows: tuple[Window, ...]) -> list[list[Window]]:
    """Windows side by side where they do not overlap, the others below each other."""
    lanes: list[list[Window]] = []
    for window in windows:
        free = (lane for lane in lanes if all(set(window.frames).isdisjoint(other.frames) for other in lane))
        lane = next(free, None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(window)
    return lanes


def _runs(frames: Frames) -> Iterator[tuple[int, int]]:
    """First and last of every stretch of neighbours."""
    for _, run in itertools.groupby(enumerate(sorted(frames)), key=lambda pair: pair[1] - pair[0]):
        members = [frame for _, frame in run]
        yield members[0], members[-1]


def draw_plan(plan: Plan, chunk_width: int = CHUNK_WIDTH) -> Image.Image:
    """Draw a plan that ends. Raises InputError for an endless plan or one of more than 2,000 steps.

    A row is a step; a cell is a latent frame, from violet (noise) to yellow (clean). White outlines are windows; those
    of a step that overlap lie below each other. Green: the frames that are final after the step. Thin lines separate
    the chunks.
    """
    count = plan.describe().steps
    if count > MAX_STEPS:
        raise InputError(f"{count} steps do not fit a picture; draw at most {MAX_STEPS}.")
    steps = list(plan.steps())
    rows = [_lanes(step.windows) for step in steps]
    lanes = max(map(len, rows))
    frames = max(step.span.stop for step in steps)
    cell = max(3, min(16, 1400 // frames))
    lane_height = max(3, min(16, 1400 // (len(steps) * lanes)))
    row = lanes * lane_height
    left, top, legend = 56, 30, 44
    image = Image.new("RGB", (left + frames * cell + 16, top + len(steps) * row + legend), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((left, 9), "latent frames", _TEXT)
    draw.text((8, top), "steps", _TEXT)
    for start in range(0, frames, chunk_width):
        x = left + start * cell
        draw.line([(x, top - 4), (x, top + len(steps) * row)], (48, 48, 60))

    def mixed(share: float) -> tuple[int, ...]:
        return tuple(round(a + (b - a) * share) for a, b in zip(_NOISE, _CLEAN, strict=True))

    for i, j, window in ((i, j, w) for i, at in enumerate(rows) for j, lane in enumerate(at) for w in lane):
        y = top + i * row + j * lane_height
        for frame, level in zip(window.frames, window.levels, strict=True):
            box = [left + frame * cell, y, left + (frame + 1) * cell - 1, y + lane_height - 1]
            draw.rectangle(box, mixed(level / plan.num_steps))
        for first, last in _runs(window.frames):
            box = [left + first * cell, y, left + (last + 1) * cell - 1, y + lane_height - 1]
            draw.rectangle(box, outline=_OUTLINE)
    for i, step in enumerate(steps):  # over the outlines of the rows below
        y = top + i * row
        if len(step.clean):
            ends = left + step.clean.start * cell, left + step.clean.stop * cell - 1
            draw.line([(ends[0], y + row - 1), (ends[1], y + row - 1)], _FINAL, width=max(2, lane_height // 4))
    y = top + len(steps) * row + 12
    for i in range(120):
        draw.line([(left + i, y), (left + i, y + 10)], mixed(i / 119))
    draw.text((left + 126, y - 1), "noise to clean", _TEXT)
    draw.line([(left + 230, y + 5), (left + 250, y + 5)], _FINAL, width=3)
    draw.text((left + 256, y - 1), "final", _TEXT)
    return image
