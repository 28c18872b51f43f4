"""The motion of one body on another: its bones, where it stands, how much of it the frame shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import InputError
from .body import INDEX, SEEN, heights, middle
from .skeleton import LANDMARKS, Poses

_NECK, _PELVIS = len(LANDMARKS), len(LANDMARKS) + 1  # the points between the shoulders and between the hips
_HEAD = len(LANDMARKS) + 2  # between the ears
_FACE = [INDEX[name] for name in LANDMARKS[:11]]
_FEET = [INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("ankle", "heel", "foot_index")]
_TRUNK = [_NECK, _PELVIS, _HEAD, INDEX["left_shoulder"], INDEX["right_shoulder"]]
_EXTREMES = (0.5, 2.0)  # of a bone's stretch against that of the whole body: beyond it a photo was misread
_BEGIN = 0.3  # seconds in which it is where the reference is
_MARGIN = 0.05  # of the frame's width, in which no head and trunk should be


def _bones() -> list[tuple[int, int, str]]:
    """Every point, its parent, and the name of the bone between them, which left and right share; parents first."""
    bones = [(_NECK, _PELVIS, "spine"), (_HEAD, _NECK, "neck"), *((point, _HEAD, "face") for point in _FACE)]
    for side in ("left", "right"):
        chain = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
        for root, (first, second, third) in zip((_NECK, _PELVIS), chain, strict=True):
            a, b, c = (INDEX[f"{side}_{name}"] for name in (first, second, third))
            bones += [(a, root, first), (b, a, second), (c, b, third)]
        bones += [(INDEX[f"{side}_{finger}"], INDEX[f"{side}_wrist"], "hand") for finger in ("pinky", "index", "thumb")]
        bones += [(INDEX[f"{side}_{end}"], INDEX[f"{side}_ankle"], "foot") for end in ("heel", "foot_index")]
    return bones


_BONES = _bones()


def retargeted(poses: Poses, reference: Poses) -> Poses:
    """The motion of `poses` by the people of `reference`, in its frame.

    Bones get the reference's lengths and keep their directions and foreshortening; bones that it does not show are
    scaled as the whole body is. The body stands where the reference stands (at its feet; if they are not seen, its
    hips or its shoulders are where the reference has them) when it is first seen, and moves from there as far as its
    size says; if that would lead it out of the frame, less far to the sides.

    Args:
        reference: of one frame, a photo. With several people, as many move as both have; the most prominent ones, from
            left to right.
    Returns: as many frames as `poses`, of the reference's size.
    Raises: InputError if there is nobody in one of them, or they have no bone in common.
    """
    for name, given in (("the motion", poses), ("the reference", reference)):
        if not (given.confidence > SEEN).any():
            raise InputError(f"{name} shows no person; give one in which somebody is seen.")
    count = min(poses.points.shape[1], reference.points.shape[1])
    drivers, models = _left_to_right(poses, count), _left_to_right(reference, count)
    begin = max(1, round(_BEGIN * poses.fps))
    photo, sure = reference.points[:1], reference.confidence[:1]
    people = [
        _moved(poses.points[:, i], poses.confidence[:, i], photo[:, j], sure[:, j], reference.width, begin)
        for i, j in zip(drivers, models, strict=True)
    ]
    return replace(
        poses,
        points=np.stack(people, 1).astype(np.float32),
        confidence=poses.confidence[:, drivers],
        height=reference.height,
        width=reference.width,
    )


def _left_to_right(poses: Poses, count: int) -> list[int]:
    """The numbers of the first `count` people, ordered by where they are on average."""
    seen = poses.confidence[:, :count] > SEEN
    x = np.where(seen, poses.points[:, :count, :, 0], 0).sum((0, 2)) / np.maximum(seen.sum((0, 2)), 1)
    return np.argsort(x, kind="stable").tolist()


def _moved(
    points: np.ndarray, confidence: np.ndarray, model: np.ndarray, model_confidence: np.ndarray, width: int, begin: int
) -> np.ndarray:
    """One person, (frames, 33, 3), with the bones and the place of the model, (1, 33, 3)."""
    points, seen = _with_middles(points, confidence)
    model, model_seen = _with_middles(model, model_confidence)
    scale, stretch = _stretches(_lengths(points, seen), _lengths(model, model_seen))
    result = np.zeros_like(points)
    for point, parent, bone in _BONES:
        vector = points[:, point] - points[:, parent]
        result[:, point] = result[:, parent] + stretch.get(bone, scale) * vector
    result += _place(points, seen, model, model_seen, result, scale, width, begin)[:, None]
    return result[:, : len(LANDMARKS)]


def _with_middles(points: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points, float64 (frames, 36, 3), with neck, pelvis and head; unseen ones lie at their parents."""
    tall = heights(points, confidence)
    seen = confidence > SEEN
    pairs = (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_ear", "right_ear"))
    made = np.stack([middle(points, *pair) for pair in pairs], 1)
    made_seen = np.stack([seen[:, INDEX[left]] & seen[:, INDEX[right]] for left, right in pairs], 1)
    points, seen = np.concatenate([points, made], 1).astype(np.float64), np.concatenate([seen, made_seen], 1)
    down = np.zeros((len(points), 3))
    down[:, 1] = 0.288 * tall
    points[:, _NECK] = np.where(seen[:, _NECK, None], points[:, _NECK], points[:, _HEAD] + 0.5 * down)
    points[:, _PELVIS] = np.where(seen[:, _PELVIS, None], points[:, _PELVIS], points[:, _NECK] + down)
    for point, parent, _ in _BONES:
        points[:, point] = np.where(seen[:, point, None] | (point == _NECK), points[:, point], points[:, parent])
    return points, seen


def _lengths(points: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """The length in pixels of each bone that is seen: in the middle of all frames and both sides.

    Without depths bones are only ever foreshortened, so then it is one of the longest.
    """
    share = 50 if np.ptp(points[..., 2]) > 0 else 85
    found: dict[str, list[np.ndarray]] = {}
    for point, parent, bone in _BONES:
        both = seen[:, point] & seen[:, parent]
        found.setdefault(bone, []).append(np.linalg.norm(points[both, point] - points[both, parent], axis=-1))
    # Of fingers, feet and the face each frame has several lengths; left and right of one bone are alike.
    values = {bone: [np.percentile(one, share) for one in lengths if len(one)] for bone, lengths in found.items()}
    return {bone: float(np.mean(one)) for bone, one in values.items() if one and np.mean(one) > 0}


def _stretches(lengths: dict[str, float], wanted: dict[str, float]) -> tuple[float, dict[str, float]]:
    """How much longer the whole body is to be, and each bone."""
    stretch = {bone: wanted[bone] / lengths[bone] for bone in lengths if bone in wanted}
    if not stretch:
        raise InputError(
            "the motion and the reference show no bone in common; give a photo that shows more of the body."
        )
    scale = float(np.median(list(stretch.values())))
    low, high = (scale * extreme for extreme in _EXTREMES)
    return scale, {bone: float(np.clip(value, low, high)) for bone, value in stretch.items()}


def _place(
    points: np.ndarray,
    seen: np.ndarray,
    model: np.ndarray,
    model_seen: np.ndarray,
    result: np.ndarray,
    scale: float,
    width: int,
    begin: int,
) -> np.ndarray:
    """(frames, 3): where the pelvis goes, so that the body begins (`begin` frames) where the model stands."""
    middle_of = _PELVIS if seen[:, _PELVIS].any() and model_seen[:, _PELVIS].any() else _NECK
    there = np.asarray(seen[:, middle_of] if seen[:, middle_of].any() else seen.any(1))
    path = points[:, middle_of] - np.median(points[there, middle_of][:begin], 0)
    path *= scale
    trunk = result[:, _TRUNK, 0] - result[:, [middle_of], 0]
    path[there, 0] = _inside(path[there, 0], trunk[there], model[0, middle_of, 0], width)
    place = model[0, middle_of] + path - result[:, middle_of]
    feet = [point for point in _FEET if model_seen[0, point]]
    if feet and seen[:, feet].any():
        ground = np.where(seen[:, feet], points[:, feet, 1], -np.inf).max(1)
        stands = np.isfinite(ground)
        level = scale * (ground - np.median(ground[stands][:begin])) + model[0, feet, 1].max()
        lowest = np.where(seen[:, feet], result[:, feet, 1], -np.inf).max(1)
        # While no foot is seen the body keeps the height at which it was.
        numbers = np.arange(len(points))
        place[:, 1] = np.interp(numbers, numbers[stands], (level[stands] - lowest[stands]))
    place[:, 2] = model[0, _PELVIS, 2] + scale * (points[:, _PELVIS, 2] - np.median(points[there, _PELVIS, 2][:begin]))
    return place


def _inside(path: np.ndarray, trunk: np.ndarray, x: float, width: int) -> np.ndarray:
    """Ways to the side from `x` (frames,), shortened so that the trunk (frames, points), relative to them, stays inside
    the frame; not to less than a quarter, since a trunk may be cut by the frame where it stands."""
    left, right = x + trunk.min(1) - _MARGIN * width, (1 - _MARGIN) * width - x - trunk.max(1)
    room = np.where(path < 0, left, right)
    return path * np.clip(np.min(np.maximum(room, 0) / np.maximum(np.abs(path), 1e-6)), 0.25, 1)
