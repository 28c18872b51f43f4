"""What a mesh tells about a face: how far mouth and eyes are open, and where it looks."""

from __future__ import annotations

import numpy as np

from .face import BELOW_NOSE, LEFT_EYE, LEFT_LIDS, LIPS, RIGHT_EYE, RIGHT_LIDS, Face, Faces, mean_face


def mouth_opening(face: Face | Faces) -> np.ndarray:
    """(...): the gap between the lips over the distance of the eyes' outer corners, 0 to about 0.5; nan where no face
    is seen. It does not depend on the face's size, and hardly on where it looks."""
    gap = _distance(face.mesh, *LIPS)
    return _seen(face, gap / np.maximum(_distance(face.mesh, RIGHT_EYE[0], LEFT_EYE[0]), 1e-6))


def eye_opening(face: Face | Faces) -> np.ndarray:
    """(..., 2): the gap between the lids over the width of the eye, of the person's right eye and left eye; nan where
    no face is seen."""
    sides = ((RIGHT_LIDS, RIGHT_EYE), (LEFT_LIDS, LEFT_EYE))
    shares = [_distance(face.mesh, *lids) / np.maximum(_distance(face.mesh, *eye), 1e-6) for lids, eye in sides]
    return _seen(face, np.stack(shares, -1))


def head_pose(face: Face | Faces) -> np.ndarray:
    """(..., 3): yaw, pitch and roll in degrees; nan where no face is seen.

    Yaw is positive where the face looks to the right in the picture, pitch where it looks up, roll where it leans
    clockwise as it is seen. All are 0 for the mean face.
    """
    turn = face_rotation(face.mesh)
    towards = -turn[..., 2]  # out of the face
    yaw = np.arctan2(towards[..., 0], -towards[..., 2])
    pitch = -np.arcsin(np.clip(towards[..., 1], -1, 1))
    roll = np.arctan2(turn[..., 1, 0], turn[..., 1, 1])
    return _seen(face, np.degrees(np.stack([yaw, pitch, roll], -1)))


def face_rotation(mesh: np.ndarray) -> np.ndarray:
    """(..., 3, 3): what turns the mean face into place; of what lies above the mouth, which speech does not move."""
    mean = mean_face()
    stiff = mean[:, 1] < mean[BELOW_NOSE, 1]
    points, mean = mesh[..., stiff, :].astype(np.float64), mean[stiff].astype(np.float64)
    points = points - points.mean(-2, keepdims=True)
    left, _, right = np.linalg.svd(np.swapaxes(points, -1, -2) @ (mean - mean.mean(0)))
    mirrored = np.linalg.det(left @ right)  # -1 for a mirror image, which no head is
    left[..., -1] *= np.sign(mirrored)[..., None]
    return left @ right


def _distance(mesh: np.ndarray, one: int, other: int) -> np.ndarray:
    return np.linalg.norm(mesh[..., one, :] - mesh[..., other, :], axis=-1)


def _seen(face: Face | Faces, values: np.ndarray) -> np.ndarray:
    seen = np.asarray(face.confidence) > 0
    return np.where(seen.reshape(seen.shape + (1,) * (values.ndim - seen.ndim)), values, np.nan)
