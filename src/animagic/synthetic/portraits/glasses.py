"""Glasses: two lenses, a bridge and two temples, as strokes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import skia

from .identity import Portrait
from .shapes import paint, polygon


class Glasses:
    """Glasses in every frame, in half heights of the face, y downward, from its middle.

    eye: where the right half's eye is; wide: half its width; front: z of the lenses; temple: x and z of their ends;
    place: from (N, 3) to pixels (F, N, 2); yaw: (F,) radians; unit: pixels of a length.
    """

    def __init__(
        self, portrait: Portrait, eye: tuple[float, float], wide: float, front: float, temple: tuple[float, float],
        place: Callable[[np.ndarray], np.ndarray], yaw: np.ndarray, unit: float,
    ) -> None:  # fmt: skip
        self.yaw, self.frame = yaw, paint(portrait.colours["frames"], stroke=0.04 * unit)
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        power = 1.0 if portrait.glasses == "round" else 0.55
        cos, sin = np.cos(angle), np.sin(angle)
        across = min(1.5 * wide, 0.86 * eye[0])
        high = across if power == 1 else 0.75 * across
        x, y = np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power
        self.lenses = []
        for side in (-1, 1):
            out = side * eye[0] + across * x
            self.lenses.append(
                place(np.stack([out, eye[1] + 0.02 + high * y, front - 0.25 * (np.abs(out) - eye[0])], -1))
            )
        inner, outer, level = eye[0] - across, eye[0] + across, eye[1] - 0.02
        self.bars = place(
            np.array(
                [(-inner, level, front + 0.06), (inner, level, front + 0.06), (-outer, level, front - 0.08),
                 (-temple[0], level, temple[1]), (outer, level, front - 0.08), (temple[0], level, temple[1])]
            )
        )  # fmt: skip

    def draw(self, canvas: skia.Canvas, f: int) -> None:
        if np.cos(self.yaw[f]) < 0.05:
            return
        sine = np.sin(self.yaw[f])
        for side, lens in zip((-1, 1), self.lenses, strict=True):
            if side * sine < 0.8:  # the far one is hidden by the nose in profile
                path = polygon(lens[f])
                canvas.drawPath(path, paint((255, 255, 255), 0.12))
                canvas.drawPath(path, self.frame)
        bars = self.bars[f]
        canvas.drawPath(polygon(bars[:2], False), self.frame)
        for side, ends in ((1, bars[2:4]), (-1, bars[4:6])):
            if side * sine > -0.2:
                canvas.drawPath(polygon(ends, False), self.frame)
