"""Camera moves over drawn clips: what MotionLoRAs are trained on. Named after the published ones."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ..errors import InputError

_WIDE, _NEAR = 1.0, 0.55  # shares of the clip's side that a zoom begins and ends with
_PANNED = 0.65
_ROLLED, _TURN = 0.7, math.radians(40)  # at this size, and up to 45 degrees, a turned window stays inside the clip

CAMERA_MOVES = {
    "pan-left": "the camera pans left",
    "pan-right": "the camera pans right",
    "pan-up": "the camera pans up",
    "pan-down": "the camera pans down",
    "zoom-in": "the camera zooms in",
    "zoom-out": "the camera zooms out",
    "roll-clockwise": "the camera rolls clockwise",
    "roll-anticlockwise": "the camera rolls anticlockwise",
}


def _view(move: str, time: float) -> tuple[float, float, float, float]:
    """(centre x, centre y, side, angle) of what the camera sees at a time from 0 to 1, in shares of the clip's side."""
    kind, way = move.split("-")
    if kind == "zoom":
        time = time if way == "in" else 1 - time
        return 0.5, 0.5, _WIDE * (_NEAR / _WIDE) ** time, 0.0
    if kind == "roll":
        # The picture turns the other way than the camera.
        return 0.5, 0.5, _ROLLED, (time - 0.5) * _TURN * (1 if way == "clockwise" else -1)
    way_along = (time - 0.5) * (1 - _PANNED) * (1 if way in ("right", "down") else -1)
    x, y = (way_along, 0.0) if way in ("left", "right") else (0.0, way_along)
    return 0.5 + x, 0.5 + y, _PANNED, 0.0


def move_camera(frames: np.ndarray, move: str, height: int, width: int) -> np.ndarray:
    """Move a camera over a clip.

    Args:
        frames: uint8 (frames, side, side, 3), best drawn about twice as large as what comes out.
        move: a key of CAMERA_MOVES.

    Returns uint8 (frames, height, width, 3). Raises: InputError for an unknown move.
    """
    if move not in CAMERA_MOVES:
        raise InputError(f"the camera move {move!r} is unknown; choose from {', '.join(CAMERA_MOVES)}.")
    side, last = frames.shape[1], max(len(frames) - 1, 1)
    seen = np.empty((len(frames), height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        x, y, share, angle = _view(move, i / last)
        scale = share * side / max(height, width)  # source pixels for one that comes out
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        # The affine map from pixels that come out to pixels of the clip, about both centres.
        a, b, d, e = cos, -sin, sin, cos
        c, f = x * side - a * width / 2 - b * height / 2, y * side - d * width / 2 - e * height / 2
        picture = Image.fromarray(frame).transform(
            (width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
        )
        seen[i] = np.asarray(picture)
    return seen
