"""What a body wears: clothes and shoes made of its own surface, and a skirt."""

from __future__ import annotations

import numpy as np

from ..meshes import around, tube, vertex_normals
from .hair import hair
from .identity import REGIONS, Person
from .skeleton import JOINTS
from .surface import Patch, Surface, joined

PIECES = (
    "face", "scalp", "neckline", "chest", "waist", "pelvis", "upper_sleeve", "lower_sleeve", "forearm", "hand",
    "upper_thigh", "lower_thigh", "shin", "foot", "eye", "lips", "brow",
)  # fmt: skip
"""The pieces that a baked body's surface is cut into, along every line at which some clothes end."""

_TIGHT = {"shirt": 0.007, "trousers": 0.006, "shoes": 0.008}  # metres above the skin
_LOOSE = {"shirt": 0.018, "trousers": 0.016, "shoes": 0.01}
_NEARER = {"brow": 0.004, "eye": 0.006}  # metres, so that what lies in the face is drawn after it
_PELVIS, _LEFT_HIP, _RIGHT_HIP, _LEFT_KNEE = (JOINTS.index(n) for n in ("pelvis", "left_hip", "right_hip", "left_knee"))


def piece_regions(person: Person) -> dict[str, str]:
    """The region of each of PIECES on this person."""
    worn = dict.fromkeys(PIECES, "skin") | {"brow": "hair", "eye": "eyes", "foot": "shoes", "chest": "shirt"}
    worn |= dict.fromkeys(("waist", "pelvis", "upper_thigh"), "trousers")
    if person.hair_style != "bald":
        worn["scalp"] = "hair"
    if person.untucked and person.bottoms != "skirt":
        worn["waist"] = "shirt"
    if person.sleeves != "none":
        worn["upper_sleeve"] = "shirt"
    if person.sleeves == "long":
        worn |= dict.fromkeys(("lower_sleeve", "forearm"), "shirt")
    if person.bottoms == "trousers":
        worn |= dict.fromkeys(("lower_thigh", "shin"), "trousers")
    return worn


def dress(
    person: Person,
    points: np.ndarray,
    weights: np.ndarray,
    triangles: np.ndarray,
    parts: np.ndarray,
    pieces: np.ndarray,
    joints: np.ndarray,
) -> Surface:
    """Clothe a bare body.

    Args:
        points (V, 3), weights (V, J), triangles (T, 3): the mesh at rest; parts, pieces (T,): of each triangle.
        joints: (J, 3) at rest.
    """
    worn = piece_regions(person)
    regions = np.array([REGIONS.index(worn[piece]) for piece in PIECES])[pieces]
    # Cloth stands off the skin; a vertex of several materials goes with the thickest.
    cut = _LOOSE if person.loose else _TIGHT
    thickness = np.array([cut.get(name, 0.0) for name in REGIONS])[regions]
    off = np.zeros(len(points))
    np.maximum.at(off, triangles.reshape(-1), np.repeat(thickness, 3))
    clothed = points + vertex_normals(points, triangles) * off[:, None]
    shade = np.ones(len(points))
    shade[triangles[pieces == PIECES.index("lips")]] = 0.74
    bias = np.array([_NEARER.get(piece, 0.0) for piece in PIECES])[pieces]
    patches = [Patch(clothed, weights, triangles, regions, parts, bias, shade=shade)]
    scalp = triangles[pieces == PIECES.index("scalp")]
    patches += hair(person.hair_style, points, triangles, scalp, joints)
    if person.bottoms == "skirt":
        patches.append(_skirt(points, triangles, pieces, joints))
    return joined(patches)


def _skirt(points: np.ndarray, triangles: np.ndarray, pieces: np.ndarray, joints: np.ndarray) -> Patch:
    """A tube from the waist to a hand above the knees, around hips and thighs."""
    rows, columns = 7, 24
    hips, thighs = (
        points[np.unique(triangles[np.isin(pieces, [PIECES.index(name) for name in names])])]
        for names in (("waist", "pelvis"), ("upper_thigh",))
    )
    both = np.concatenate([hips, thighs])
    heights = np.linspace(hips[:, 1].max() - 0.01, joints[_LEFT_KNEE, 1] + 0.05, rows)
    bands = [both[np.abs(both[:, 1] - max(y, joints[_LEFT_HIP, 1] - 0.06)) < 0.035] for y in heights]
    middle = np.array([(band[:, 2].max() + band[:, 2].min()) / 2 for band in bands])
    wide = np.maximum.accumulate([np.abs(band[:, 0]).max() for band in bands])
    deep = np.maximum.accumulate([np.ptp(band[:, 2]) / 2 for band in bands])
    down, angle = np.linspace(0, 1, rows)[:, None], around(columns)
    x = wide[:, None] * (1.05 + 0.22 * down) * np.sin(angle)
    z = middle[:, None] + deep[:, None] * (1.1 + 0.5 * down) * np.cos(angle)
    cloth = np.stack([x, np.repeat(heights[:, None], columns, 1), z], -1).reshape(-1, 3)

    # Below the hips it goes with the thighs, each side with its own.
    hang = (1.5 * down).clip(0, 1)
    follow = np.repeat(0.97 * hang * hang * (3 - 2 * hang), columns)
    left = 0.5 + 0.5 * np.tanh(3 * np.tile(np.sin(angle), rows))
    weights = np.zeros((len(cloth), len(joints)))
    weights[:, _PELVIS] = 1 - follow
    weights[:, _LEFT_HIP], weights[:, _RIGHT_HIP] = follow * left, follow * (1 - left)

    faces = tube(rows, columns)
    centre = cloth[faces].mean(1)
    on_left, front = centre[:, 0] > 0, centre[:, 2] > middle[0]
    parts = np.where(front, np.where(on_left, 10, 9), np.where(on_left, 8, 7))  # upper legs
    regions = np.full(len(faces), REGIONS.index("trousers"))
    return Patch(cloth, weights, faces, regions, parts, bias=0.035, two_sided=True)
