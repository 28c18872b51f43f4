"""Faces of people: found in pictures and videos, measured, masked and told apart.

PyTorch is imported when it is first asked who somebody is.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .cleaning import smoothed
from .face import Face, Faces, face_in
from .following import find_faces, follow_faces
from .masks import face_mask, mouth_mask
from .measures import eye_opening, head_pose, mouth_opening

if TYPE_CHECKING:
    from .recognition import SAME_PERSON, identity, identity_distance

__all__ = [
    "SAME_PERSON",
    "Face",
    "Faces",
    "eye_opening",
    "face_in",
    "face_mask",
    "find_faces",
    "follow_faces",
    "head_pose",
    "identity",
    "identity_distance",
    "mouth_mask",
    "mouth_opening",
    "smoothed",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(f"{__name__}.recognition"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
