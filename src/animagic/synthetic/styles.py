"""Styles of the studio's drawings, for personalised models to learn. What is drawn by chance (paper, wash) is fixed in
a clip, so that nothing flickers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError

_INK, _SHEET, _GRID, _PAPER = np.array([(226, 238, 255), (22, 58, 132), (70, 108, 178), (252, 249, 240)], np.float32)


def apply_style(name: str, frames: np.ndarray, seed: int = 0) -> np.ndarray:
    """Redraw a clip in one of STYLES; the same seed gives the same paper.

    Args:
        frames: uint8 (frames, height, width, 3), drawn plainly.

    Returns uint8 of the same shape. Raises InputError.
    """
    if name not in STYLES:
        raise InputError(f"There is no style {name!r}; choose {' or '.join(STYLES)}.")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise InputError(f"frames are {frames.dtype} {frames.shape}; a style needs uint8 (frames, height, width, 3).")
    drawn = STYLES[name](frames.astype(np.float32), np.random.default_rng(seed))
    return np.rint(drawn.clip(0, 255)).astype(np.uint8)


def blueprint(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pale contours on deep blue with a faint grid; what is colourful is filled a little paler.

    frames: float (frames, height, width, 3), 0 to 255; the result likewise.
    """
    _, height, width, _ = frames.shape
    spacing = max(4, min(height, width) // 8)
    row, column = rng.integers(spacing, size=2)
    grid = np.zeros((height, width, 1), np.float32)
    grid[row::spacing] = grid[:, column::spacing] = 0.5
    # A contour is where the colour changes from one pixel to the next, whatever the colours are.
    down = np.abs(np.diff(frames, axis=1, append=frames[:, -1:])).max(-1, keepdims=True)
    right = np.abs(np.diff(frames, axis=2, append=frames[:, :, -1:])).max(-1, keepdims=True)
    line = ((np.maximum(down, right) - 14) / 60).clip(0, 1)
    saturation = (frames.max(-1, keepdims=True) - frames.min(-1, keepdims=True)) / 255
    sheet = _SHEET * (1 + 0.35 * saturation)
    sheet = sheet + grid * (_GRID - sheet)
    return sheet + line * (_INK - sheet)


def watercolour(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Soft pastel washes that bleed, darker along their edges, on rough paper with a bare margin.

    frames: float (frames, height, width, 3), 0 to 255; the result likewise.
    """
    _, height, width, _ = frames.shape
    scale = min(height, width) / 64
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # No brush follows an outline exactly: the picture is read a little beside each place.
    wobble_y, wobble_x = (0.75 * scale * _clouds(rng, height, width, 3 * scale) for _ in range(2))
    rows = np.rint(y + wobble_y).astype(int).clip(0, height - 1)
    columns = np.rint(x + wobble_x).astype(int).clip(0, width - 1)
    wash = _blur(frames[:, rows, columns], 0.7 * scale)
    pigment = 1 - wash / 255
    # Water carries pigment to the rim of a wash.
    rim = np.abs(wash - _blur(wash, 1.6 * scale)).max(-1, keepdims=True) / 255
    uneven = _clouds(rng, height, width, 5 * scale)[..., None]
    grain = _clouds(rng, height, width, 0.6 * scale)[..., None]
    pigment = pigment * (0.74 + 0.10 * uneven + 0.9 * rim) * (1 + 0.05 * grain)
    border = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)) / scale
    painted = (border - 2 + 0.9 * _clouds(rng, height, width, 2.5 * scale)).clip(0, 1)[..., None]
    return _PAPER * (1 - 0.012 * grain) * (1 - pigment * painted)


STYLES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blueprint": blueprint,
    "watercolour": watercolour,
}


def _blur(pictures: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur along height and width of (..., height, width, channels)."""
    radius = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1, dtype=np.float32) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (-3, -2):
        size = pictures.shape[axis]
        places = np.arange(-radius, size + radius).clip(0, size - 1)
        padded = np.take(pictures, places, axis)
        pictures = np.zeros_like(pictures)
        for i, share in enumerate(kernel):
            pictures += share * np.take(padded, range(i, i + size), axis)
    return pictures


def _clouds(rng: np.random.Generator, height: int, width: int, sigma: float) -> np.ndarray:
    """Smooth noise (height, width) of mean 0 and standard deviation 1."""
    noise = _blur(rng.standard_normal((height, width, 1)).astype(np.float32), sigma)[..., 0]
    return (noise - noise.mean()) / noise.std()
