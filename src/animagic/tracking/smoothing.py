"""Points over time without their noise and short gaps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_DEGREE = 2
_GUESSED = 0.5  # of the confidence around a gap, for what fills it


def fitted(points: np.ndarray, weights: np.ndarray, sigma: float) -> np.ndarray:
    """The points smoothed over time: at each instant a parabola is fitted to those around it, weighted by their
    nearness in time as well (LOESS; Cleveland, 1979).

    Args:
        points: (frames, ..., n). weights: (frames, ...); where one is 0 the point stays as it is, and does not count.
        sigma: standard deviation of the weights in time, in frames.
    """
    result, reach = points.copy(), int(np.ceil(3 * sigma))
    for frame in range(len(points)):
        near = slice(max(0, frame - reach), frame + reach + 1)
        shift = (np.arange(len(points))[near] - frame) / sigma
        powers = shift[:, None] ** np.arange(_DEGREE + 1)
        weight = np.exp(-0.5 * shift**2)[:, None] * powers
        weight = weight.reshape(*weight.shape, *[1] * (weights.ndim - 1)) * weights[near, None]
        # Where too few points are in sight for a parabola, the ridge leaves a line or a mean.
        moments = np.einsum("ki...,kj->...ij", weight, powers) + np.diag([1e-12, 1e-6, 1e-6])
        sums = np.einsum("ki...,k...n->...in", weight, points[near])
        seen = weights[frame] > 0
        result[frame][seen] = np.linalg.solve(moments, sums)[..., 0, :][seen]
    return result


def filled(
    points: np.ndarray, confidence: np.ndarray, seen: np.ndarray, longest: float, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Points (frames, ..., n) and confidence (frames, ...), with gaps of at most `longest` frames, where they are not
    `seen`, filled along straight lines, with half the confidence of their ends, `least` at least."""
    points, confidence = points.copy(), confidence.copy()
    numbers, seen = np.arange(len(points)), seen.reshape(len(seen), -1)
    each, trust = points.reshape(*seen.shape, points.shape[-1]), confidence.reshape(seen.shape)  # views
    for place in np.flatnonzero(~seen.all(0) & seen.any(0)):
        for before, after in pairwise(np.flatnonzero(seen[:, place])):
            gap, ends = slice(before + 1, after), [before, after]
            if not 1 < after - before <= longest + 1:
                continue
            share = ((numbers[gap] - before) / (after - before))[:, None]
            each[gap, place] = (1 - share) * each[before, place] + share * each[after, place]
            trust[gap, place] = max(_GUESSED * trust[ends, place].min(), least)
    return points, confidence


def gaps(seen: np.ndarray, fps: float) -> list[tuple[float, float]]:
    """Seconds (from, to) of the frames, bool (n,), in which nobody is seen."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
    return [(first / fps, last / fps) for first, last in edges.reshape(-1, 2).tolist()]
