"""Look at a 64 x 64 video of one drawn thing and say, by rules, what it shows.

The judge knows the studio's palette and silhouettes, but nothing of the scene that it looks at. It scores the
trained models' videos, so it bears blur: colours are weighed per pixel, shapes are correlated with rendered
silhouettes, and the motion is the studio's own kind of path that the thing's centre follows best.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from animagic.errors import InputError
from animagic.synthetic import COLOURS, SHAPES, Background, Motion, Scene, Thing, render
from animagic.synthetic.scenes import FLOORS, PLAIN, VIEWS, WALLS

GRID = 20  # silhouettes are compared at this many pixels a side
ANGLES = np.arange(0, 360, 10)
NOT_A_THING = [*PLAIN.values(), *FLOORS.values(), *WALLS.values(), *(rgb for view in VIEWS.values() for rgb in view),
               (226, 222, 190), (255, 226, 160), (250, 246, 238), (45, 42, 52)]  # moon, sun, window frame, outline  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a video shows, and how sure it is.

    confidence: mean correlation with the shape's silhouette, 0 to 1; share: part of the frames that show the thing.
    """

    colour: str
    shape: str
    motion: str
    confidence: float
    share: float


@dataclass(frozen=True)
class Track:
    """The thing in those frames (index `frames`) where it lies wholly in view; masks (n, 64, 64), 0 to 1."""

    colour: str
    frames: np.ndarray
    masks: np.ndarray
    centres: np.ndarray  # (n, 2), x and y in pixels
    areas: np.ndarray  # (n,), pixels


def _lab(rgb) -> np.ndarray:
    return rgb2lab(np.asarray(rgb, dtype=np.float64) / 255).astype(np.float32)


@lru_cache(maxsize=None)
def _palette() -> tuple[np.ndarray, np.ndarray]:
    return _lab([list(COLOURS.values())])[0], _lab([NOT_A_THING])[0]


def _memberships(frames: np.ndarray) -> np.ndarray:
    """How much each pixel has each palette colour: (colours, F, H, W), 0 to 1; a pixel belongs to one colour at most."""
    lab = _lab(frames)
    things, others = _palette()
    to_thing = np.stack([np.linalg.norm(lab - colour, axis=-1) for colour in things])
    to_other = np.min([np.linalg.norm(lab - colour, axis=-1) for colour in others], axis=0)
    nearest = to_thing.min(0)
    soft = np.clip((46 - nearest) / 12, 0, 1) * np.clip((to_other - nearest) / 10 + 0.5, 0, 1)
    return np.where(to_thing == nearest, soft, 0)


def _largest_pieces(member: np.ndarray) -> np.ndarray:
    """Keep in each frame the largest piece of a soft mask (F, H, W); pieces 2 pixels apart (sails, hull) are one."""
    kept = np.zeros_like(member)
    for mask, out in zip(member, kept, strict=True):
        labels, count = ndimage.label(ndimage.binary_dilation(mask > 0.4, iterations=2))
        if count:
            masses = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
            piece = labels == 1 + int(np.argmax(masses))
            out[piece] = mask[piece]
    return kept


def _track(frames: np.ndarray) -> Track:
    members = _memberships(frames)
    names = list(COLOURS)
    pieces = {name: _largest_pieces(members[i]) for i, name in enumerate(names) if members[i].sum() > 20 * len(frames)}
    sizes = {name: float(np.mean(np.sort(p.sum((1, 2)))[len(p) // 2 :])) for name, p in pieces.items()}
    # White is also in clouds, windows and highlights: it counts only where nothing is coloured.
    coloured = {name: size for name, size in sizes.items() if name != "white" and size > 30}
    chosen = coloured or sizes or {"white": 0.0}
    colour = max(chosen, key=lambda name: chosen[name])
    masks = pieces.get(colour, np.zeros(frames.shape[:3], np.float32))

    areas = masks.sum((1, 2))
    solid = masks > 0.4
    touches = solid[:, :, [0, -1]].any((1, 2)) | solid[:, [0, -1], :].any((1, 2))
    seen = (areas > 12) & ~touches
    if seen.sum() < 6:
        seen = areas > 12
    index = np.flatnonzero(seen)
    masks, areas = masks[index], areas[index]
    ys, xs = np.mgrid[: frames.shape[1], : frames.shape[2]]
    centres = np.stack([(masks * xs).sum((1, 2)), (masks * ys).sum((1, 2))], -1) / np.maximum(areas, 1e-6)[:, None]
    return Track(colour, index, masks, centres, areas)


# ---- shape ------------------------------------------------------------------------------------------------------


def _normalised(mask: np.ndarray) -> np.ndarray:
    """A mask at a common place and spread, as a flat vector of length 1 and mean 0; (GRID * GRID,)."""
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]]
    total = mask.sum()
    x, y = (mask * xs).sum() / total, (mask * ys).sum() / total
    spread = np.sqrt((mask * ((xs - x) ** 2 + (ys - y) ** 2)).sum() / total)
    steps = np.linspace(-2.0, 2.0, GRID) * spread
    grid = np.meshgrid(y + steps, x + steps, indexing="ij")
    vector = ndimage.map_coordinates(mask, grid, order=1, mode="constant").ravel()
    vector -= vector.mean()
    return vector / (np.linalg.norm(vector) + 1e-9)


@lru_cache(maxsize=None)
def _silhouettes(colour: str) -> np.ndarray:
    """Every shape in every rotation, seen through the same colour rule: (shapes, angles or mirrored angles, GRID**2)."""
    member = list(COLOURS).index(colour)
    bank = []
    for shape in SHAPES:
        # A turn of 10 degrees a frame; the mirror image is what a thing that goes left looks like.
        thing = Thing(shape, colour, 26, Motion("spins", 32, 32, rate=1 / len(ANGLES)))
        background = Background("plain", "dark" if colour == "white" else "grey")
        frames = render(Scene(background, (thing,)), len(ANGLES))
        views = [frames, frames[:, :, ::-1]] if shape in ("car", "boat") else [frames, frames]
        blurred = ndimage.gaussian_filter(np.concatenate(views).astype(np.float32), (0, 0.7, 0.7, 0))
        bank.append([_normalised(mask) for mask in _largest_pieces(_memberships(blurred)[member])])
    return np.array(bank, dtype=np.float32)


def _shape(track: Track) -> tuple[str, float, np.ndarray]:
    """The shape, its mean correlation, and its angle in each frame, degrees (n,)."""
    bank = _silhouettes(track.colour)
    vectors = np.array([_normalised(mask) for mask in track.masks], dtype=np.float32)
    scores = np.einsum("fp,sap->sfa", vectors, bank)
    best = scores.max(-1).mean(-1)
    winner = int(np.argmax(best))
    return SHAPES[winner], float(best[winner]), ANGLES[scores[winner].argmax(-1) % len(ANGLES)]


# ---- motion -----------------------------------------------------------------------------------------------------


def _fit(columns: list[np.ndarray], values: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares of values on columns: (weights, squared error)."""
    design = np.stack(columns, -1)
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    return weights, float(((design @ weights - values) ** 2).sum())


def _paths(time: np.ndarray, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How badly each path explains the centres: bits of a description, lower is better."""
    one = np.ones_like(time)
    count = len(time)

    def cost(error: float, parameters: int) -> float:
        return count * np.log(max(error / count, 0.0) + 0.35) + parameters * np.log(count)

    flat_x, flat_y = _fit([one], x)[1], _fit([one], y)[1]
    (_, speed_x), line_x = _fit([one, time], x)
    (_, speed_y), line_y = _fit([one, time], y)
    costs = {"still": cost(flat_x + flat_y, 2)}
    if abs(speed_x) > 0.25:
        costs["right" if speed_x > 0 else "left"] = cost(line_x + flat_y, 3)
    if abs(speed_y) > 0.25:
        costs["falls" if speed_y > 0 else "rises"] = cost(flat_x + line_y, 3)
    for period in np.arange(22, 35, 1.0):
        for phase in np.arange(0, 1, 1 / 16):
            u = (time / period + phase) % 1
            (_, height), error = _fit([one, 4 * u * (1 - u)], y)
            if height < -6:
                costs["bounces"] = min(costs.get("bounces", np.inf), cost(flat_x + error, 5))
    for period in np.arange(48, 85, 4.0):
        turn = 2 * np.pi * time / period
        cos, sin = np.cos(turn), np.sin(turn)
        # x = a + p cos - q sin, y = b + p sin + q cos: one clockwise circle, fitted to both at once
        zero = np.zeros_like(one)
        columns = [np.concatenate(pair) for pair in ((one, zero), (zero, one), (cos, sin), (-sin, cos))]
        (_, _, p, q), error = _fit(columns, np.concatenate([x, y]))
        if 7 < np.hypot(p, q) < 24:
            costs["orbits"] = min(costs.get("orbits", np.inf), cost(error, 5))
        (a, p, q), error = _fit([one, cos, sin], x)
        if 6 < np.hypot(p, q) < 24:
            sag = (x - a) ** 2 / (2 * 38)
            costs["swings"] = min(costs.get("swings", np.inf), cost(error + _fit([one], y + sag)[1], 6))
    return costs


def _turns(vectors: np.ndarray, time: np.ndarray) -> float:
    """How much a silhouette's look at the start differs from its looks later: 0 (never turns) to 1."""
    groups = np.array_split(vectors, 8) if len(vectors) >= 16 else np.array_split(vectors, 4)
    means = np.array([g.mean(0) for g in groups])
    means /= np.linalg.norm(means, axis=-1, keepdims=True) + 1e-9
    return float(1 - (means @ means.T).min())


def _motion(track: Track, frames: np.ndarray, shape: str) -> str:
    time = track.frames.astype(np.float64)
    if len(time) < 4:
        return "stays still"
    growth = np.polyfit(time, np.log(np.maximum(track.areas, 1)), 1)[0] * (time[-1] - time[0])
    if abs(growth) > 0.45:
        return "grows" if growth > 0 else "shrinks"
    x, y = track.centres.T
    costs = _paths(time, x, y)
    path = min(costs, key=lambda name: costs[name])
    return path
