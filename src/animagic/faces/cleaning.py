"""Faces over time without their noise and short gaps."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError
from ..tracking import filled, fitted
from .face import POINTS, Faces


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
    shape, weights = faces.mesh.shape, faces.confidence
    mesh = faces.mesh.reshape(*weights.shape, 3 * POINTS)
    if seconds > 0:
        mesh = fitted(mesh, weights, seconds * faces.fps)
    mesh, confidence = filled(mesh, weights, weights > 0, longest_gap * faces.fps)
    return replace(faces, mesh=mesh.reshape(shape), confidence=confidence)
