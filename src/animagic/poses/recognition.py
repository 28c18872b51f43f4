"""Whether a video shows a pose already: drawn body parts, or a skeleton."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from .skeleton import PART_COLOURS

_LOOKED_AT = 8  # frames
_SIZE = 256  # pixels: larger frames are looked at in parts
_DARK = 24  # of 255: how far a codec carries a flat background from its colour
_BACKGROUND = 0.25  # of the frame, at least
_LEAST_DRAWN = 0.002  # of the frame; a frame with less shows nobody
_THICK = 0.03  # of the smaller side: lines of a skeleton are thinner
_NEAR = 32  # of 255, to a colour of DensePose
_MOSTLY_DENSEPOSE = 0.75  # of what is drawn on its background
_PURE, _BRIGHT = 140, 64  # of 255: saturation and value of a colour that nobody wears
_MOSTLY = 0.7  # of what is drawn
_HUES, _FEWEST_HUES = 12, 5  # hues are told apart; a drawn body has at least
_LEAST_SHARE = 0.02  # of what is drawn, for a hue to count


def is_pose_video(frames: Iterable[np.ndarray]) -> Literal["parts", "skeleton"] | None:
    """What the first frames, uint8 (height, width, 3), are: flat body parts or the lines of a skeleton, both on black
    or on the darkest colour of DensePose; None for an ordinary video. Take frames from all over the video."""
    found = [kind for frame in islice(frames, _LOOKED_AT) if (kind := _kind(frame)) != "nobody"]
    for kind in ("parts", "skeleton"):
        if found.count(kind) > len(found) / 2:
            return kind  # type: ignore[return-value]
    return None


def _kind(frame: np.ndarray) -> str:
    """ "parts", "skeleton", "nobody" on a background that could be either's, or "other"."""
    step = max(1, min(frame.shape[:2]) // _SIZE)  # single pixels stay as they are: flat colours must stay flat
    small = np.ascontiguousarray(frame[::step, ::step])
    far = np.abs(small.astype(np.int16)[..., None, :] - np.array([(0, 0, 0), PART_COLOURS[0]])).max(-1) > _DARK
    shares = 1 - far.mean((0, 1))
    background = int(np.argmax(shares))
    drawn = far[..., background]
    if shares.max() < _BACKGROUND:
        return "other"
    if drawn.mean() < _LEAST_DRAWN:
        return "nobody"
    if background == 1:
        return "parts" if _share_of_densepose(small[drawn]) >= _MOSTLY_DENSEPOSE else "other"
    pure, hues = _colours(small[drawn])
    if hues < _FEWEST_HUES or max(pure, _share_of_densepose(small[drawn])) < _MOSTLY:
        return "other"
    return "parts" if _eroded(drawn, _THICK * min(drawn.shape)).sum() > 0.05 * drawn.sum() else "skeleton"


def _eroded(mask: np.ndarray, width: float) -> np.ndarray:
    """The mask without what is thinner than `width` pixels."""
    size = max(1, round(width / 2)) * 2 + 1
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MinFilter(size))) > 0


def _share_of_densepose(pixels: np.ndarray) -> float:
    """How many of the pixels (n, 3) have a colour of DensePose, nearly."""
    distances = [np.abs(pixels.astype(np.int16) - colour).max(-1) for colour in PART_COLOURS.astype(np.int16)]
    return float((np.minimum.reduce(distances) <= _NEAR).mean())


def _colours(pixels: np.ndarray) -> tuple[float, int]:
    """Of the brighter pixels (n, 3): the share of pure colours and white, and how many hues the pure ones have."""
    hue, saturation, value = np.asarray(Image.fromarray(pixels[None]).convert("HSV"))[0].T
    bright = value >= _BRIGHT
    pure = bright & (saturation >= _PURE)
    white = (saturation < 40) & (value > 180)
    shares = np.bincount(hue[pure].astype(int) * _HUES // 256, minlength=_HUES) / max(pure.sum(), 1)
    return float((pure | white).sum() / max(bright.sum(), 1)), int((shares >= _LEAST_SHARE).sum())
