"""Drawn portraits: soft flat shapes that turn like a head."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import skia

from . import hair
from .features import Mouth, brow_of, eye_of, mouth_of
from .garments import Garment
from .glasses import Glasses
from .identity import Portrait
from .layout import ROWS, Turned, back_of, face_of, front_of, silhouette
from .performance import Performance
from .shapes import paint, polygon, radial, shaded, smooth

_BEHIND = -0.25  # what looks to the camera less than this is seen from behind
_SEEN = 0.04


class Drawn:
    """A drawn portrait in every frame of a performance.

    unit: pixels of half a face's height; x, y: where the middle of the face is, pixels. opening: float32 (F,), as
    animagic.faces.mouth_opening.
    """

    def __init__(
        self, portrait: Portrait, performance: Performance, unit: float, x: float, y: float, height: int, width: int
    ) -> None:
        self.portrait, self.face, self.unit = portrait, face_of(portrait), unit
        self.colours = portrait.colours
        self.turned = turned = Turned(performance, unit, (x, y))
        self.line = 0.035 * unit if portrait.outlined else 0.0
        mouth = mouth_of(self.face, performance)
        self.opening = np.float32(mouth.gap / self.face.eye_span)
        self.behind = np.cos(turned.yaw) < _BEHIND
        low = np.interp(ROWS, [0.35, 1.0], [0, 1])
        rows = np.linspace(-1, 1, 21)
        wide = np.interp(rows, ROWS, self.face.wide)
        drop = mouth.chin[:, None] * np.interp(rows, ROWS, low)
        front = np.radians(np.linspace(-88, 88, 23))
        self.patch = silhouette(turned, rows, wide, front_of(rows), back_of(rows), front, False, drop)
        self.hair = hair.Hair(portrait, self.face, turned)
        self.garment = Garment(portrait, self.face, performance, turned, (x, y), height)
        full = np.radians(np.arange(-180, 180, 15))
        rows = np.concatenate([ROWS[:6], np.linspace(-0.25, 1, 14)])
        drop = mouth.chin[:, None] * np.interp(rows, ROWS, low)
        wide = np.interp(rows, ROWS, self.face.wide)
        self.skull = silhouette(turned, rows, wide, front_of(rows), back_of(rows, jaw=True), full, True, drop)
        self._features(mouth, performance)
        self.mask = np.zeros((height, width, 4), np.uint8)
        self.mask_canvas = skia.Surface(self.mask, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()

    def _on(self, curves: np.ndarray, out: float = 0.0) -> np.ndarray:
        """Curves on the face's surface, (N, 2) or (F, N, 2), in pixels: (F, N, 2). out: how far in front of it."""
        z = self.face.depth(curves[..., 0], curves[..., 1]) + out
        return self.turned(np.concatenate([curves, z[..., None]], -1))[..., :2]

    def _angle(self, x: float, y: float) -> float:
        """Where the surface at (x, y) looks to, about the neck."""
        wide = float(np.interp(y, ROWS, self.face.wide))
        side = np.arcsin(np.clip(x / wide, -1, 1))
        return float(np.arctan2(np.sin(side) / wide, np.cos(side) / float(front_of(np.array(y)))))

    def _features(self, mouth: Mouth, performance: Performance) -> None:
        face, turned = self.face, self.turned
        self.lips, self.inner = self._on(mouth.outer, 0.03), self._on(mouth.inner, 0.02)
        # What is beyond the edge of the face in a view is drawn on it.
        edge = np.interp(mouth.around[..., 1], ROWS, face.wide) * np.cos(turned.yaw).clip(0)[:, None]
        x, way = mouth.around[..., 0], np.sign(turned.yaw)[:, None]
        around = np.stack([np.where(way > 0, np.minimum(x, edge), np.maximum(x, -edge)), mouth.around[..., 1]], -1)
        self.around = self._on(around)
        self.gap = mouth.gap
        down = np.broadcast_to(mouth.gap[:, None, None] * [0, 0.73], (len(mouth.gap), 1, 2))
        self.tongue = self._on(np.array([[0.0, face.mouth_y]]) + down)[:, 0]
        eye, self.open = eye_of(face, performance)
        brow = brow_of(face, performance)
        gaze = performance.gaze.astype(float)[:, None] * [0.42 * face.eye_wide, 0.4 * face.eye_high]
        self.eyes, self.irises, self.brows, self.eye_seen = [], [], [], []
        for side in (-1, 1):
            middle, flip = np.array([side * face.eye_x, face.eye_y]), np.array([side, 1.0])
            self.eyes.append(self._on(eye * flip + middle))
            self.irises.append(self._on(middle + gaze)[:, 0])
            self.brows.append(self._on(np.broadcast_to(brow * flip, (len(self.gap), *brow.shape)), 0.02))
            self.eye_seen.append(turned.towards(self._angle(side * face.eye_x, face.eye_y)))
        self.mouth_seen = turned.towards(0.0)
        base, out, wide = face.nose_y, face.nose_out, face.nose_wide
        nose = np.array(
            [(0, face.eye_y + 0.02, 0.02), (-0.3 * wide, 0.5 * base, 0.35 * out), (-0.55 * wide, base - 0.07, out),
             (0, base - 0.05, 1.12 * out), (0.55 * wide, base - 0.07, out), (0.3 * wide, 0.5 * base, 0.35 * out),
             (-wide, base, 0.2 * out), (-0.45 * wide, base + 0.055, 0.45 * out), (0, base + 0.06, 0.55 * out),
             (0.45 * wide, base + 0.055, 0.45 * out), (wide, base, 0.2 * out), (0, face.eye_y, -0.2),
             (0, base + 0.06, -0.2)]
        )  # fmt: skip
        nose[:, 2] += float(front_of(np.array(base)))
        self.nose = turned(nose)[..., :2]
        around = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        self.ears = []
        for way in (-1, 1):
            x = way * (float(np.interp(0.1, ROWS, face.wide)) + 0.02 + 0.075 * np.cos(around))
            ear = np.stack([x, 0.1 + 0.22 * np.sin(around), -0.1 + 0.13 * np.cos(around)], -1)
            self.ears.append(turned(ear)[..., :2])
        cheeks = np.array([(-0.42, 0.3), (0.42, 0.3)])
        self.cheeks = self._on(cheeks)
        self.glow = self._on(np.array([[0.0, 0.0]]))[:, 0]
        jaw = np.linspace(-1, 1, 15)
        beard = np.stack([0.8 * jaw, 1.1 - 0.95 * np.abs(jaw) ** 2.2], -1)
        inside = np.stack([0.6 * jaw[::-1], 0.42 + 0.08 * jaw[::-1] ** 2 - 0.15 * np.abs(jaw[::-1]) ** 4], -1)
        drop = mouth.chin[:, None, None] * np.interp(beard[:, 1:], [0.5, 1.0], [0, 1]) * [0, 1]
        upper = np.broadcast_to(inside, (len(drop), *inside.shape))
        self.beard = self._on(np.concatenate([beard + drop, upper], 1))
        top = face.mouth_y - 0.035 - 0.27 * mouth.gap[:, None]
        t = np.linspace(-1, 1, 11)
        full = np.sqrt((1 - t**2).clip(0))
        x = 1.05 * face.mouth_wide * t
        high = np.stack([np.broadcast_to(x, (len(top), 11)), top - 0.1 * full + 0.07 * t**2 - 0.012], -1)
        low = np.stack([np.broadcast_to(x, (len(top), 11)), top + 0.09 * t**2 - 0.025 * full], -1)[:, ::-1]
        self.moustache = self._on(np.concatenate([high, low], 1), 0.03)
        self.glasses = self._glasses() if self.portrait.glasses != "none" else None

    def _glasses(self) -> Glasses:
        face = self.face
        front = float(face.depth(np.array(face.eye_x), np.array(face.eye_y))) + 0.1
        side = float(np.interp(face.eye_y, ROWS, face.wide))
        return Glasses(
            self.portrait, (face.eye_x, face.eye_y), face.eye_wide, front, (side + 0.02, -0.05),
            lambda points: self.turned(points)[..., :2], self.turned.yaw, self.unit,
        )  # fmt: skip

    @cached_property
    def skin(self) -> tuple[tuple[int, int, int], ...]:
        skin = self.colours["skin"]
        return shaded(skin, 0.16), skin, shaded(skin, -0.08), shaded(skin, -0.26)

    def _skin_paint(self, f: int) -> skia.Paint:
        if self.line:
            return paint(self.colours["skin"])
        centre = self.glow[f] + self.unit * np.array([0.42 * self.portrait.light, -0.3])
        return paint(self.colours["skin"], shader=radial(centre, 1.55 * self.unit, *self.skin))

    def paint(self, canvas: skia.Canvas, f: int) -> None:
        """Draw a frame."""
        behind, skin = bool(self.behind[f]), self.colours["skin"]
        if not behind:
            self.hair.draw_behind(canvas, f, self.line)
        self.garment.draw_back(canvas, f, behind)
        self.garment.draw_neck(canvas, f, self.skin)
        self.garment.draw(canvas, f, behind, self.line)
        skull = self.skull[f]
        if skull is not None:
            self._outlined(canvas, smooth(skull), self._skin_paint(f), shaded(skin, -0.6))
        self.hair.draw_ball(canvas, f, self.line)
        if not behind and self.portrait.hair_style in hair.EARS_SHOWN:
            self._ears(canvas, f)
        patch = self.patch[f]
        if patch is not None:
            self._draw_face(canvas, f, smooth(patch))
        if behind:
            if self.portrait.hair_style in hair.EARS_SHOWN:
                self._ears(canvas, f)
            self.hair.draw_behind(canvas, f, self.line)
        elif self.portrait.hair_style in hair.EARS_SHOWN:
            self._ears(canvas, f, near=True)

    def _outlined(self, canvas: skia.Canvas, path: skia.Path, fill: skia.Paint, rgb: tuple[int, int, int]) -> None:
        if self.line:
            canvas.drawPath(path, paint(rgb, stroke=2 * self.line))
        canvas.drawPath(path, fill)

    def _ears(self, canvas: skia.Canvas, f: int, near: bool = False) -> None:
        skin = self.colours["skin"]
        for side, ear in zip((-1, 1), self.ears, strict=True):
            turned = np.sin(self.turned.yaw[f]) * -side
            if turned < (0.25 if near else -0.3):
                continue
            path = smooth(ear[f])
            self._outlined(canvas, path, paint(shaded(skin, -0.06)), shaded(skin, -0.6))
            if near:
                canvas.drawPath(path, paint(shaded(skin, -0.35), 0.6, 0.025 * self.unit))

    def _draw_face(self, canvas: skia.Canvas, f: int, path: skia.Path) -> None:
        unit, skin = self.unit, self.colours["skin"]
        dark = shaded(skin, -0.6)
        nose = polygon(self.nose[f, [0, 1, 6, 7, 8, 9, 10, 5]])
        fill, sine = self._skin_paint(f), np.sin(self.turned.yaw[f])
        tip = polygon(self.nose[f, [11, 0, 1 if sine < 0 else 5, 2 if sine < 0 else 4, 3, 8, 12]])
        if self.line and abs(sine) > 0.3:
            canvas.drawPath(tip, paint(dark, stroke=2 * self.line))
        self._outlined(canvas, path, fill, dark)
        if abs(sine) > 0.3:
            canvas.drawPath(tip, fill)
        with skia.AutoCanvasRestore(canvas):
            canvas.clipPath(path, True)
            if not self.line:
                rose = self.colours["lips"]
                for cheek in self.cheeks[f]:
                    glow = skia.GradientShader.MakeRadial(
                        skia.Point(*cheek.tolist()), 0.34 * unit, [skia.Color(*rose, 50), skia.Color(*rose, 0)]
                    )
                    canvas.drawCircle(*cheek.tolist(), 0.34 * unit, paint(skin, shader=glow))
            if self.portrait.beard in ("stubble", "full"):
                share = 0.96 if self.portrait.beard == "full" else 0.26
                canvas.drawPath(smooth(self.beard[f]), paint(shaded(self.colours["hair"], -0.1), share))
            if self.mouth_seen[f] > _SEEN:
                self._draw_mouth(canvas, f)
                if self.portrait.beard in ("moustache", "full"):
                    canvas.drawPath(smooth(self.moustache[f]), paint(shaded(self.colours["hair"], -0.16)))
            for side in (0, 1):
                if self.eye_seen[side][f] > 0.15:
                    self._draw_eye(canvas, f, side)
            self._draw_nose(canvas, f, nose)
            self.hair.draw_shadow(canvas, f)
        self.hair.draw_front(canvas, f, self.line)
        if self.glasses is not None:
            self.glasses.draw(canvas, f)

    def _draw_nose(self, canvas: skia.Canvas, f: int, nose: skia.Path) -> None:
        skin, points, yaw = self.colours["skin"], self.nose[f], self.turned.yaw[f]
        if np.cos(yaw) < 0.1:
            return
        shadow_right = (self.portrait.light if abs(yaw) < 0.2 else -yaw) < 0
        wing = [0, 3, 8, 9, 10, 5] if shadow_right else [0, 3, 8, 7, 6, 1]
        canvas.drawPath(smooth(points[wing]), paint(shaded(skin, -0.32), 0.42))
        base = points[[6, 7, 8, 9, 10]]
        canvas.drawPath(polygon(base, False), paint(shaded(skin, -0.5), 0.75, 0.028 * self.unit))
        light = points[3] + self.unit * np.array([0.02 * self.portrait.light, -0.02])
        canvas.drawCircle(*light.tolist(), 0.045 * self.unit, paint(shaded(skin, 0.5), 0.5))

    def _draw_eye(self, canvas: skia.Canvas, f: int, side: int) -> None:
        unit, eye = self.unit, self.eyes[side][f]
        skin, dark = self.colours["skin"], shaded(self.colours["hair"], -0.55)
        lid = (44, 28, 30)
        if self.open[f] > 0.12:
            path = polygon(eye)
            canvas.drawPath(path, paint((250, 248, 246)))
            with skia.AutoCanvasRestore(canvas):
                canvas.clipPath(path, True)
                x, y = self.irises[side][f].tolist()
                size = self.face.eye_high * unit * (1.02 if self.line else 0.95)
                canvas.drawCircle(x, y, size, paint(self.colours["eyes"]))
                canvas.drawCircle(x, y, 0.5 * size, paint((16, 12, 16)))
                canvas.drawCircle(x - 0.3 * size, y - 0.36 * size, 0.24 * size, paint((255, 255, 255)))
        upper = polygon(eye[:11], False)
        canvas.drawPath(upper, paint(lid, stroke=(0.038 + 0.016 * self.portrait.phenotype[0]) * unit))
        canvas.drawPath(polygon(eye[[0, *range(19, 9, -1)]], False), paint(shaded(skin, -0.5), 0.5, 0.014 * unit))
        brow = dark if self.portrait.hair in ("black", "brown") else shaded(self.colours["hair"], -0.38)
        canvas.drawPath(smooth(self.brows[side][f]), paint(brow))

    def _draw_mouth(self, canvas: skia.Canvas, f: int) -> None:
        unit, lips = self.unit, self.colours["lips"]
        canvas.drawPath(smooth(self.lips[f]), paint(lips))
        inner = self.inner[f]
        path = polygon(inner)
        if self.gap[f] > 0.02:
            canvas.drawPath(path, paint((66, 16, 24)))
            with skia.AutoCanvasRestore(canvas):
                canvas.clipPath(path, True)
                x, y = self.tongue[f].tolist()
                wide, high = 0.62 * self.face.mouth_wide * unit, 0.36 * self.gap[f] * unit
                canvas.drawOval(skia.Rect(x - wide, y - high, x + wide, y + high), paint((196, 84, 92)))
                # Teeth hang from the upper lip: the same line, lower.
                high = np.array([0, min(0.075, 0.4 * self.gap[f]) * unit])
                teeth = np.concatenate([inner[:13], inner[12::-1] + high])
                canvas.drawPath(polygon(teeth), paint((246, 242, 234)))
        width = 0.02 if self.gap[f] > 0.02 else 0.03
        canvas.drawPath(polygon(inner[:13], False), paint(shaded(lips, -0.62), 0.9, width * unit))
        light = self.lips[f, 13:][3:8].mean(0) * 0.62 + inner[14:][3:7].mean(0) * 0.38
        canvas.drawOval(
            skia.Rect(light[0] - 0.07 * unit, light[1] - 0.012 * unit, light[0] + 0.07 * unit, light[1] + 0.012 * unit),
            paint(shaded(lips, 0.5), 0.5),
        )

    def masks(self, f: int, face: np.ndarray, mouth: np.ndarray) -> None:
        """Fill uint8 (height, width) each."""
        patch = self.patch[f]
        if patch is None or np.cos(self.turned.yaw[f]) < 0:
            return
        self.mask[...] = 0
        self.mask_canvas.drawPath(smooth(patch), skia.Paint(AntiAlias=True, Color=skia.Color(255, 0, 0)))
        face[...] = self.mask[..., 3]
        if self.mouth_seen[f] > _SEEN:
            self.mask[...] = 0
            self.mask_canvas.drawPath(smooth(self.around[f]), skia.Paint(AntiAlias=True, Color=skia.Color(255, 0, 0)))
            np.minimum(face, self.mask[..., 3], out=mouth)
