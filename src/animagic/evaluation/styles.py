"""The judge of styles: which style a frame has, how things move in it, and how much flickers. Frames are uint8
(F, 64, 64, 3)."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from ..synthetic import render, sample_scene
from ..synthetic.styles import STYLES as DRAWN_STYLES
from ..synthetic.styles import apply_style
from .scenes import thing_pixels

STYLES = ("plain", *DRAWN_STYLES, "noise")
MARGIN = 5  # pixels of bare paper around a watercolour
SHEET_RED, SHEET_BLUE, INK_RED, INK_BLUE = 22.0, 132.0, 226.0, 255.0  # of a blueprint


def style_features(frames: np.ndarray) -> np.ndarray:
    """Features that tell styles apart: colours and unrest of the whole frame and of its margin, (F, 19)."""
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
        if STYLES[style] in DRAWN_STYLES:
            frame = apply_style(STYLES[style], frame, int(rng.integers(2**31)))
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
    """The style of every frame, one of STYLES."""
    mean, spread, weights = _style_weights()
    features = (style_features(frames) - mean) / spread
    return [STYLES[i] for i in (features @ weights[:-1] + weights[-1]).argmax(-1)]


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


TO_PLAIN = {"plain": lambda frames: frames, "watercolour": _unpainted, "blueprint": _coloured_in}
"""Style -> a function that makes a video in it one in which `judge` can follow things."""


def kind_of(motion: str) -> str:
    """A motion as far as every style shows it: rolling and sliding are both moving."""
    return motion.replace("slides", "moves").replace("rolls", "moves")


def flicker(frames: np.ndarray, style: str = "plain") -> float:
    """Mean change from frame to frame where the thing is in neither, 0 to 255."""
    things = thing_pixels(TO_PLAIN[style](frames))
    free = ~(things[1:] | things[:-1])
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean(-1)
    return float((change * free).sum() / max(1, free.sum()))
