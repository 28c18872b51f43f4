"""Bodies as pixels: shaded triangles, the farthest first. One code a pixel says what is seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import skia

from .body import Body, Posed, skin
from .surface import Surface
from .view import Camera, View, project

_AT_ONCE = 32  # frames whose vertices are held


def codes(
    body: Body, pose: Posed, camera: Camera, view: View, height: int, width: int, larger: int
) -> Iterator[np.ndarray]:
    """Frame by frame, uint8 (height * larger, width * larger, 4), the same array each time.

    The channels are 32 * region + 16, 8 * part + 4 and the light, 200 where a colour is seen as it is; all 0 where
    nobody is. Numbers that differ by so much survive the interpolation over a triangle.
    """
    surface = body.surface
    pixels = np.zeros((height * larger, width * larger, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
    paint = skia.Paint(AntiAlias=False, Dither=False)
    colours = 255 << 24 | (surface.regions * 32 + 16) << 16 | (surface.parts * 8 + 4) << 8
    for start in range(0, len(pose.turns), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        points, normals = skin(body, pose.turns[some], pose.places[some])
        lights = _light(camera, view, normals) * surface.shade
        lights = np.rint(200 * lights).clip(1, 255).astype(np.int64)
        for screen, light in zip(project(camera, points), lights, strict=True):
            pixels[...] = 0
            vertices = skia.Vertices(
                skia.Vertices.kTriangles_VertexMode,
                list(map(skia.Point, *(larger * screen[:, :2].T).tolist())),
                None,
                (colours | light).tolist(),
                _visible(surface, screen, camera.scale).reshape(-1).tolist(),
            )
            canvas.drawVertices(vertices, paint, skia.BlendMode.kDst)
            yield pixels


def _light(camera: Camera, view: View, normals: np.ndarray) -> np.ndarray:
    """What falls on a surface with these normals, 1 for its own colour: (..., 3) to (...)."""
    side = np.radians(view.light)
    direction = np.array([-0.75 * np.sin(side), 0.45, 0.75 * np.cos(side)])
    direction = camera.turn.T @ (direction / np.linalg.norm(direction))
    return 0.62 + 0.46 * (normals @ direction.astype(np.float32)).clip(-0.35, 1)


def _visible(surface: Surface, screen: np.ndarray, scale: float) -> np.ndarray:
    """(N, 3): the triangles that turn to the camera, the farthest first. screen (V, 3), scale: see `project`."""
    a, b, c = (screen[surface.triangles[:, i]] for i in range(3))
    facing = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    seen = np.flatnonzero(facing | surface.two_sided)
    depth = (a[seen, 2] + b[seen, 2] + c[seen, 2]) / 3 - surface.bias[seen] * scale
    return surface.triangles[seen[np.argsort(-depth, kind="stable")]]
