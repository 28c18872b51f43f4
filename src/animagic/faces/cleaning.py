"""Faces over time without their noise and short gaps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..errors import InputError
from .face import Faces

_DEGREE = 2
_GUESSED = 0.5  # of the confidence around a gap, for what fills it


def smoothed(faces: Faces, seconds: float = 0.03, longest_gap: float = 0.5) -> Faces:
    """The faces smoothed over time, with short gaps filled.

    At each instant a parabola is fitted to the meshes around it, weighted by their confidence and nearness in time
    (LOESS; Cleveland, 1979). It does not lag behind, and lips that shut for a moment still do.

    Args:
        seconds: standard deviation of the weights in time; 0 only fills gaps.
        longest_gap: of a face that is out of sight, in seconds. Longer ones stay empty, with confidence 0, as do those
            before the first sight and after the last.
    Raises: InputError for a negative length.
    """
    if seconds < 0 or longest_gap < 0:
        raise InputError(f"faces cannot be smoothed over {seconds} s with gaps of {longest_gap} s; give 0 or more.")
    mesh, confidence = faces.mesh.copy(), faces.confidence.copy()
    for face in range(confidence.shape[1]):
        seen = np.flatnonzero(faces.confidence[:, face] > 0)
        if seconds > 0:
            mesh[seen, face] = _fitted(faces.mesh[seen, face], faces.confidence[seen, face], seen, seconds * faces.fps)
        for before, after in pairwise(seen):
            gap = np.arange(before + 1, after)
            if not 0 < len(gap) <= longest_gap * faces.fps:
                continue
            share = ((gap - before) / (after - before))[:, None, None]
            mesh[gap, face] = (1 - share) * mesh[before, face] + share * mesh[after, face]
            confidence[gap, face] = _GUESSED * faces.confidence[[before, after], face].min()
    return replace(faces, mesh=mesh, confidence=confidence)


def _fitted(mesh: np.ndarray, weights: np.ndarray, times: np.ndarray, sigma: float) -> np.ndarray:
    """Local parabolas at each of the times, (n,), through meshes (n, 468, 3) with weights (n,); sigma in frames."""
    fitted = np.empty_like(mesh)
    for number, time in enumerate(times):
        near = np.flatnonzero(np.abs(times - time) <= np.ceil(3 * sigma))
        shift = (times[near] - time) / sigma
        weight = np.exp(-0.5 * shift**2) * weights[near]
        powers = shift[:, None] ** np.arange(_DEGREE + 1)
        # Where too few frames are near for a parabola, the ridge leaves a line or a mean.
        moments = powers.T @ (weight[:, None] * powers) + np.diag([1e-12, 1e-6, 1e-6])
        kernel = np.linalg.solve(moments, (weight[:, None] * powers).T)[0]
        fitted[number] = np.tensordot(kernel, mesh[near], 1)
    return fitted
