"""Neck, shoulders and clothes of drawn portraits."""

from __future__ import annotations

import numpy as np
import skia

from .identity import Portrait
from .layout import Face, Turned
from .performance import Performance
from .shapes import linear, paint, polygon, shaded, smooth

_FAR = 4.5


class Garment:
    """What somebody wears, in every frame; it moves less than the head. centre: of the face, pixels."""

    def __init__(
        self, portrait: Portrait, face: Face, performance: Performance, turned: Turned, centre: tuple[float, float],
        height: int,
    ) -> None:  # fmt: skip
        self.portrait, self.face, self.unit, self.centre = portrait, face, turned.unit, centre
        self.rgb = portrait.colours["clothes"]
        self.outline = shaded(self.rgb, -0.6)
        # The body follows the head a little and turns half as far.
        self.move = performance.shift[:, :2] * [0.35, 0.2] - np.stack([0 * performance.breath, performance.breath], -1)
        self.turn = 0.16 * np.sin(turned.yaw)
        self.head = turned(np.array([(-0.9 * face.neck, 0.62, -0.1), (0.9 * face.neck, 0.62, -0.1)]))[..., :2]
        n, s = face.neck, face.shoulders
        arm = [(0.62 * s, 1.52), (0.88 * s, 1.62), (s, 1.95), (1.08 * s, 2.6), (1.1 * s, _FAR)]
        self.body = self._path([(n, 1.2), (1.25 * n, 1.38), *arm])
        start, end = (0.8 * portrait.light * s, 1.2), (-0.9 * portrait.light * s, 2.6)
        flat = portrait.outlined
        shader = None if flat else linear(start, end, shaded(self.rgb, 0.12), self.rgb, shaded(self.rgb, -0.22))
        self.fill = paint(self.rgb, shader=shader)

    def _path(self, half: list[tuple[float, float]]) -> skia.Path:
        right = np.array(half)
        return smooth(np.concatenate([right * [-1, 1], right[::-1]]))

    def draw_back(self, canvas: skia.Canvas, f: int, behind: bool) -> None:
        """What is behind the neck."""
        if self.portrait.garment == "hoodie" and not behind:
            with self._placed(canvas, f):
                n = self.face.neck
                hood = self._path([(0.1, 0.72), (n + 0.12, 0.8), (n + 0.34, 1.1), (n + 0.36, 1.5), (0.1, 1.6)])
                canvas.drawPath(hood, paint(shaded(self.rgb, -0.22)))

    def draw_neck(self, canvas: skia.Canvas, f: int, skin: tuple[tuple[int, int, int], ...]) -> None:
        middle = self._middle(f)
        n = self.face.neck * self.unit
        left, right = sorted(self.head[f], key=lambda point: point[0])
        low = np.array([middle[0], self.centre[1] + (1.75 + self.move[f, 1]) * self.unit])
        aside, up = np.array([1.35 * n, 0]), np.array([0, -0.32 * self.unit])
        corners = np.stack([left, low - aside + up, low, low + aside + up, right])
        shader = linear(
            (0, self.centre[1] + 0.75 * self.unit), (0, self.centre[1] + 1.5 * self.unit), skin[3], skin[2], skin[1]
        )
        canvas.drawPath(polygon(corners), paint(skin[2], shader=shader))

    def _middle(self, f: int) -> np.ndarray:
        return np.array(self.centre) + self.unit * (self.move[f] + [self.turn[f], 0])

    def _placed(self, canvas: skia.Canvas, f: int) -> skia.AutoCanvasRestore:
        """The canvas with the middle of the face at its origin and lengths as its unit, until it is closed."""
        restore = skia.AutoCanvasRestore(canvas)
        x, y = np.array(self.centre) + self.unit * self.move[f]
        canvas.translate(x, y)
        canvas.scale(self.unit, self.unit)
        return restore

    def draw(self, canvas: skia.Canvas, f: int, behind: bool, line: float) -> None:
        n, turn, kind = self.face.neck, self.turn[f], self.portrait.garment
        with self._placed(canvas, f):
            neckline = None
            if not behind and kind in ("t-shirt", "hoodie"):
                neckline = skia.Path.Oval(skia.Rect(turn - 1.15 * n, 0.9, turn + 1.15 * n, 1.72 + 0.04 * turn))
            elif not behind and kind in ("shirt", "jacket"):
                neckline = polygon(np.array([(turn - 1.05 * n, 1.1), (1.5 * turn, 2.05), (turn + 1.05 * n, 1.1)]))
            with skia.AutoCanvasRestore(canvas):
                if neckline is not None:
                    canvas.clipPath(neckline, skia.ClipOp.kDifference, True)
                if line:
                    canvas.drawPath(self.body, paint(self.outline, stroke=2 * line / self.unit))
                canvas.drawPath(self.body, self.fill)
                if self.portrait.striped:
                    with skia.AutoCanvasRestore(canvas):
                        canvas.clipPath(self.body, True)
                        for y in (1.75, 2.1, 2.45, 2.8, 3.15):
                            canvas.drawRect(skia.Rect(-3, y, 3, y + 0.14), paint(shaded(self.rgb, 0.6)))
            self._collar(canvas, turn, behind, neckline)

    def _collar(self, canvas: skia.Canvas, turn: float, behind: bool, neckline: skia.Path | None) -> None:
        n, kind, rgb = self.face.neck, self.portrait.garment, self.rgb
        edge = paint(shaded(rgb, -0.35), 0.9, 0.05)
        if kind == "turtleneck":
            x = 0.5 * turn
            edge = [(1.2 * n, 0.95), (1.5 * n, 1.5)]
            left, right = [(x - out, y) for out, y in edge], [(x + out, y) for out, y in edge[::-1]]
            roll = np.array([*left, (x, 1.62), *right, (x, 0.95 if behind else 1.12)])
            canvas.drawPath(smooth(roll), paint(shaded(rgb, 0.08)))
            canvas.drawPath(smooth(roll), paint(shaded(rgb, -0.3), 0.5, 0.025))
        elif neckline is not None and kind in ("t-shirt", "hoodie"):
            with skia.AutoCanvasRestore(canvas):
                canvas.clipRect(skia.Rect(-3, 1.32, 3, 3))
                canvas.drawPath(neckline, edge)
                if kind == "hoodie":
                    for side in (-1, 1):
                        x = turn + side * 0.3
                        canvas.drawLine(x, 1.68, x + 0.03 * side, 2.15, paint(shaded(rgb, 0.55), stroke=0.045))
        elif neckline is not None:
            canvas.drawLine(1.5 * turn, 2.05, 1.6 * turn, 4, paint(shaded(rgb, -0.4), stroke=0.03))
            for side in (-1, 1):
                reach = 0.62 if kind == "jacket" else 0.34
                low = 2.05 if kind == "shirt" else 2.7
                outer = [(turn + side * (1.05 * n + 0.16), 1.3), (turn + side * reach, 1.72)]
                lapel = np.array([(turn + side * 1.05 * n, 1.08), *outer, (1.5 * turn + 0.02 * side, low)])
                canvas.drawPath(polygon(lapel), paint(shaded(rgb, 0.16)))
                canvas.drawPath(polygon(lapel), paint(shaded(rgb, -0.4), 0.8, 0.02))
