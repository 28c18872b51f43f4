"""What a face is: a box, and the 468 points of its surface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import InputError

POINTS = 468
"""The points of Face Mesh (arXiv 1907.06724), in its order."""

# Of the mesh. Left and right are the person's own; from the outside inwards, from above downwards.
RIGHT_EYE, LEFT_EYE = (33, 133), (263, 362)
RIGHT_LIDS, LEFT_LIDS = (159, 145), (386, 374)
LIPS = (13, 14)  # where they touch
BELOW_NOSE = 2
SPEAKING = (
    164, 393, 391, 426, 427, 434, 367, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 138, 214, 207,
    206, 165, 167, 0, 17, 61, 291,
)  # fmt: skip
"""Around what moves when somebody speaks: from below the nose over the cheeks to the jaw, and the lips' outline."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one frame.

    mesh: float32 (468, 3): x and y in pixels from the top left corner, and depth in pixels, of which only differences
    count; smaller is nearer to the camera. confidence: 0 to 1; 0: nobody has seen it, as in `face_in`.
    """

    mesh: np.ndarray
    confidence: float

    @property
    def box(self) -> np.ndarray:
        """float32 (4,): x and y of the top left corner, width and height, in pixels."""
        return boxes(self.mesh)


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of a video, frame by frame.

    mesh: float32 (frames, faces, 468, 3) as in `Face`. confidence: float32 (frames, faces), 0 to 1; 0: not seen, its
    mesh means nothing. height, width: of the frames, in pixels.
    """

    mesh: np.ndarray
    confidence: np.ndarray
    height: int
    width: int
    fps: float

    @property
    def box(self) -> np.ndarray:
        """float32 (frames, faces, 4), as in `Face`."""
        return boxes(self.mesh)

    def at(self, frame: int, face: int) -> Face | None:
        """A face in a frame; None where it is not seen."""
        confidence = float(self.confidence[frame, face])
        return Face(self.mesh[frame, face], confidence) if confidence > 0 else None


def face_in(x: float, y: float, width: float, height: float) -> Face:
    """The mean face in a box that somebody gave, with confidence 0: for masks of faces that cannot be found, such as
    drawn ones. The box reaches from the hairline to the chin, in pixels.

    Raises: InputError for a box without an area.
    """
    if not (width > 0 and height > 0):
        raise InputError(f"a face's box of {width}x{height} pixels is empty; give x, y, width, height.")
    mean = mean_face()
    low, high = mean.min(0), mean.max(0)
    size = np.array([width, height, (width / (high - low)[0] + height) / 2 * (high - low)[2]])
    mesh = (mean - low) / (high - low) * size + np.array([x, y, 0])
    return Face(mesh.astype(np.float32), 0.0)


def boxes(mesh: np.ndarray) -> np.ndarray:
    """float32 (..., 4): the boxes around meshes (..., 468, 3)."""
    low, high = mesh[..., :2].min(-2), mesh[..., :2].max(-2)
    return np.concatenate([low, high - low], -1)


@cache
def mean_face() -> np.ndarray:
    """float32 (468, 3): the mean of faces with their mouth shut; symmetric, upright, 1 high, its middle at 0."""
    return np.load(Path(__file__).parent / "weights" / "mean_face.npy")
