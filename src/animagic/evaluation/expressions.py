"""The judge of expressions: which of five a face shows, by where its brows, lids and lips are, and where they were in a
photo without expression. It is fitted to drawn people, see benchmarks/talking_judge.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ..faces import Face, Faces, head_pose
from ..faces.face import LEFT_EYE, RIGHT_EYE
from ..faces.measures import face_rotation
from ..synthetic.portraits import EXPRESSIONS

POINTS = (
    70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 336, 296, 334, 293, 300, 276, 283, 282, 295, 285, 61, 291, 0, 17, 13, 14,
    40, 270, 91, 321, 37, 267, 84, 314, 78, 308, 159, 145, 386, 374, 33, 133, 263, 362, 160, 158, 385, 387,
)  # fmt: skip
"""Of Face Mesh: brows, lips, lids."""
MOST_YAW = 35.0  # degrees: a face that looks farther aside is not judged
FEWEST = 3  # frames

_READOUT = Path(__file__).parent / "weights" / "expressions.npy"


def features(faces: Faces, still: Face) -> np.ndarray | None:
    """The points of the first face, in their median over time, and how they differ from those of a face without
    expression, (192,); None where too little is seen."""
    if not faces.confidence.shape[1]:
        return None
    known = (faces.confidence[:, 0] > 0) & (np.abs(head_pose(faces)[:, 0, 0]) < MOST_YAW)
    if known.sum() < FEWEST:
        return None
    now, before = np.median(_upright(faces.mesh[known, 0]), 0), _upright(still.mesh)
    return np.concatenate([now, now - before]).ravel()


def _upright(mesh: np.ndarray) -> np.ndarray:
    """The x and y of POINTS, (..., 48, 2), as if the face looked at the camera: from the middle of the eyes' outer
    corners on, which are 1 apart."""
    eyes = mesh[..., [RIGHT_EYE[0], LEFT_EYE[0]], :]
    apart = np.linalg.norm(eyes[..., 0, :] - eyes[..., 1, :], axis=-1)[..., None, None]
    points = mesh[..., list(POINTS), :] - eyes.mean(-2, keepdims=True)
    return (points @ face_rotation(mesh) / apart)[..., :2]


def expression_of(faces: Faces, still: Face) -> str | None:
    """One of `animagic.synthetic.portraits.EXPRESSIONS`; None where too little is seen of the first face."""
    found = features(faces, still)
    return None if found is None else EXPRESSIONS[int((_readout() @ np.append(found, 1.0)).argmax())]


@cache
def _readout() -> np.ndarray:
    """float32 (5, 193): linear discriminants, with what is added last."""
    return np.load(_READOUT)


def fitted(points: np.ndarray, labels: np.ndarray, shrinkage: float = 0.1) -> np.ndarray:
    """The discriminants for features (n, 192) and numbers of expressions (n,)."""
    means = np.stack([points[labels == label].mean(0) for label in range(len(EXPRESSIONS))])
    spread = points - means[labels]
    covariance = spread.T @ spread / len(points)
    covariance += shrinkage * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, means.T).T
    return np.column_stack([weights, -(weights * means).sum(1) / 2]).astype(np.float32)
