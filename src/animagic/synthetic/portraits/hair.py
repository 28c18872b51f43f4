"""Hair of drawn portraits: a ball around the skull, what hangs behind, and what lies over the forehead."""

from __future__ import annotations

import numpy as np
import skia

from .identity import Portrait, seed_of
from .layout import ROWS, Face, Turned, back_of, front_of, silhouette
from .shapes import paint, polygon, radial, shaded, smooth

EARS_SHOWN = ("bald", "buzzed", "short", "parted", "fringe", "curly", "bun", "ponytail")
_THICK = {"buzzed": 0.025, "short": 0.085, "parted": 0.1, "fringe": 0.09, "curly": 0.14, "bob": 0.12, "long": 0.1,
          "bun": 0.06, "ponytail": 0.06, "afro": 0.4}  # fmt: skip
_LENGTH = {"bob": 0.75, "long": 1.75}  # how far down it hangs
# Over the forehead: y of its lower edge at these angles about the neck.
_ANGLES = (-90, -66, -34, 0, 34, 66, 90)
_EDGES = {
    "buzzed": (-0.2, -0.5, -0.78, -0.85, -0.78, -0.5, -0.2), "short": (-0.15, -0.42, -0.7, -0.8, -0.62, -0.42, -0.15),
    "parted": (-0.1, -0.45, -0.74, -0.93, -0.54, -0.3, -0.1), "fringe": (0.0, -0.3, -0.46, -0.42, -0.46, -0.3, 0.0),
    "curly": (-0.1, -0.4, -0.62, -0.7, -0.62, -0.4, -0.1), "bob": (0.7, 0.1, -0.46, -0.44, -0.46, 0.1, 0.7),
    "long": (1.0, 0.35, -0.66, -1.0, -0.66, 0.35, 1.0), "bun": (-0.1, -0.5, -0.78, -0.84, -0.78, -0.5, -0.1),
    "ponytail": (-0.1, -0.4, -0.72, -0.88, -0.6, -0.36, -0.1), "afro": (0.0, -0.4, -0.66, -0.74, -0.66, -0.4, 0.0),
}  # fmt: skip


class Hair:
    """A portrait's hair in every frame."""

    def __init__(self, portrait: Portrait, face: Face, turned: Turned) -> None:
        self.style, self.face, self.turned = portrait.hair_style, face, turned
        self.rgb = portrait.colours["hair"]
        self.light = portrait.light
        self.flat = portrait.outlined
        self.outline = shaded(self.rgb, -0.6)
        self.thick = _THICK.get(self.style, 0.0)
        self.top = turned(np.array([[0.25 * self.light, -1.25, 0.4]]))[:, 0, :2]
        rng = np.random.default_rng(seed_of(portrait))
        self.side = float(rng.choice([-1.0, 1.0]))
        if self.style == "bald":
            return
        self.around = self.ball(self.thick, 0.5)
        if self.style in _LENGTH:
            self.behind = self._hanging(_LENGTH[self.style])
        self.edge = self._front()
        self.curls = self._curls(rng) if self.style in ("curly", "afro") else None
        knot = {"bun": (0.0, -1.58, -0.45), "ponytail": (0.0, -0.75, -1.2)}.get(self.style)
        self.knot = turned(np.array([knot]))[:, 0, :2] if knot else None
        if self.style == "ponytail":
            tail = np.array(
                [(0, -0.85, -1.1), (0.22, -0.7, -1.3), (0.3, 0.1, -1.42), (0.12, 0.95, -1.3), (-0.12, 0.95, -1.3),
                 (-0.3, 0.1, -1.42), (-0.22, -0.7, -1.3)]
            )  # fmt: skip
            sideways = np.array([(0, -0.8, -1.05), (0, -0.7, -1.5), (0, 0.1, -1.7), (0, 0.95, -1.42), (0, 0.95, -1.2),
                                 (0, 0.1, -1.15), (0, -0.5, -1.1)])  # fmt: skip
            self.tail = turned(tail)[..., :2], turned(sideways)[..., :2]

    def ball(self, thick: float, nape: float) -> list[np.ndarray | None]:
        """The outline of the skull down to the nape, and so much around it."""
        top = ROWS[0] - thick
        rows = top + (nape - top) * np.linspace(0, 1, 17) ** 1.5
        inner = np.where(rows > 0, rows, rows * ROWS[0] / top)
        ears = -0.3 if self.style in EARS_SHOWN else 0.6
        wide = np.interp(inner, ROWS, self.face.wide)
        wide = wide + thick * np.interp(inner, [-1.4, -1.2, ears, ears + 0.3], [0.5, 1, 0.7, 0])
        front = front_of(inner) + thick * np.interp(inner, [-1.4, -1.2, -0.8, -0.6], [0.5, 1, 0.6, 0])
        back = back_of(inner) + thick * np.interp(inner, [-1.4, -1.2, 0.8], [0.5, 1, 0.2])
        full = np.radians(np.arange(-180, 180, 15))
        return silhouette(self.turned, rows, wide, front, back, full, True)

    def _hanging(self, end: float) -> list[np.ndarray | None]:
        rows = np.linspace(-1.1, end, 12)
        wide = np.interp(rows, [-1.1, -0.6, 0.2, end - 0.15, end], [0.7, 0.88, 0.92, 0.9, 0.72])
        back = np.interp(rows, [-1.1, -0.6, 0.2, end], [0.9, 1.08, 1.05, 0.8])
        sides = np.radians(np.arange(70, 291, 15))
        return silhouette(self.turned, rows, wide, 0.7 * wide, back, sides, True)

    def _front(self) -> list[np.ndarray | None]:
        """What lies over the forehead."""
        angles = np.radians(np.linspace(-90, 90, 31))
        edge = np.array(_EDGES[self.style])[:: int(self.side)]
        low = np.interp(angles, np.radians(_ANGLES), edge)
        rows = -1.12 + np.linspace(0, 1, 6)[:, None] * (low + 1.12)
        level = np.minimum(rows, 0.0)  # hair hangs straight down
        wide = np.interp(level, ROWS, self.face.wide) + 0.6 * min(self.thick, 0.12) + 0.01
        deep = front_of(level) + 0.45 * min(self.thick, 0.12) + 0.01
        sin, cos = np.sin(angles), np.cos(angles)
        points = np.stack([wide * sin, rows, deep * cos.clip(0) ** 0.84], -1)
        on = self.turned(points.reshape(-1, 3))[..., :2].reshape(len(self.turned.yaw), *rows.shape, 2)
        seen = self.turned.towards(np.arctan2(sin / wide[3], cos / deep[3])) > -0.05
        out: list[np.ndarray | None] = []
        self.lower: list[np.ndarray] = []
        for f in range(len(on)):
            grid = on[f][:, seen[f]]
            self.lower.append(grid[-1])
            if grid.shape[1] < 2:
                out.append(None)
                continue
            out.append(np.concatenate([grid[-1, ::-1], grid[-2:0:-1, 0], grid[0], grid[1:-1, -1]]))
        return out

    def _curls(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Places (F, N, 2) and radii (N,) of curls all over the hair."""
        n = 46
        angle, y = rng.uniform(0, 2 * np.pi, n), rng.uniform(-1.4, 0.25, n)
        angle = np.where((y > -0.95) & (np.cos(angle) > 0.25), np.pi - angle, angle)
        out = self.thick * 0.75
        wide, back = np.interp(y, ROWS, self.face.wide) + out, back_of(y) + out
        deep = np.where(np.cos(angle) > 0, front_of(y) + out, back)
        y = np.where(y < -1.1, y - out * 0.8, y)
        points = np.stack([wide * np.sin(angle), y, deep * np.cos(angle)], -1)
        return self.turned(points)[..., :2], rng.uniform(0.1, 0.17, n) * (1 + self.thick)

    def _paint(self, f: int, share: float = 0.0) -> skia.Paint:
        rgb = shaded(self.rgb, share) if share else self.rgb
        if self.flat:
            return paint(rgb)
        return paint(rgb, shader=radial(self.top[f], 2.1 * self.turned.unit, shaded(rgb, 0.22), rgb, shaded(rgb, -0.3)))

    def _fill(self, canvas: skia.Canvas, path: skia.Path, fill: skia.Paint, line: float) -> None:
        if line:
            canvas.drawPath(path, paint(self.outline, stroke=2 * line))
        canvas.drawPath(path, fill)

    def draw_behind(self, canvas: skia.Canvas, f: int, line: float) -> None:
        """What hangs down."""
        if self.style in _LENGTH and (points := self.behind[f]) is not None:
            self._fill(canvas, smooth(points), self._paint(f, -0.14), line)
        if self.style == "ponytail":
            sideways = abs(np.sin(self.turned.yaw[f])) > 0.7
            self._fill(canvas, smooth(self.tail[int(sideways)][f]), self._paint(f, -0.1), line)

    def draw_ball(self, canvas: skia.Canvas, f: int, line: float) -> None:
        if self.style == "bald":
            return
        if self.knot is not None and self.style == "bun":
            self._fill(canvas, skia.Path.Circle(*self.knot[f].tolist(), 0.36 * self.turned.unit), self._paint(f), line)
        curls = []
        if self.curls is not None:
            places, radii = self.curls
            curls = [
                skia.Path.Circle(*place, radius * self.turned.unit)
                for place, radius in zip(places[f].tolist(), radii.tolist(), strict=True)
            ]
        points = self.around[f]
        fill = self._paint(f)
        if line:
            edge = paint(self.outline, stroke=2 * line)
            for path in curls:
                canvas.drawPath(path, edge)
        if points is not None:
            self._fill(canvas, smooth(points), fill, line)
        for path in curls:
            canvas.drawPath(path, fill)

    def draw_front(self, canvas: skia.Canvas, f: int, line: float) -> None:
        """What lies over the forehead."""
        if self.style == "bald" or (points := self.edge[f]) is None:
            return
        path = polygon(points)
        if line:
            canvas.drawPath(polygon(self.lower[f], False), paint(self.outline, stroke=2 * line))
        canvas.drawPath(path, self._paint(f))

    def draw_shadow(self, canvas: skia.Canvas, f: int) -> None:
        """The shadow of that on the face, to be cut off by its outline."""
        if self.style in ("bald", "buzzed") or self.edge[f] is None:
            return
        canvas.drawPath(polygon(self.lower[f], False), paint((40, 16, 20), 0.16, 0.09 * self.turned.unit))
