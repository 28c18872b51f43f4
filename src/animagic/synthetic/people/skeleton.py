"""The joints of a person, and how a skeleton is posed."""

from __future__ import annotations

import numpy as np

JOINTS = (
    "pelvis", "spine", "chest", "neck", "head", "left_clavicle", "left_shoulder", "left_elbow", "left_wrist",
    "right_clavicle", "right_shoulder", "right_elbow", "right_wrist", "left_hip", "left_knee", "left_ankle",
    "right_hip", "right_knee", "right_ankle",
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 3, 2, 5, 6, 7, 2, 9, 10, 11, 0, 13, 14, 0, 16, 17)
"""The joint above each joint, -1 for the first."""


def alignment(joints: np.ndarray) -> np.ndarray:
    """(J, 3, 3): turns what each joint moves from a rest pose (J, 3) into the zero pose of motions: all limbs down."""
    at = dict(zip(JOINTS, joints, strict=True))
    align = np.tile(np.eye(3), (len(JOINTS), 1, 1))
    down, hinge = np.array([0.0, -1, 0]), np.array([-1.0, 0, 0])
    zero = np.stack([down, hinge, np.cross(down, hinge)], 1)
    for side in ("left", "right"):
        shoulder, elbow, wrist = (at[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        hip, knee, ankle = (at[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        # An elbow bends about one axis: that, too, comes to lie where motions have it. A straight knee shows none.
        bend = np.cross(elbow - shoulder, wrist - elbow)
        for name, along, axis in (
            ("shoulder", elbow - shoulder, bend),
            ("elbow", wrist - elbow, bend),
            ("wrist", wrist - elbow, bend),
            ("hip", knee - hip, np.cross(knee - hip, [0.0, 0, 1])),
            ("knee", ankle - knee, np.cross(ankle - knee, [0.0, 0, 1])),
        ):
            along, axis = along / np.linalg.norm(along), axis / np.linalg.norm(axis)
            align[JOINTS.index(f"{side}_{name}")] = zero @ np.stack([along, axis, np.cross(along, axis)], 1).T
    return align


def forward(
    joints: np.ndarray, align: np.ndarray, rotations: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pose a skeleton.

    Args:
        joints, align: (J, 3) at rest, and their `alignment`.
        rotations: (F, J, 3, 3), each joint's turn relative to its parent's, from the zero pose.
        place: (F, 3), where the pelvis is.
    Returns: turns (F, J, 3, 3) of what each joint moves, from the rest pose; places (F, J, 3) of the joints.
    """
    world, turns = np.empty_like(rotations), np.empty_like(rotations)
    places = np.empty((*rotations.shape[:2], 3))
    for j, parent in enumerate(PARENTS):
        if parent < 0:
            world[:, j], places[:, j] = rotations[:, j], place
        else:
            world[:, j] = world[:, parent] @ rotations[:, j]
            places[:, j] = places[:, parent] + turns[:, parent] @ (joints[j] - joints[parent])
        turns[:, j] = world[:, j] @ align[j]
    return turns, places
