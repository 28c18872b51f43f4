"""Hair: the scalp pushed outward and drawn down, and balls of hair."""

from __future__ import annotations

import numpy as np

from ..meshes import ball
from .identity import REGIONS
from .skeleton import JOINTS
from .surface import Patch, moved_by

_RISE = {"afro": 0.055, "short": 0.014}  # metres above the scalp; others 0.018
_LENGTH = {"long": 0.24, "bob": 0.11}  # metres that hair hangs below the hairline
_HEAD, _CHEST = JOINTS.index("head"), JOINTS.index("chest")


def hair(style: str, points: np.ndarray, triangles: np.ndarray, scalp: np.ndarray, joints: np.ndarray) -> list[Patch]:
    """The hair of a body.

    Args:
        style: one of HAIR_STYLES.
        points (V, 3), triangles (T, 3), joints (J, 3): of the bare body at rest; scalp (S, 3): triangles under hair.
    """
    if style == "bald":
        return []
    used, inverse = np.unique(scalp, return_inverse=True)
    local, skull, head = inverse.reshape(-1, 3), points[used], joints[_HEAD]
    outside = triangles[~np.isin(triangles, used).all(1)]
    outward = skull - (0, head[1] + 0.09, head[2] + 0.01)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    rise = _RISE.get(style, 0.018) * _fullness(local, np.isin(used, outside))
    shell = skull + outward * rise[:, None]
    weights = moved_by(_HEAD, len(shell), len(joints))
    if style in _LENGTH:
        # From a little above the ear down hair hangs, at the back and at the sides.
        low = ((head[1] + 0.11 - shell[:, 1]) / 0.13).clip(0, 1)
        low = low * low * (3 - 2 * low) * ((head[2] + 0.06 - shell[:, 2]) / 0.06).clip(0, 1)
        x, none = shell[:, 0], np.zeros(len(shell))
        shell = shell + np.stack([0.25 * x, none - _LENGTH[style], none - 0.012], 1) * low[:, None]
        if style == "long":  # it rests on the back
            share = (0.5 * low * (shell[:, 1] < head[1] - 0.08))[:, None]
            weights = weights * (1 - share) + moved_by(_CHEST, len(shell), len(joints)) * share
    patches = [_patch(shell, local, weights, bias=0.012, two_sided=True)]
    balls = {
        "bun": ((0, skull[:, 1].max() + 0.012, head[2] - 0.045), (0.048, 0.042, 0.048)),
        "ponytail": ((0, head[1] + 0.03, head[2] - 0.1), (0.032, 0.11, 0.036)),
    }
    if style in balls:
        place, radii = balls[style]
        sphere, faces = ball()
        patches.append(_patch(sphere * radii + place, faces, moved_by(_HEAD, len(sphere), len(joints))))
    return patches


def _patch(
    points: np.ndarray, triangles: np.ndarray, weights: np.ndarray, bias: float = 0.0, two_sided: bool = False
) -> Patch:
    parts = np.where(points[triangles, 0].mean(1) > 0, 24, 23)  # of the head, left and right
    regions = np.full(len(triangles), REGIONS.index("hair"))
    return Patch(points, weights, triangles, regions, parts, bias, two_sided)


def _fullness(triangles: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """(V,) from 0.25 at the hairline to 1 three triangles within it. edge (V,): whether a vertex is on the hairline."""
    full = np.where(edge, 0.25, 1.0)
    for _ in range(2):
        lowest = np.ones(len(full))
        np.minimum.at(lowest, triangles.reshape(-1), np.repeat(full[triangles].min(1), 3))
        full = np.minimum(full, lowest + 0.3)
    return full
