"""The shapes of drawings: limbs and trunks in groups that have one outline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import skia

from ...poses import PARTS
from .identity import REGIONS

PLAIN, _LINE = 200, 84  # light of a surface and of an outline
Clip = tuple[skia.Path, bool]
"""A path, and whether what it clips is kept inside (True) or outside of it."""


@dataclass
class Group:
    """Shapes that are outlined together. depth: pixels; of several groups the nearest is drawn last."""

    depth: float
    shapes: list[tuple[skia.Path, int, int, int, tuple[Clip, ...]]] = field(default_factory=list)

    def add(self, path: skia.Path, region: str, part: str, light: int = PLAIN, clips: tuple[Clip, ...] = ()) -> None:
        self.shapes.append((path, REGIONS.index(region), PARTS.index(part), light, clips))

    def add_halves(
        self, path: skia.Path, region: str, left: skia.Path, light: int = PLAIN, clips: tuple[Clip, ...] = ()
    ) -> None:
        """What belongs to the head: to its left half inside the path `left`, else to its right half."""
        self.add(path, region, "head_left", light, (*clips, (left, True)))
        self.add(path, region, "head_right", light, (*clips, (left, False)))

    def draw(self, canvas: skia.Canvas, outline: float) -> None:
        """Draw codes as in `mesh.codes`; outline: its width in pixels, or 0."""
        for line in (True, False) if outline else (False,):
            for path, region, part, light, clips in self.shapes:
                paint = skia.Paint(Color=skia.Color(32 * region + 16, 8 * part + 4, _LINE if line else light))
                if line:
                    paint.setStyle(skia.Paint.kStrokeAndFill_Style)
                    paint.setStrokeWidth(2 * outline)
                    paint.setStrokeJoin(skia.Paint.kRound_Join)
                with skia.AutoCanvasRestore(canvas, bool(clips)):
                    for clip, inside in clips:
                        canvas.clipPath(clip, skia.ClipOp.kIntersect if inside else skia.ClipOp.kDifference)
                    canvas.drawPath(path, paint)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1, or next to nothing if it was."""
    return vector / max(float(np.hypot(*vector)), 1e-3)


def aside(vector: np.ndarray) -> np.ndarray:
    """At right angles to a vector."""
    return np.array([-vector[1], vector[0]])


def polygon(corners: Iterable[np.ndarray]) -> skia.Path:
    path = skia.Path()
    path.addPoly([skia.Point(float(x), float(y)) for x, y in corners], True)
    return path


def disc(centre: np.ndarray, radius: float) -> skia.Path:
    return skia.Path.Circle(float(centre[0]), float(centre[1]), radius)


def limb(a: np.ndarray, b: np.ndarray, start: float, end: float) -> skia.Path:
    """From a to b, with round ends of these radii."""
    across = aside(unit(b - a))
    path = polygon((a + across * start, b + across * end, b - across * end, a - across * start))
    # The same way round as the polygon: where they lie over each other nothing cancels.
    path.addCircle(float(a[0]), float(a[1]), start, skia.PathDirection.kCCW)
    path.addCircle(float(b[0]), float(b[1]), end, skia.PathDirection.kCCW)
    return path


def trunk(a: np.ndarray, b: np.ndarray, wide_a: np.ndarray, wide_b: np.ndarray, radius: float) -> skia.Path:
    """From a to b, reaching as far to both sides as these vectors, with round corners."""
    middle = (a + b) / 2
    corners = [corner - middle for corner in (a + wide_a, b + wide_b, b - wide_b, a - wide_a)]
    inner = polygon(middle + unit(corner) * max(0.0, float(np.hypot(*corner)) - radius) for corner in corners)
    outer = skia.Path()
    paint = skia.Paint(Style=skia.Paint.kStrokeAndFill_Style, StrokeWidth=2 * radius, StrokeJoin=skia.Paint.kRound_Join)
    paint.getFillPath(inner, outer)
    return outer


def half_plane(edge: np.ndarray, toward: np.ndarray, size: float) -> skia.Path:
    """What lies from a point on in a direction: a square of twice this size."""
    toward = unit(toward)
    along, far = aside(toward) * size, toward * 2 * size
    return polygon((edge - along, edge + along, edge + along + far, edge - along + far))
