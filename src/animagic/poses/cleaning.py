"""Poses over time without their noise and short gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..tracking import filled, fitted
from .body import SEEN
from .skeleton import Poses

_CUTOFF = 6.0  # times the median error: from there on a point is a mistake, which does not count
_EXACT = 0.002  # of the frame's height: smaller errors are never mistakes


def smoothed(poses: Poses, seconds: float = 0.06, longest_gap: float = 0.5) -> Poses:
    """The poses smoothed over time, with short gaps filled.

    At each instant a parabola is fitted to the points around it, weighted by their confidence and nearness in time,
    once more without those far from the first fit (LOESS; Cleveland, 1979). It does not lag behind, keeps the height
    of quick gestures, and mends single frames in which left and right are exchanged.

    Args:
        seconds: standard deviation of the weights in time; 0 only fills gaps.
        longest_gap: of a point that is out of sight, in seconds. Longer ones stay empty, with confidence 0, as do those
            before the first sight and after the last.
    Raises: InputError for a negative length.
    """
    if seconds < 0 or longest_gap < 0:
        raise InputError(f"poses cannot be smoothed over {seconds} s with gaps of {longest_gap} s; give 0 or more.")
    seen = poses.confidence > SEEN
    weights = np.where(seen, poses.confidence, 0).astype(np.float64)
    points = poses.points.astype(np.float64)
    if seconds > 0 and len(points) > 2:
        sigma = seconds * poses.fps
        error = np.linalg.norm((fitted(points, weights, sigma) - points)[..., :2], axis=-1)
        scale = _CUTOFF * np.maximum(_medians(error, seen), _EXACT * poses.height)
        trusted = np.maximum(1 - (error / scale) ** 2, 0) ** 2
        points = fitted(points, weights * np.maximum(trusted, 1e-6), sigma)
    confidence = np.where(seen, poses.confidence, 0)
    points, confidence = filled(points, confidence, seen, longest_gap * poses.fps, 1.01 * SEEN)
    return replace(poses, points=points.astype(np.float32), confidence=confidence.astype(np.float32))


def _medians(error: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(people, 33): the median error over the frames in which a point is seen."""
    ordered = np.sort(np.where(seen, error, np.inf), axis=0)
    middle = np.maximum(seen.sum(0, keepdims=True) - 1, 0) // 2
    found = np.take_along_axis(ordered, middle, 0)[0]
    return np.where(np.isfinite(found), found, 0)
