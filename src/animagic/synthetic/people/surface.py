"""Meshes whose pieces are told apart by region and part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..meshes import vertex_normals


@dataclass(frozen=True)
class Patch:
    """A piece of a person's mesh. V vertices, T triangles, J joints.

    points (V, 3) at rest, metres; weights (V, J): how far each joint moves them; triangles (T, 3), counterclockwise
    from outside; regions, parts (T,); bias: metres by which a triangle is drawn as if it were nearer, one for all or
    (T,); two_sided: whether it is seen from inside; shade: what the light on a vertex is multiplied by, one for all or
    (V,).
    """

    points: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray
    regions: np.ndarray
    parts: np.ndarray
    bias: np.ndarray | float = 0.0
    two_sided: bool = False
    shade: np.ndarray | float = 1.0


@dataclass(frozen=True)
class Surface:
    """A mesh in which every vertex has one region and one part.

    points, normals: float32 (V, 3) at rest; weights: float32 (V, J); regions, parts: int64 (V,); shade: float32 (V,);
    triangles: (T, 3); bias: float32 (T,); two_sided: bool (T,); as in Patch.
    """

    points: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    regions: np.ndarray
    parts: np.ndarray
    shade: np.ndarray
    triangles: np.ndarray
    bias: np.ndarray
    two_sided: np.ndarray


def joined(patches: Sequence[Patch]) -> Surface:
    """All patches in one mesh; a vertex that triangles of several regions or parts share is split."""
    vertices: list[list[np.ndarray]] = []
    faces: list[list[np.ndarray]] = []
    count = 0
    for patch in patches:
        points, size = patch.points, len(patch.triangles)
        label = patch.regions.astype(np.int64) * 256 + patch.parts
        corners = patch.triangles.reshape(-1) + len(points) * np.repeat(label, 3)
        unique, inverse = np.unique(corners, return_inverse=True)
        vertex, label = unique % len(points), unique // len(points)
        normals = vertex_normals(points, patch.triangles)
        shade = np.broadcast_to(patch.shade, len(points))
        vertices.append(
            [points[vertex], normals[vertex], patch.weights[vertex], label // 256, label % 256, shade[vertex]]
        )
        faces.append(
            [inverse.reshape(-1, 3) + count, np.broadcast_to(patch.bias, size), np.full(size, patch.two_sided)]
        )
        count += len(vertex)
    points, normals, weights, regions, parts, shade = (np.concatenate(c) for c in zip(*vertices, strict=True))
    triangles, bias, two_sided = (np.concatenate(column) for column in zip(*faces, strict=True))
    points, normals, weights, shade, bias = (x.astype(np.float32) for x in (points, normals, weights, shade, bias))
    return Surface(points, normals, weights, regions, parts, shade, triangles, bias, two_sided)


def moved_by(joint: int, count: int, joints: int) -> np.ndarray:
    """Weights (count, joints) of vertices that one joint alone moves."""
    weights = np.zeros((count, joints))
    weights[:, joint] = 1
    return weights
