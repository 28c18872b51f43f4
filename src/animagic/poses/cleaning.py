"""Poses over time without their noise and short gaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..errors import InputError
from .body import SEEN
from .skeleton import Poses

_DEGREE = 2
_CUTOFF = 6.0  # times the median error: from there on a point is a mistake, which does not count
_EXACT = 0.002  # of the frame's height: smaller errors are never mistakes
_GUESSED = 0.5  # of the confidence around a gap, for what fills it


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
        error = np.linalg.norm((_fitted(points, weights, sigma) - points)[..., :2], axis=-1)
        scale = _CUTOFF * np.maximum(_medians(error, seen), _EXACT * poses.height)
        trusted = np.maximum(1 - (error / scale) ** 2, 0) ** 2
        points = _fitted(points, weights * np.maximum(trusted, 1e-6), sigma)
    points, confidence = _filled(points, np.where(seen, poses.confidence, 0), seen, longest_gap * poses.fps)
    return replace(poses, points=points.astype(np.float32), confidence=confidence.astype(np.float32))


def _medians(error: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(people, 33): the median error over the frames in which a point is seen."""
    ordered = np.sort(np.where(seen, error, np.inf), axis=0)
    middle = np.maximum(seen.sum(0, keepdims=True) - 1, 0) // 2
    found = np.take_along_axis(ordered, middle, 0)[0]
    return np.where(np.isfinite(found), found, 0)


def _fitted(points: np.ndarray, weights: np.ndarray, sigma: float) -> np.ndarray:
    """Local parabolas at every frame, points (frames, people, 33, 3), weights (frames, people, 33), sigma in frames."""
    frames, reach = len(points), max(1, int(np.ceil(3 * sigma)))
    powers = np.arange(2 * _DEGREE + 1)
    moments = np.zeros((*weights.shape, len(powers)))
    sums = np.zeros((*weights.shape, _DEGREE + 1, points.shape[-1]))
    for shift in range(-reach, reach + 1):
        here = slice(max(0, -shift), max(0, frames - max(0, shift)))
        there = slice(max(0, shift), max(0, frames - max(0, -shift)))
        near = np.exp(-0.5 * (shift / sigma) ** 2) * weights[there]
        moments[here] += near[..., None] * float(shift) ** powers
        terms = near[..., None] * float(shift) ** powers[: _DEGREE + 1]
        sums[here] += terms[..., None] * points[there][..., None, :]
    matrix = moments[..., powers[: _DEGREE + 1, None] + powers[: _DEGREE + 1]]
    # Where too few points are in sight for a parabola, the ridge leaves a line or a mean.
    ridge = np.diag([1e-12, 1e-6, 1e-6])
    fitted = np.linalg.solve(matrix + ridge, sums)[..., 0, :]
    return np.where(weights[..., None] > 0, fitted, points)


def _filled(
    points: np.ndarray, confidence: np.ndarray, seen: np.ndarray, longest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gaps of at most `longest` frames are filled along straight lines."""
    points, confidence = points.copy(), confidence.copy()
    numbers = np.arange(len(points))
    for person, landmark in np.argwhere(~seen.all(0) & seen.any(0)):
        there = np.flatnonzero(seen[:, person, landmark])
        for before, after in pairwise(there):
            gap = slice(before + 1, after)
            if not 1 < after - before <= longest + 1:
                continue
            share = ((numbers[gap] - before) / (after - before))[:, None]
            ends = points[[before, after], person, landmark]
            points[gap, person, landmark] = (1 - share) * ends[0] + share * ends[1]
            least = confidence[[before, after], person, landmark].min()
            confidence[gap, person, landmark] = max(_GUESSED * least, 1.01 * SEEN)
    return points, confidence
