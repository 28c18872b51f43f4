"""The head of a drawing as a stack of half ellipses, and how it turns: one length is half of a face's height.

Before it turns the face looks at the camera, its hairline at y = -1 and its chin at y = 1; x grows to the right in the
picture, y downward, z to the camera, 0 midway between the ears.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .identity import Portrait
from .performance import Performance

PIVOT = np.array([0.0, 1.05, -0.25])  # the top of the neck
ROWS = np.array([-1.4, -1.37, -1.26, -1.05, -0.75, -0.4, -0.1, 0.2, 0.45, 0.65, 0.82, 0.93, 0.99, 1.0])
_WIDE = np.array([0.1, 0.28, 0.49, 0.67, 0.785, 0.83, 0.825, 0.785, 0.71, 0.605, 0.465, 0.32, 0.17, 0.04])
_FRONT = np.array([0.1, 0.3, 0.5, 0.66, 0.76, 0.81, 0.765, 0.78, 0.8, 0.81, 0.77, 0.76, 0.7, 0.64])
_BACK = np.array([0.12, 0.36, 0.62, 0.82, 0.96, 1.0, 0.95, 0.82, 0.62, 0.5, 0.45, 0.4, 0.35, 0.3])
_JAW = np.array([0.12, 0.36, 0.62, 0.82, 0.96, 1.0, 0.95, 0.78, 0.45, 0.22, 0.08, 0.02, 0.02, 0.02])
_FLAT = 0.42  # how flat the front is: 1 an ellipse's square root


@dataclass(frozen=True)
class Face:
    """The measures of a face, in half heights of it."""

    portrait: Portrait
    wide: np.ndarray  # (rows,), half widths
    eye_x: float
    eye_y: float
    eye_wide: float
    eye_high: float
    brow_y: float
    brow_thick: float
    nose_y: float
    nose_wide: float
    nose_out: float
    mouth_y: float
    mouth_wide: float
    lips: float
    neck: float
    shoulders: float

    @property
    def eye_span(self) -> float:
        """Between the outer corners of the eyes."""
        return 2 * (self.eye_x + self.eye_wide)

    def depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """z of the face's surface at (x, y)."""
        side = (np.abs(x) / np.interp(y, ROWS, self.wide)).clip(0, 1)
        return np.interp(y, ROWS, _FRONT) * (1 - side**2) ** _FLAT


def face_of(portrait: Portrait) -> Face:
    a, (female, age, weight) = portrait.shape, portrait.phenotype
    child, large = float(np.clip((0.58 - age) / 0.16, 0, 1)), 1.32 if portrait.outlined else 1.0
    low = np.interp(ROWS, [0.1, 0.75, 1.0], [0, 1, 1])
    jaw = 1 + low * (0.07 * a[0] - 0.1 * female - 0.06 * child + 0.3 * (weight - 0.5)) + 0.08 * (weight - 0.5)
    eye_y = -0.1 + 0.03 * a[4] + 0.1 * child
    return Face(
        portrait,
        _WIDE * (1 + 0.035 * a[1] + 0.03 * child) * jaw,
        0.33 + 0.018 * a[2],
        eye_y,
        0.145 * (1 + 0.06 * a[3] + 0.1 * child + 0.06 * female) * (1 + 0.6 * (large - 1)),
        0.072 * (1 + 0.12 * a[5] + 0.15 * child + 0.12 * female) * large**1.6,
        eye_y - 0.22 - 0.02 * a[6] - 0.03 * female - 0.12 * (large - 1),
        0.05 * (1 + 0.2 * a[7]) * (1.15 - 0.45 * female),
        0.33 + 0.03 * a[8],
        0.14 * (1 + 0.14 * a[9]) * (1.08 - 0.16 * female),
        0.2 * (1 + 0.15 * a[10]) * (1 - 0.35 * child),
        0.6 + 0.022 * a[11],
        0.25 * (1 + 0.09 * a[12]),
        0.062 * (1 + 0.2 * a[13]) * (0.9 + 0.3 * female),
        0.42 * (1 + 0.06 * a[14] - 0.12 * female + 0.25 * (weight - 0.5)),
        1.62 * (1 + 0.05 * a[15] - 0.1 * female - 0.14 * child),
    )


class Turned:
    """Turns and places points in every frame. unit: pixels of a length; centre: x and y of the face's middle."""

    def __init__(self, performance: Performance, unit: float, centre: tuple[float, float]) -> None:
        self.yaw, pitch, roll = np.radians(np.asarray(performance.angles, float)).T
        one, zero = np.ones_like(self.yaw), np.zeros_like(self.yaw)

        def matrix(*rows: tuple[np.ndarray, ...]) -> np.ndarray:
            return np.stack([np.stack(row, -1) for row in rows], -2)

        sin, cos = np.sin, np.cos
        about_y = matrix((cos(self.yaw), zero, sin(self.yaw)), (zero, one, zero), (-sin(self.yaw), zero, cos(self.yaw)))
        about_x = matrix((one, zero, zero), (zero, cos(pitch), -sin(pitch)), (zero, sin(pitch), cos(pitch)))
        about_z = matrix((cos(roll), -sin(roll), zero), (sin(roll), cos(roll), zero), (zero, zero, one))
        self.turn = about_z @ about_x @ about_y  # (F, 3, 3)
        self.shift = performance.shift.astype(float)
        self.unit, self.centre = unit, np.array(centre)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) or (F, N, 3) to (F, N, 3): x and y in pixels, and z in lengths."""
        turned = np.einsum("fij,...nj->fni" if points.ndim == 2 else "fij,fnj->fni", self.turn, points - PIVOT)
        turned = turned + (PIVOT + self.shift)[:, None]
        scale = self.unit * 9 / (9 - turned[..., 2:])
        return np.concatenate([self.centre + scale * turned[..., :2], turned[..., 2:]], -1)

    def towards(self, angle: np.ndarray | float) -> np.ndarray:
        """How far what looks at this angle about the neck (0 the front, to the right) looks to the camera, -1 to 1:
        (F, ...) for (...)."""
        return np.cos(self.yaw.reshape(-1, *(1,) * np.ndim(angle)) + angle)


def silhouette(
    turned: Turned, rows: np.ndarray, wide: np.ndarray, front: np.ndarray, back: np.ndarray,
    angles: np.ndarray, hidden: bool, drop: np.ndarray | None = None,
) -> list[np.ndarray | None]:  # fmt: skip
    """The outline of a stack of half ellipses between two angles, frame by frame: (2 * rows, 2), None if not seen.

    Args:
        rows, wide, front, back: (R,) heights, half widths and depths to the front and the back.
        angles: (T,) about the neck, radians, 0 is the front.
        hidden: whether what looks away counts.
        drop: (F, R) by which rows are lower.
    """
    sin, cos = np.sin(angles), np.cos(angles)
    deep = np.where(cos > 0, front[:, None], back[:, None])
    x = wide[:, None] * sin
    z = deep * np.sign(cos) * np.abs(cos) ** (2 * _FLAT)
    y = np.broadcast_to(rows[:, None], x.shape)
    points = np.stack([x, y, z], -1)
    frames = len(turned.yaw)
    grid = np.broadcast_to(points, (frames, *points.shape)).copy()
    if drop is not None:
        grid[..., 1] += drop[..., None]
    on = turned(grid.reshape(frames, -1, 3)).reshape(grid.shape)[..., :2]
    seen = np.ones(on.shape[:-1], bool)
    if not hidden:
        normal = np.arctan2(sin / wide[:, None], cos / deep)
        seen = turned.towards(normal) > 0
    out: list[np.ndarray | None] = []
    low = np.where(seen, on[..., 0], np.inf).argmin(-1)
    high = np.where(seen, on[..., 0], -np.inf).argmax(-1)
    there = np.asarray(seen.any(-1))
    number = np.arange(len(rows))
    for f in range(frames):
        if not there[f].any():
            out.append(None)
            continue
        left, right = on[f, number, low[f]][there[f]], on[f, number, high[f]][there[f]]
        out.append(np.concatenate([left, right[::-1]]))
    return out


def front_of(rows: np.ndarray) -> np.ndarray:
    return np.interp(rows, ROWS, _FRONT)


def back_of(rows: np.ndarray, jaw: bool = False) -> np.ndarray:
    """jaw: without the neck below the ears."""
    return np.interp(rows, ROWS, _JAW if jaw else _BACK)
