"""What `judge.py` does not say of AnimateDiff's videos: which look a frame has, how things move in a look, how much
flickers, and how the camera moves. Frames are uint8 (F, 64, 64, 3), as the studio draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from judge import thing_pixels
from scipy import ndimage

from animagic.synthetic import render, sample_scene
from animagic.synthetic.looks import LOOKS, apply_look

STYLES = ("plain", *LOOKS, "noise")
MARGIN = 5  # pixels of bare paper around a watercolour
SHEET_RED, SHEET_BLUE, INK_RED, INK_BLUE = 22.0, 132.0, 226.0, 255.0  # of a blueprint


# ---- look ------------------------------------------------------------------------------------------------


def style_features(frames: np.ndarray) -> np.ndarray:
    """What tells looks apart: colours and unrest of the whole frame and of its margin, (F, 19)."""
    pixels = frames.astype(np.float32) / 255
    saturation = pixels.max(-1) - pixels.min(-1)
    right, down = np.abs(np.diff(pixels, axis=2)).mean((1, 2, 3)), np.abs(np.diff(pixels, axis=1)).mean((1, 2, 3))
    rim = np.ones(frames.shape[1:3], bool)
    rim[2:-2, 2:-2] = False
    parts = [pixels.mean((1, 2)), pixels.std((1, 2)), pixels[:, rim].mean(1), pixels[:, rim].std(1)]
    parts += [np.quantile(saturation, (0.1, 0.5, 0.9), axis=(1, 2)).T, np.stack([right, down], -1)]
    within = ndimage.uniform_filter(pixels, (0, 9, 9, 0))
    parts.append(np.stack([np.abs(pixels - within).mean((1, 2, 3)), within.std((1, 2)).mean(-1)], -1))
    return np.concatenate(parts, -1)


def nothing(rng: np.random.Generator) -> np.ndarray:
    """A frame that shows nothing: noise of any colour, contrast and coarseness, or one flat colour, (64, 64, 3)."""
    noise = rng.standard_normal((64, 64, 3))
    noise = ndimage.gaussian_filter(noise, (*[rng.choice((0.0, 0.7, 1.5, 4.0))] * 2, 0))
    contrast = rng.choice((0.0, 15.0, 30.0, 60.0))
    frame = rng.uniform(0, 255) + rng.uniform(-40, 40, 3) + noise / noise.std() * contrast
    return np.rint(frame.clip(0, 255)).astype(np.uint8)


def drawn_frames(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames of every style, sharp and blurred as an autoencoder leaves them: ((count, 64, 64, 3), index in STYLES)."""
    rng = np.random.default_rng(seed)
    frames, styles = [], np.arange(count) % len(STYLES)
    for style in styles:
        if STYLES[style] == "noise":
            frames.append(nothing(rng))
            continue
        frame = render(sample_scene(rng), 1, start=int(rng.integers(48)))
        if STYLES[style] in LOOKS:
            frame = apply_look(STYLES[style], frame, int(rng.integers(2**31)))
        blur = rng.choice((0.0, 0.4, 0.8))
        frames.append(np.rint(ndimage.gaussian_filter(frame[0].astype(np.float32), (blur, blur, 0))).astype(np.uint8))
    return np.stack(frames), styles


@cache
def _style_weights(count: int = 600, steps: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and spread of the features, and the weights (features + 1, styles) of a logistic regression."""
    frames, styles = drawn_frames(count, seed=1)
    features = style_features(frames)
    mean, spread = features.mean(0), features.std(0)
    inputs = np.concatenate([(features - mean) / spread, np.ones((count, 1))], -1)
    weights, velocity = np.zeros((inputs.shape[1], len(STYLES))), 0.0
    for _ in range(steps):
        scores = np.exp(inputs @ weights)
        error = scores / scores.sum(-1, keepdims=True) - np.eye(len(STYLES))[styles]
        velocity = 0.9 * velocity + inputs.T @ error / count + 1e-4 * weights
        weights = weights - 0.1 * velocity
    return mean, spread, weights


def style_of(frames: np.ndarray) -> list[str]:
    """The look of every frame, one of STYLES."""
    mean, spread, weights = _style_weights()
    features = (style_features(frames) - mean) / spread
    return [STYLES[i] for i in (features @ weights[:-1] + weights[-1]).argmax(-1)]


# ---- motion ----------------------------------------------------------------------------------------------


def _unpainted(frames: np.ndarray) -> np.ndarray:
    """A watercolour with its colours about as they were, and without the bare paper."""
    inner = frames[:, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float32)
    inner = 255 - (255 - inner) / 0.8
    whole = np.pad(inner, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")
    return np.rint(whole.clip(0, 255)).astype(np.uint8)


def _coloured_in(frames: np.ndarray) -> np.ndarray:
    """A blueprint as a red thing on grey: what is filled paler than the sheet, and contours that do not stay."""
    pixels = frames.astype(np.float32)
    line = ((pixels[..., 0] - SHEET_RED) / (INK_RED - SHEET_RED)).clip(0, 1)
    blue = SHEET_BLUE + line * (INK_BLUE - SHEET_BLUE)  # of an empty sheet with these lines
    fill = (pixels[..., 2] - blue) / (0.35 * SHEET_BLUE * (1.05 - line))  # the saturation that the plain picture had
    fill = (ndimage.gaussian_filter(fill, (0, 0.7, 0.7)) > 0.46) & (line < 0.5)
    moving = line - np.median(line, axis=0) > 0.3
    thing = ndimage.binary_closing(fill | moving, np.ones((1, 3, 3)))
    thing = np.stack([ndimage.binary_fill_holes(one) for one in thing])
    thing = ndimage.binary_opening(thing, np.ones((1, 2, 2)))
    return np.where(thing[..., None], (222, 40, 48), (172, 176, 182)).astype(np.uint8)


PLAIN_AGAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda frames: frames,
    "watercolour": _unpainted,
    "blueprint": _coloured_in,
}
"""What makes videos of a look such that `judge` can follow things in them."""


def kind_of(motion: str) -> str:
    """A motion of the studio as far as it can be seen in every look: what rolls is not told from what slides."""
    return motion.replace("slides", "moves").replace("rolls", "moves")


# ---- flicker ---------------------------------------------------------------------------------------------


def changes(frames: np.ndarray) -> np.ndarray:
    """Mean difference of each frame from the one before it, 0 to 255: (F - 1,)."""
    return np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))


def flicker(frames: np.ndarray, look: str = "plain") -> float:
    """Mean change from frame to frame where the thing is in neither, 0 to 255."""
    things = thing_pixels(PLAIN_AGAIN[look](frames))
    free = ~(things[1:] | things[:-1])
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean(-1)
    return float((change * free).sum() / max(1, free.sum()))


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


# ---- camera ----------------------------------------------------------------------------------------------


def _warp(picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """A picture (64, 64) moved by (right, down, growth, turn): where each of its points was."""
    right, down, growth, turn = motion
    middle = (np.array(picture.shape) - 1) / 2
    inverse = np.array([[1 - growth, -turn], [turn, 1 - growth]])  # rows: y, x
    offset = middle - inverse @ (middle + np.array([down, right]))
    return ndimage.affine_transform(picture, inverse, offset, order=1, mode="nearest")


def _step(before: np.ndarray, after: np.ndarray, rounds: int = 9) -> np.ndarray:
    """By what motion (right, down in pixels, growth, turn clockwise in radians) `before` becomes `after`, both (H, W).

    Least squares on the brightness' gradients, again and again on the picture that is moved so far, blurred less and
    less; pixels that do not follow count little.
    """
    ys, xs = np.mgrid[: before.shape[0], : before.shape[1]] - (before.shape[0] - 1) / 2
    motion = np.zeros(4)
    for i in range(rounds):
        blur = 3.0 if i < rounds / 3 else 1.5
        moved, target = (ndimage.gaussian_filter(one, blur) for one in (_warp(before, motion), after))
        down, right = np.gradient(moved)
        columns = np.stack([right, down, xs * right + ys * down, xs * down - ys * right], -1)[6:-6, 6:-6]
        error = (moved - target)[6:-6, 6:-6]
        weight = 1 / (1 + (np.abs(error) / (1.4826 * np.median(np.abs(error)) + 2)) ** 2)
        # The brightness of a point is kept: moved - motion . gradients = target.
        design = (columns * weight[..., None]).reshape(-1, 4)
        motion = motion + np.linalg.lstsq(design, (error * weight).ravel(), rcond=None)[0]
    return motion


def camera_motion(frames: np.ndarray) -> np.ndarray:
    """Median motion of the whole picture from frame to frame: (right, down in pixels, growth, turn clockwise)."""
    grey = frames.astype(np.float64).mean(-1)
    return np.median([_step(a, b) for a, b in pairwise(grey)], axis=0)


def camera_move(frames: np.ndarray, slowest: float = 0.25) -> str:
    """The key of CAMERA_MOVES that the picture's motion fits best, or "still": less than `slowest` pixels a frame."""
    right, down, growth, turn = camera_motion(frames)
    reach = 24.5  # pixels from the middle, on average: where growth and turns are seen
    # The picture goes the other way than the camera.
    moves = {
        "pan-left": right, "pan-right": -right, "pan-up": down, "pan-down": -down, "zoom-in": reach * growth,
        "zoom-out": -reach * growth, "roll-clockwise": -reach * turn, "roll-anticlockwise": reach * turn,
    }  # fmt: skip
    best = max(moves, key=lambda name: moves[name])
    return best if moves[best] >= slowest else "still"
