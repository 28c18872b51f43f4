"""Paths and paints."""

from __future__ import annotations

import numpy as np
import skia

from ..scenes import RGB


def paint(rgb: RGB, alpha: float = 1.0, stroke: float = 0.0, shader: skia.Shader | None = None) -> skia.Paint:
    out = skia.Paint(AntiAlias=True, Color=skia.Color(*rgb, round(255 * alpha)), Shader=shader)
    if stroke:
        out.setStyle(skia.Paint.kStroke_Style)
        out.setStrokeWidth(stroke)
        out.setStrokeJoin(skia.Paint.kRound_Join)
        out.setStrokeCap(skia.Paint.kRound_Cap)
    return out


def polygon(points: np.ndarray, closed: bool = True) -> skia.Path:
    """points: (N, 2)."""
    return skia.Path.Polygon(list(map(skia.Point, *points.T.tolist())), closed)


def smooth(points: np.ndarray) -> skia.Path:
    """A closed curve near a polygon's corners (N, 2), through the middles of its sides."""
    path = skia.Path()
    x, y = points.T.tolist()
    path.moveTo((x[-1] + x[0]) / 2, (y[-1] + y[0]) / 2)
    for a, b, c, d in zip(x, y, [*x[1:], x[0]], [*y[1:], y[0]], strict=True):
        path.quadTo(a, b, (a + c) / 2, (b + d) / 2)
    path.close()
    return path


def shaded(rgb: RGB, share: float) -> RGB:
    """Lighter (share above 0) or darker, and then a little bluer."""
    tone = np.array(rgb, float)
    goal = np.array([255.0, 246, 232]) if share > 0 else np.array([30.0, 14, 40])
    red, green, blue = (int(v) for v in (tone + abs(share) * (goal - tone)).round().clip(0, 255))
    return red, green, blue


def radial(centre: np.ndarray, radius: float, *colours: RGB) -> skia.Shader:
    points = [i / (len(colours) - 1) for i in range(len(colours))]
    middle = skia.Point(float(centre[0]), float(centre[1]))
    return skia.GradientShader.MakeRadial(middle, float(radius), [skia.Color(*c) for c in colours], points)


def linear(start: tuple[float, float], end: tuple[float, float], *colours: RGB) -> skia.Shader:
    return skia.GradientShader.MakeLinear([skia.Point(*start), skia.Point(*end)], [skia.Color(*c) for c in colours])
