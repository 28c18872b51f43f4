"""Triangle meshes: normals, tubes and balls. V vertices, T triangles, (T, 3), counterclockwise from outside."""

from __future__ import annotations

import numpy as np


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) of length 1: the mean of the adjoining triangles', by area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for i in range(3):
        np.add.at(normals, triangles[:, i], face)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)


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
