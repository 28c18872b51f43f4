"""A face that is known without a detector, and pictures of a real one."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.faces import Faces, face_in


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """uint8 (160, 160, 3): the head of a woman who smiles, her nose in the middle."""
    return pytest.importorskip("skimage.data").astronaut()[40:200, 144:304]


@pytest.fixture(scope="session")
def placed():
    """Pictures put into a grey frame with their corners at x, y."""

    def placed(*pictures: tuple[np.ndarray, int, int], size=(256, 512)) -> np.ndarray:
        frame = np.full((*size, 3), 128, np.uint8)
        for picture, x, y in pictures:
            frame[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return frame

    return placed


@pytest.fixture(scope="session")
def track():
    """The faces of a video: one whose box, 40 wide and 50 high, has its corner at x, y; nan: it is not seen."""

    def track(*places: tuple[float, float], size=(128, 192), fps=25.0) -> Faces:
        mesh = np.stack([face_in(*np.nan_to_num(place), 40, 50).mesh for place in places])[:, None]
        confidence = np.isfinite(np.array(places)).all(-1)[:, None].astype(np.float32)
        return Faces(mesh, confidence, *size, fps)

    return track
