"""The judge of camera moves: how a whole picture moves from frame to frame. Frames are uint8 (F, 64, 64, 3)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage


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
    best = max(moves, key=moves.__getitem__)
    return best if moves[best] >= slowest else "still"
