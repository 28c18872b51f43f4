"""What every room of poses needs to know of a body: its proportions, its size, which way it faces.

Arrays of points are (..., 33, 2 or 3) as in `Poses`, of confidence (..., 33).
"""

from __future__ import annotations

import numpy as np

from .skeleton import LANDMARKS

SEEN = 0.1  # of the confidence: below it a point is only a guess

_SURE = 0.5

INDEX = {name: number for number, name in enumerate(LANDMARKS)}
_ENDS = {"elbow": ("wrist", "pinky", "index", "thumb"), "knee": ("ankle", "heel", "foot_index")}
_TIPS = {
    INDEX[f"{side}_{joint}"]: [INDEX[f"{side}_{tip}"] for tip in tips]
    for side in ("left", "right")
    for joint, tips in _ENDS.items()
}

# Of the body's height (Drillis and Contini, 1966, as tabulated by Winter, 2009); between the landmarks, which lie
# further in than the joints' outlines.
_PROPORTIONS = {
    ("left_shoulder", "left_elbow"): 0.186,
    ("right_shoulder", "right_elbow"): 0.186,
    ("left_elbow", "left_wrist"): 0.146,
    ("right_elbow", "right_wrist"): 0.146,
    ("left_hip", "left_knee"): 0.245,
    ("right_hip", "right_knee"): 0.245,
    ("left_knee", "left_ankle"): 0.246,
    ("right_knee", "right_ankle"): 0.246,
    ("left_shoulder", "left_hip"): 0.288,
    ("right_shoulder", "right_hip"): 0.288,
    ("left_shoulder", "right_shoulder"): 0.2,
    ("left_ear", "right_ear"): 0.085,
}
_FROM = [INDEX[start] for start, _ in _PROPORTIONS]
_TO = [INDEX[end] for _, end in _PROPORTIONS]
_SHARES = np.array(list(_PROPORTIONS.values()), np.float32)


def heights(points: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(...): each body's height in pixels if it stood upright, from the parts that are seen; 0 where none is.

    Foreshortening and occlusion only ever shorten a bone, so the third quartile of what the bones say is taken.
    """
    said = np.linalg.norm(points[..., _FROM, :] - points[..., _TO, :], axis=-1) / _SHARES
    seen = np.minimum(confidence[..., _FROM], confidence[..., _TO]) > SEEN
    ordered = -np.sort(-np.where(seen, said, -1), axis=-1)
    place = seen.sum(-1, keepdims=True) // 4
    return np.maximum(np.take_along_axis(ordered, place, -1)[..., 0], 0)


def drawable(confidence: np.ndarray) -> np.ndarray:
    """bool (..., 33): the points that a drawing may show. What hangs on an elbow or a knee that is not seen must be
    sure, for the network guesses hands and feet beyond the frame."""
    seen = confidence > SEEN
    for joint, tips in _TIPS.items():
        seen[..., tips] &= seen[..., [joint]] | (confidence[..., tips] > _SURE)
    return seen


def middle(points: np.ndarray, left: str, right: str) -> np.ndarray:
    """(..., 2 or 3): the point between two landmarks."""
    return (points[..., INDEX[left], :] + points[..., INDEX[right], :]) / 2


def across(points: np.ndarray, part: str) -> np.ndarray:
    """(..., 2 or 3): from the right to the left "shoulder", "hip", "ear" and so on."""
    return points[..., INDEX[f"left_{part}"], :] - points[..., INDEX[f"right_{part}"], :]


def unit(vectors: np.ndarray) -> np.ndarray:
    """(..., n): the vectors at length 1; those of no length stay so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
