"""Which landmarks of a person are seen."""

from __future__ import annotations

import numpy as np

from ...poses import LANDMARKS, PARTS

HIDDEN = 0.3  # confidence of a landmark behind something


def _parts_at(landmark: str) -> tuple[int, ...]:
    """The parts that are seen where a landmark is seen."""
    side = landmark.split("_")[0] if landmark.startswith(("left", "right")) else ""
    name = landmark.removeprefix(side + "_") if side else landmark
    stems = {
        "shoulder": ("torso", f"{side}_upper_arm"),
        "elbow": (f"{side}_upper_arm", f"{side}_lower_arm"),
        "wrist": (f"{side}_lower_arm", f"{side}_hand"),
        "pinky": (f"{side}_hand",),
        "index": (f"{side}_hand",),
        "thumb": (f"{side}_hand",),
        "hip": ("torso", f"{side}_upper_leg"),
        "knee": (f"{side}_upper_leg", f"{side}_lower_leg"),
        "ankle": (f"{side}_lower_leg", f"{side}_foot"),
        "heel": (f"{side}_foot",),
        "foot_index": (f"{side}_foot",),
    }.get(name, ("head",))
    return tuple(i for i, part in enumerate(PARTS) if part.startswith(stems))


_SEEN = np.zeros((len(LANDMARKS), len(PARTS)), bool)
for _i, _name in enumerate(LANDMARKS):
    _SEEN[_i, list(_parts_at(_name))] = True
_FACE = [i for i, name in enumerate(LANDMARKS) if _parts_at(name) == _parts_at("nose")]
_LEFT_EAR, _RIGHT_EAR, _NOSE = (LANDMARKS.index(name) for name in ("left_ear", "right_ear", "nose"))


def confidences(points: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """How well each landmark is seen: 1, HIDDEN behind something, 0 outside the picture.

    Args:
        points: (F, 33, 3) as in Poses; parts: uint8 (F, H, W).
    Returns: float32 (F, 33).
    """
    frames, height, width = parts.shape
    x, y = np.floor(points[..., 0]).astype(int), np.floor(points[..., 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    reach = max(1, min(height, width) // 96)  # what lies at an outline may be seen a pixel beside it
    seen = np.zeros(inside.shape, bool)
    index = np.arange(frames)[:, None]
    for dy in (-reach, 0, reach):
        for dx in (-reach, 0, reach):
            at = parts[index, (y + dy).clip(0, height - 1), (x + dx).clip(0, width - 1)]
            seen |= _SEEN[np.arange(len(LANDMARKS)), at]
    # Of a head seen from behind the back is in the way of the face.
    ears = (points[:, _LEFT_EAR] + points[:, _RIGHT_EAR]) / 2
    size = np.linalg.norm(points[:, _NOSE] - ears, axis=-1)
    depth = (points[:, _FACE, 2] - ears[:, None, 2]) / size[:, None].clip(1e-6)
    limit = np.array([0.35 if i in (_LEFT_EAR, _RIGHT_EAR) else 0.25 for i in _FACE])
    seen[:, _FACE] &= depth < limit
    return np.where(inside, np.where(seen, 1.0, HIDDEN), 0.0).astype(np.float32)
