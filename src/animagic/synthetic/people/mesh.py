"""Bodies as pixels: shaded triangles, the farthest first. One code a pixel says what is seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import skia

from .body import Body, Posed, skin
from .view import Camera, View, project


def codes(
    body: Body, pose: Posed, camera: Camera, view: View, height: int, width: int, larger: int
) -> Iterator[np.ndarray]:
    """Frame by frame, uint8 (height * larger, width * larger, 4), the same array each time.

    The channels are 32 * region + 16, 8 * part + 4 and the light, 200 where a colour is seen as it is; all 0 where
    nobody is. Colours that differ by so much survive the interpolation over a triangle.
    """
    surface = body.surface
    points, normals = skin(body, pose.turns, pose.places)
    screen = project(camera, points)
    direction = np.radians(view.light)
    light = np.array([np.sin(-direction) * 0.75, 0.45, np.cos(direction) * 0.75])
    light = (camera.turn.T @ (light / np.linalg.norm(light))).astype(np.float32)
    shade = (0.62 + 0.46 * (normals @ light).clip(-0.35, 1)) * surface.shade
    blue = np.rint(shade * 200).clip(1, 255).astype(np.int64)
    base = (
        (255 << 24)
        | ((surface.regions.astype(np.int64) * 32 + 16) << 16)
        | ((surface.parts.astype(np.int64) * 8 + 4) << 8)
    )
    pixels = np.zeros((height * larger, width * larger, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
    paint = skia.Paint(AntiAlias=False, Dither=False)
    bias = surface.bias * camera.scale
    for frame in range(len(screen)):
        place = screen[frame]
        a, b, c = (place[surface.triangles[:, i]] for i in range(3))
        facing = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
        visible = np.flatnonzero(facing | surface.two_sided)
        depth = (a[visible, 2] + b[visible, 2] + c[visible, 2]) / 3 - bias[visible]
        order = surface.triangles[visible[np.argsort(-depth, kind="stable")]]
        pixels[...] = 0
        vertices = skia.Vertices(
            skia.Vertices.kTriangles_VertexMode,
            list(map(skia.Point, *(place[:, :2].T * larger).tolist())),
            None,
            (base | blue[frame]).tolist(),
            order.reshape(-1).tolist(),
        )
        canvas.drawVertices(vertices, paint, skia.BlendMode.kDst)
        yield pixels
