"""Meshes whose pieces are told apart by region and part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) of length 1: the mean of the adjoining triangles', by area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for i in range(3):
        np.add.at(normals, triangles[:, i], face)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)


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


def tube(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid that closes around, row by row from the top, counterclockwise from outside."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).reshape(-1, 3)


def around(columns: int) -> np.ndarray:
    """The angles (columns,) of a tube's columns: 0 is the front, to the left from there."""
    return np.arange(columns) * 2 * np.pi / columns


def ball(rows: int = 7, columns: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of radius 1: points (rows * columns, 3) and triangles."""
    polar, angle = np.meshgrid(np.linspace(0.001, np.pi - 0.001, rows), around(columns), indexing="ij")
    points = np.stack([np.sin(polar) * np.sin(angle), np.cos(polar), np.sin(polar) * np.cos(angle)], -1)
    return points.reshape(-1, 3), tube(rows, columns)
