"""The judge of drawn scenes: by rules, which colour, shape, motion, background and camera a 64 x 64 video shows.

It knows the studio's palette and silhouettes, but nothing of the scene that it looks at. Models' videos are blurred, so
colours are weighed per pixel, shapes are correlated with rendered silhouettes, and the motion is the one of the
studio's paths that the thing's centre follows best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from ..errors import InputError
from ..synthetic import COLOURS, SHAPES, Background, Motion, Scene, Thing, facts, render
from ..synthetic.drawing import MOON, SUN
from ..synthetic.scenes import FLOORS, PANNED, PHOTOS, PLAIN, VIEWS, WALLS

GRID = 20  # silhouettes are compared at this many pixels a side
ANGLES = np.arange(0, 360, 10)
BLURS = (0.0, 1.0, 1.8)  # pixels
OUTLINE = (45, 42, 52)
NOT_A_THING = [MOON, SUN, OUTLINE, *PLAIN.values(), *FLOORS.values(), *WALLS.values(), *sum(VIEWS.values(), ())]


@dataclass(frozen=True)
class Verdict:
    """The judgement of a video. confidence: mean correlation with the shape's silhouette, 0 to 1; share: part of the
    frames that show the thing as a whole."""

    colour: str
    shape: str
    motion: str
    background: str
    camera: str
    confidence: float
    share: float


@dataclass(frozen=True)
class Track:
    """The thing in the n frames (their indices in `frames`) where it lies wholly in view."""

    colour: str
    frames: np.ndarray
    everywhere: np.ndarray  # (F, 64, 64), 0 to 1, in every frame of the video
    masks: np.ndarray  # (n, 64, 64), 0 to 1
    centres: np.ndarray  # (n, 2), x and y in pixels
    spreads: np.ndarray  # (n,), root mean square distance from the centre, pixels


def _lab(rgb) -> np.ndarray:
    return rgb2lab(np.asarray(rgb, dtype=np.float64) / 255).astype(np.float32)


@cache
def _table() -> np.ndarray:
    """Membership of every colour of 6 bits a channel in every palette colour: (colours, 2 ** 18), 0 to 1."""
    levels = np.arange(2, 256, 4)
    lab = _lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, -1, 3))[0]
    things, others = _lab([list(COLOURS.values())])[0], _lab([NOT_A_THING])[0]
    to_thing = np.stack([np.linalg.norm(lab - colour, axis=-1) for colour in things])
    # A blurred white thing looks like a pale wall; no white thing stands before one, so white wins.
    others = others[np.linalg.norm(others - things[list(COLOURS).index("white")], axis=-1) > 20]
    to_other = np.min([np.linalg.norm(lab - colour, axis=-1) for colour in others], axis=0)
    nearest = to_thing.min(0)
    soft = np.clip((46 - nearest) / 12, 0, 1) * np.clip((to_other - nearest) / 10 + 0.5, 0, 1)
    return np.where(to_thing == nearest, soft, 0).astype(np.float32)


def _memberships(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """How much each pixel has of each palette colour, 0 to 1, and of one at most: (colours, F, H, W)."""
    red, green, blue = np.moveaxis(frames.astype(np.int32) >> 2, -1, 0)
    return table[..., (red << 12) | (green << 6) | blue]


def _largest_pieces(member: np.ndarray) -> np.ndarray:
    """Keep in each frame the largest piece of a soft mask (F, H, W).

    Pieces up to 11 pixels apart are one: sails and hull, or a ring between its pale marks.
    """
    kept = np.zeros_like(member)
    for mask, out in zip(member, kept, strict=True):
        labels, count = ndimage.label(ndimage.distance_transform_edt(mask <= 0.4) < 5.5)
        if count:
            masses = ndimage.sum_labels(mask, labels, np.arange(1, count + 1))
            piece = labels == 1 + int(np.argmax(masses))
            out[piece] = mask[piece]
    return kept


def _track(frames: np.ndarray) -> Track:
    """Find the palette colour of which most is seen in one piece, and follow that piece. Raises InputError."""
    if frames.ndim != 4 or frames.shape[1:] != (64, 64, 3) or frames.dtype != np.uint8 or len(frames) < 8:
        raise InputError(f"the judge takes uint8 (F, 64, 64, 3), F at least 8, not {frames.dtype} {frames.shape}.")
    members = dict(zip(COLOURS, _memberships(frames, _table()), strict=True))
    much = {name: member for name, member in members.items() if member.sum() > 20 * len(frames)}
    sizes = {name: float(np.quantile(_largest_pieces(x).sum((1, 2)), 0.75)) for name, x in much.items()}
    # White is also in clouds, windows and highlights: it counts only where nothing is coloured.
    coloured = {name: size for name, size in sizes.items() if name != "white" and size > 30}
    chosen = coloured or sizes or {"white": 0.0}
    colour = max(chosen, key=chosen.__getitem__)
    return _follow(colour, frames, members[colour])


def _follow(colour: str, frames: np.ndarray, member: np.ndarray) -> Track:
    """Follow what has this colour, in the longest run of frames through which it moves without a jump.

    member: how much each pixel has of it, (F, H, W).
    """
    everywhere = _largest_pieces(member)
    areas, solid = everywhere.sum((1, 2)), everywhere > 0.4
    rim = [0, 1, -2, -1]  # the outline, a pixel wide, is no part of the mask
    touches = solid[:, :, rim].any((1, 2)) | solid[:, rim].any((1, 2))
    whole = (areas > 12) & ~touches
    index = np.flatnonzero(whole if whole.sum() >= 6 else areas > 12)
    masks = everywhere[index]

    ys, xs = np.mgrid[: frames.shape[1], : frames.shape[2]]
    areas = areas[index]
    x, y = (masks * xs).sum((1, 2)) / areas, (masks * ys).sum((1, 2)) / areas
    squares = (xs - x[:, None, None]) ** 2 + (ys - y[:, None, None]) ** 2
    spreads = np.sqrt((masks * squares).sum((1, 2)) / areas)
    # What leaves the picture comes back on the other side: a jump.
    jumps = np.flatnonzero(np.hypot(np.diff(x), np.diff(y)) > 20) + 1
    run = max(np.split(np.arange(len(index)), jumps), key=len)
    return Track(colour, index[run], everywhere, masks[run], np.stack([x, y], -1)[run], spreads[run])


def _normalised(track: Track) -> np.ndarray:
    """Masks at a common place and spread, as vectors of mean 0 and length 1: (n, GRID * GRID)."""
    y, x = np.meshgrid(*[np.linspace(-2.0, 2.0, GRID)] * 2, indexing="ij")
    vectors = np.empty((len(track.masks), GRID * GRID), np.float32)
    for vector, mask, (right, down), spread in zip(vectors, track.masks, track.centres, track.spreads, strict=True):
        where = (y.ravel() * spread + down, x.ravel() * spread + right)
        vector[:] = ndimage.map_coordinates(mask, where, order=1, mode="constant")
    vectors -= vectors.mean(-1, keepdims=True)
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


@cache
def _silhouettes(colour: str) -> np.ndarray:
    """Every shape as the judge itself sees it: (shapes, looks, angles, GRID * GRID).

    The looks are three degrees of blur, of the shape and of its mirror image (a car that goes left).
    """
    bank = []
    background = Background("plain", "dark" if colour == "white" else "grey")
    for shape in SHAPES:
        thing = Thing(shape, colour, 24, Motion("spins", 32, 32, rate=1 / len(ANGLES)))
        frames = render(Scene(background, (thing,)), len(ANGLES)).astype(np.float32)
        for blur in BLURS:
            blurred = ndimage.gaussian_filter(frames, (0, blur, blur, 0))
            for view in (blurred, blurred[:, :, ::-1]):
                track = _follow(colour, view, _memberships(view, _table()[list(COLOURS).index(colour)]))
                vectors = np.zeros((len(ANGLES), GRID * GRID), np.float32)  # white may blur away altogether
                vectors[track.frames] = _normalised(track)
                bank.append(vectors)
    return np.reshape(bank, (len(SHAPES), -1, len(ANGLES), GRID * GRID))


def _shape(track: Track) -> tuple[str, float, np.ndarray]:
    """The shape, its mean correlation (0 to 1), and how well it fits each frame at each angle: (n, angles)."""
    if not len(track.masks):
        return SHAPES[0], 0.0, np.zeros((0, len(ANGLES)))
    scores = np.einsum("fp,slap->slfa", _normalised(track), _silhouettes(track.colour), optimize=True)
    best = scores.max(-1).mean(-1)  # (shapes, looks)
    winner, look = np.unravel_index(np.argmax(best), best.shape)
    upright = scores[winner, ::2]  # not mirrored: only what is upright turns
    return SHAPES[winner], float(best[winner, look]), upright[best[winner, ::2].argmax()]


def _fit(columns: list[np.ndarray], values: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares of values on columns: (weights, squared error)."""
    design = np.stack(columns, -1)
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    return weights, float(((design @ weights - values) ** 2).sum())


def _paths(time: np.ndarray, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How badly each path explains the centres: bits of a description, lower is better."""
    one, count = np.ones_like(time), len(time)

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


def _turns(scores: np.ndarray, time: np.ndarray, rates: np.ndarray) -> float:
    """By how much a steady turn at one of the rates (degrees a frame) explains the looks better than none."""

    def fit(rate: float) -> float:
        turned = ANGLES[:, None] + rate * time  # (first angle, frame)
        steps = np.rint(turned / 10).astype(int) % len(ANGLES)
        return float(scores[np.arange(len(time)), steps].mean(-1).max())

    return max(fit(rate) for rate in rates) - fit(0.0)


def _motion(track: Track, shape: str, scores: np.ndarray) -> str:
    time = track.frames.astype(np.float64)
    if len(time) < 4:
        return "stays still"
    logs = np.log(track.spreads)
    growth = np.polyfit(time, logs, 1)[0] * (time[-1] - time[0])
    if abs(growth) > 0.22 and abs(np.corrcoef(time, logs)[0, 1]) > 0.8:  # much, and steadily
        return "grows" if growth > 0 else "shrinks"
    costs = _paths(time, *track.centres.T)
    path = min(costs, key=costs.__getitem__)
    if path == "still":
        turning = shape not in ("ball", "ring") and _turns(scores, time, np.arange(2.4, 4.3, 0.2)) > 0
        return "spins" if turning else "stays still"
    if path in ("left", "right"):
        sign = 1 if path == "right" else -1
        rolling = shape in ("ball", "ring") and _turns(scores, time, sign * np.arange(1.8, 5.6, 0.2)) > 0
        return f"{'rolls' if rolling else 'slides'} {path}"
    return path


def _pan_rate(frames: np.ndarray, things: np.ndarray) -> float:
    """Pixels a frame by which the camera moves to the right; things: pixels to leave out (F, H, W)."""
    lag = min(24, len(frames) // 2)
    grey, free = frames[:, :48].astype(np.float32).mean(-1), ~things[:, :48]

    def mismatch(shift: int) -> float:
        here = slice(None, -lag, 4), slice(None), slice(max(shift, 0), 64 + min(shift, 0))
        there = slice(lag, None, 4), slice(None), slice(max(-shift, 0), 64 + min(-shift, 0))
        both = free[here] & free[there]
        return float(np.abs(grey[here] - grey[there])[both].mean()) if both.any() else np.inf

    shifts = np.arange(-lag, lag + 1)
    costs = np.array([mismatch(int(shift)) for shift in shifts])
    best = int(np.argmin(costs))
    return float(shifts[best] / lag) if costs[lag] > 1 and costs[best] < 0.6 * costs[lag] else 0.0


def _profile(frames: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Colour and unrest of each row without the thing, (64, 6): what backgrounds are compared by."""
    still = np.ma.masked_array(_lab(frames), np.repeat(things[..., None], 3, -1))
    picture = np.ma.mean(still, axis=0)  # (64, 64, 3)
    return np.concatenate([np.ma.median(picture, axis=1).filled(0), picture.std(axis=1).filled(0)], -1)


@cache
def _backgrounds() -> tuple[list[str], np.ndarray]:
    plain = [Background("plain", name) for name in PLAIN] + [Background("floor", name) for name in FLOORS]
    views = [Background(kind, "", seed) for kind in VIEWS for seed in range(6)]
    photos = [Background("photo", name, seed) for name in PHOTOS for seed in range(12)]
    nothing = np.zeros((1, 64, 64), bool)
    names, profiles = [], []
    for background in plain + views + photos:
        scene = Scene(background, (Thing("ball", "red", 4, Motion("stays still", 32, 32)),))
        names.append(facts(scene)["background"])
        profiles.append(_profile(render(replace(scene, things=()), 1), nothing))
    return names, np.array(profiles)


def _background(frames: np.ndarray, things: np.ndarray) -> str:
    names, profiles = _backgrounds()
    return names[int(np.abs(profiles - _profile(frames[::6], things[::6])).mean((1, 2)).argmin())]


def _around(track: Track) -> np.ndarray:
    """The thing's pixels, and those up to 4 beside it: its outline and shadow, (F, 64, 64)."""
    return ndimage.binary_dilation(track.everywhere > 0.2, np.ones((1, 3, 3)), iterations=4)


def judge(frames: np.ndarray, fps: float = 24) -> Verdict:
    """Say what one drawn thing is and does, and where; frames uint8 (F, 64, 64, 3), at least 8 of them."""
    track = _track(frames)
    things = _around(track)
    background = _background(frames, things)
    pan = _pan_rate(frames, things) if background in PANNED else 0.0  # elsewhere no pan could be seen
    shape, confidence, scores = _shape(track)
    fixed = track.centres + np.outer(track.frames, (pan, 0))  # as a camera that stays would see it
    timed = replace(track, frames=track.frames * 24 / fps, centres=fixed)
    return Verdict(
        colour=track.colour,
        shape=shape,
        motion=_motion(timed, shape, scores),
        background=background,
        camera="still" if pan == 0 else "pan right" if pan > 0 else "pan left",
        confidence=confidence,
        share=len(track.frames) / len(frames),
    )


def direction(frames: np.ndarray) -> tuple[float, float]:
    """Mean motion of the thing, pixels a frame to the right and downward; (0, 0) where none is seen twice."""
    track = _track(frames)
    if len(track.frames) < 2:
        return 0.0, 0.0
    dx, dy = np.polyfit(track.frames, track.centres, 1)[0]
    return float(dx), float(dy)


def thing_pixels(frames: np.ndarray) -> np.ndarray:
    """The mask of the thing with a rim of 4 pixels: bool (F, 64, 64)."""
    return _around(_track(frames))
