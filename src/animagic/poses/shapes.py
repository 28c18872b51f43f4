"""The shapes of a body's parts, as polygons in pixels, nearest last.

A shape is a stack of rows across a limb: centres (..., rows, 2), halves (..., rows, 2) from a centre to the edge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .body import INDEX, across, drawable, heights, middle, unit
from .skeleton import LANDMARKS, PARTS, Poses


class _Limb(NamedTuple):
    start: str
    end: str
    thick: tuple[float, float]  # half of the width at both ends, in shares of the body's height
    front: str  # the part on the side of `facing`
    back: str
    facing: str


def _limbs(side: str) -> list[_Limb]:
    upper_leg, lower_leg, upper_arm, lower_arm = (
        f"{side}_{name}" for name in ("upper_leg", "lower_leg", "upper_arm", "lower_arm")
    )
    hand, foot = f"{side}_hand", f"{side}_foot"
    return [
        _Limb(f"{side}_hip", f"{side}_knee", (0.048, 0.034), f"{upper_leg}_front", f"{upper_leg}_back", "pelvis"),
        _Limb(f"{side}_knee", f"{side}_ankle", (0.031, 0.018), f"{lower_leg}_front", f"{lower_leg}_back", "pelvis"),
        _Limb(
            f"{side}_shoulder", f"{side}_elbow", (0.031, 0.019), f"{upper_arm}_inner", f"{upper_arm}_outer", upper_arm
        ),
        _Limb(f"{side}_elbow", f"{side}_wrist", (0.02, 0.013), f"{lower_arm}_inner", f"{lower_arm}_outer", lower_arm),
        _Limb(f"{side}_wrist", f"{side}_fingers", (0.016, 0.015), hand, hand, "chest"),
        _Limb(f"{side}_ankle", f"{side}_foot_index", (0.017, 0.014), foot, foot, "chest"),
        _Limb(f"{side}_heel", f"{side}_foot_index", (0.02, 0.014), foot, foot, "chest"),
    ]


_LIMBS = [*_limbs("left"), *_limbs("right")]
_EXTRA = ("left_fingers", "right_fingers", "neck", "chin")  # points that are made of landmarks
_PLACES = {name: number for number, name in enumerate((*LANDMARKS, *_EXTRA))}
_FACINGS = ("chest", "pelvis", "left_upper_arm", "left_lower_arm", "right_upper_arm", "right_lower_arm")
# From the shoulders over the waist to the crotch: where along the spine, how wide beside the joints, how deep.
_TORSO = np.array(
    [(-0.16, -0.028, 0.06), (0.05, -0.014, 0.08), (0.44, -0.02, 0.074), (0.74, 0.008, 0.052), (0.98, 0.04, 0.043),
     (1.02, 0.016, 0.041), (1.11, -0.036, 0.0), (1.2, -0.05, 0.0)]
)  # fmt: skip
# Of the head: half of its width from the front, what is added from the side, half of its height; how far its middle
# lies behind the ears, in shares of the way to the nose, and above them; half of the neck's width.
_HEAD = np.array([0.052, 0.018, 0.071, 0.02, 0.012, 0.034])
_ORDER = np.array([-0.05, 0.018])  # how much farther away than they are the torso and the thighs count
_ROWS = 12  # of each shape
_ROUND = np.linspace(-np.pi / 2, np.pi / 2, _ROWS)  # the angles of the rows of an ellipse
_HALF = np.linspace(-np.pi / 2, 0, _ROWS // 2)  # and of a limb's round start
_HIDDEN = 0.93  # a side of a limb that takes less than (1 - this) / 2 of its width is not drawn


class Shapes(NamedTuple):
    """What to fill with what, for all people of all frames.

    polygons: float32 (frames, people, shapes, corners, 2). parts: (shapes,) numbers of PARTS. depths, drawn: (frames,
    people, shapes): how far away, and whether the shape is there at all.
    """

    polygons: np.ndarray
    parts: np.ndarray
    depths: np.ndarray
    drawn: np.ndarray


def shapes_of(poses: Poses) -> Shapes:
    """Every limb, the torso and the head of each person, split into the sides that DensePose tells apart."""
    tall = heights(poses.points, poses.confidence)
    points, seen = _completed(poses.points, drawable(poses.confidence), tall)
    facing = _facing(points)
    pieces = [_limb_shapes(points, seen, facing, tall), _torso(points, seen, facing, tall), _head(points, seen, tall)]
    return Shapes(
        *(np.concatenate(same, axis) for same, axis in zip(zip(*pieces, strict=True), (2, 0, 2, 2), strict=True))
    )


def _completed(points: np.ndarray, seen: np.ndarray, tall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points with those of _EXTRA, hips and tips guessed where they are not seen."""
    points, seen = points.copy(), seen.copy()
    for side in ("left", "right"):
        hip, shoulder = INDEX[f"{side}_hip"], INDEX[f"{side}_shoulder"]
        missing = ~seen[..., hip] & seen[..., shoulder]
        below = points[..., shoulder, :] * 1.0
        below[..., 1] += 0.288 * tall  # a person whom the frame cuts goes on below
        points[..., hip, :] = np.where(missing[..., None], below, points[..., hip, :])
        seen[..., hip] |= missing
        ankle, toes, heel = (INDEX[f"{side}_{name}"] for name in ("ankle", "foot_index", "heel"))
        missing = ~seen[..., toes] & seen[..., ankle]
        under = points[..., ankle, :] * 1.0
        under[..., 1] += 0.04 * tall
        for tip in (toes, heel):
            points[..., tip, :] = np.where(missing[..., None], under, points[..., tip, :])
            seen[..., tip] |= missing
    extra, extra_seen = [], []
    for side in ("left", "right"):
        index, pinky, wrist, elbow = (INDEX[f"{side}_{name}"] for name in ("index", "pinky", "wrist", "elbow"))
        knuckles = (points[..., index, :] + points[..., pinky, :]) / 2
        knuckles = knuckles + 0.35 * (knuckles - points[..., wrist, :])  # to the middle of the fingers
        along = points[..., wrist, :] + 0.5 * (points[..., wrist, :] - points[..., elbow, :])
        known = seen[..., index] & seen[..., pinky]
        extra.append(np.where(known[..., None], knuckles, along))
        extra_seen.append(known | (seen[..., wrist] & seen[..., elbow]))
    neck, ears = middle(points, "left_shoulder", "right_shoulder"), middle(points, "left_ear", "right_ear")
    shoulders = seen[..., INDEX["left_shoulder"]] & seen[..., INDEX["right_shoulder"]]
    both = [neck, 0.6 * ears + 0.4 * neck]
    points = np.concatenate([points, np.stack([*extra, *both], -2)], -2)
    return points, np.concatenate([seen, np.stack([*extra_seen, shoulders, shoulders], -1)], -1)


def _facing(points: np.ndarray) -> np.ndarray:
    """(frames, people, facings, 3): unit vectors out of the front of the body, and out of the inside of the arms."""
    spine = middle(points, "left_hip", "right_hip") - middle(points, "left_shoulder", "right_shoulder")
    chest = unit(np.cross(spine, across(points, "shoulder")))
    pelvis = unit(np.cross(spine, across(points, "hip")))
    arms = []
    for side in ("left", "right"):
        shoulder, elbow, wrist = (points[..., INDEX[f"{side}_{name}"], :] for name in ("shoulder", "elbow", "wrist"))
        # An arm bends towards its inside; a straight one shows it where the chest shows its front.
        arms += [unit(wrist - elbow) + 0.5 * chest, unit(shoulder - elbow) + 0.5 * chest]
    return np.stack([chest, pelvis, *arms], -2)


def _seams(facing: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of a round limb's width, -1 to 1 along `side` (2D), at which its front begins and ends.

    A point of a cylinder belongs to the front where its normal has a positive product with `facing`.
    """
    sideways = (facing[..., :2] * side).sum(-1)
    towards = -facing[..., 2]
    seam = -towards / np.maximum(np.hypot(sideways, towards), 1e-6)
    seam = np.where(np.abs(seam) > _HIDDEN, np.sign(seam), seam)
    return np.where(sideways >= 0, seam, -1), np.where(sideways >= 0, 1, -seam)


def _outline(centres: np.ndarray, halves: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(..., 2 * rows, 2): the polygon between the shares `low` and `high` of the rows' widths."""
    one, other = centres + halves * high[..., None, None], centres + halves * low[..., None, None]
    return np.concatenate([one, other[..., ::-1, :]], -2)


def _split(
    centres: np.ndarray, halves: np.ndarray, facing: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The polygons of the whole limb and of its front; and whether there is a front to be seen."""
    low, high = _seams(facing, side)
    whole = np.ones_like(low)
    return _outline(centres, halves, -whole, whole), _outline(centres, halves, low, high), high > low


def _normal(along: np.ndarray) -> np.ndarray:
    return np.stack([-along[..., 1], along[..., 0]], -1)


def _limb_shapes(points: np.ndarray, seen: np.ndarray, facing: np.ndarray, tall: np.ndarray) -> Shapes:
    start, end = ([_PLACES[getattr(limb, name)] for limb in _LIMBS] for name in ("start", "end"))
    a, b = points[..., start, :], points[..., end, :]
    along = unit(b[..., :2] - a[..., :2])
    side = _normal(along)
    thick = tall[..., None, None] * np.array([limb.thick for limb in _LIMBS], np.float32)
    ends = [(a, thick[..., :1], _HALF), (b, thick[..., 1:], -_HALF[::-1])]  # half a circle each
    shift = np.concatenate([radius * np.sin(angle) for _, radius, angle in ends], -1)[..., None] * along[..., None, :]
    base = np.concatenate([np.repeat(end[..., None, :2], len(angle), -2) for end, _, angle in ends], -2)
    radii = np.concatenate([radius * np.cos(angle) for _, radius, angle in ends], -1)
    halves = radii[..., None] * side[..., None, :]
    turned = facing[..., [_FACINGS.index(limb.facing) for limb in _LIMBS], :]
    whole, front, has_front = _split(base + shift, halves, turned, side)
    drawn = seen[..., start] & seen[..., end]
    thighs = np.array([limb.start.endswith("hip") for limb in _LIMBS])
    depth = (a[..., 2] + b[..., 2]) / 2 + tall[..., None] * np.where(thighs, _ORDER[1], 0)
    parts = [[PARTS.index(getattr(limb, name)) for limb in _LIMBS] for name in ("back", "front")]
    return _interleaved(whole, front, np.array(parts), depth, drawn, drawn & has_front)


def _interleaved(
    whole: np.ndarray,
    front: np.ndarray,
    parts: np.ndarray,
    depth: np.ndarray,
    drawn: np.ndarray,
    drawn_front: np.ndarray,
) -> Shapes:
    """Shapes in which each limb's front comes straight after its whole."""
    people = whole.shape[:2]
    return Shapes(
        np.stack([whole, front], 3).reshape(*people, -1, *whole.shape[-2:]),
        parts.T.reshape(-1),
        np.repeat(depth, 2, -1),
        np.stack([drawn, drawn_front], 3).reshape(*people, -1),
    )


def _torso(points: np.ndarray, seen: np.ndarray, facing: np.ndarray, tall: np.ndarray) -> Shapes:
    neck, pelvis = points[..., _PLACES["neck"], :], middle(points, "left_hip", "right_hip")
    along = unit(pelvis[..., :2] - neck[..., :2])
    side = _normal(along)
    places, flesh, deep = np.pad(_TORSO, ((0, _ROWS - len(_TORSO)), (0, 0)), "edge").T.astype(np.float32)
    lower = np.clip(places, 0, 1)[:, None]
    half = ((1 - lower) * across(points, "shoulder")[..., None, :2] + lower * across(points, "hip")[..., None, :2]) / 2
    sign = np.where((half * side[..., None, :]).sum(-1, keepdims=True) < 0, -1, 1)
    wide = np.linalg.norm(half, axis=-1) + tall[..., None] * flesh
    # Seen from the side only the depth is left: the outline of an ellipse that turns.
    extent = np.hypot(np.maximum(wide, 0), tall[..., None] * deep * 0.8)
    halves = np.where(
        np.linalg.norm(half, axis=-1, keepdims=True) > tall[..., None, None] * 0.02,
        unit(half) * sign * extent[..., None],
        side[..., None, :] * extent[..., None],
    )
    centres = neck[..., None, :2] + places[:, None] * (pelvis - neck)[..., None, :2]
    whole, front, has_front = _split(centres, halves, facing[..., 0, :], side)
    drawn = np.logical_and.reduce(
        [seen[..., _PLACES[f"{side}_{name}"]] for side in ("left", "right") for name in ("shoulder", "hip")]
    )[..., None]
    depth = ((neck + pelvis)[..., 2] / 2 + _ORDER[0] * tall)[..., None]  # arms beside it are drawn over it
    parts = np.array([[PARTS.index("torso_back")], [PARTS.index("torso_front")]])
    return _interleaved(
        whole[..., None, :, :], front[..., None, :, :], parts, depth, drawn, drawn & has_front[..., None]
    )


def _head(points: np.ndarray, seen: np.ndarray, tall: np.ndarray) -> Shapes:
    """Neck and skull; their "front" is the person's left side."""
    ears, neck, chin = (
        middle(points, "left_ear", "right_ear"),
        points[..., _PLACES["neck"], :],
        points[..., _PLACES["chin"], :],
    )
    nose = points[..., INDEX["nose"], :]
    mouth, eyes = middle(points, "mouth_left", "mouth_right"), middle(points, "left_eye", "right_eye")
    face = seen[..., INDEX["nose"]] & (seen[..., INDEX["left_ear"]] | seen[..., INDEX["right_ear"]])
    mouth_seen = seen[..., INDEX["mouth_left"], None] & seen[..., INDEX["mouth_right"], None]
    up = unit(eyes - mouth) * mouth_seen + unit(ears - neck) * seen[..., _PLACES["neck"], None]
    up = unit(up[..., :2])
    side = _normal(-up)
    left = across(points, "ear")
    # Turned to the side the skull is longer than it is wide.
    turned = np.abs((unit(left)[..., :2] * side).sum(-1))
    front, profile, high, behind, above, thick = _HEAD
    wide, high = tall * (front + profile * (1 - turned)), tall * high
    centre = ears[..., :2] - behind * (nose - ears)[..., :2] + up * (above * tall)[..., None]
    skull_centres = centre[..., None, :] - up[..., None, :] * (high[..., None] * np.sin(_ROUND))[..., None]
    skull_halves = side[..., None, :] * (wide[..., None] * np.cos(_ROUND))[..., None]
    rows = np.linspace(0, 1, _ROWS)[:, None]
    neck_centres = neck[..., None, :2] * (1 - rows) + chin[..., None, :2] * rows
    neck_halves = np.broadcast_to(side[..., None, :] * (thick * tall)[..., None, None], neck_centres.shape)
    centres, halves = np.stack([neck_centres, skull_centres], 2), np.stack([neck_halves, skull_halves], 2)
    whole, front, has_front = _split(centres, halves, np.repeat(left[..., None, :], 2, 2), side[..., None, :])
    drawn = np.stack([face & seen[..., _PLACES["neck"]], face], -1)
    depth = np.stack([neck[..., 2], ears[..., 2]], -1)
    parts = np.array([[PARTS.index("head_right")] * 2, [PARTS.index("head_left")] * 2])
    return _interleaved(whole, front, parts, depth, drawn, drawn & has_front)
