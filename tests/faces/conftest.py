"""A mesh made of numbers, and the sample pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from animagic.faces import Face, Faces
from animagic.faces.face import mean_face
from animagic.media import read_image


def turned_face(yaw: float = 0, pitch: float = 0, roll: float = 0, size: float = 100, x=128, y=128) -> Face:
    """The mean face turned by angles in degrees, first by its roll, then by its pitch, then by its yaw."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    mesh = mean_face() @ (about_y @ about_x @ about_z).T * size + np.array([x, y, 0])
    return Face(mesh.astype(np.float32), 1.0)


@pytest.fixture
def turned():
    return turned_face


@pytest.fixture
def moving():
    """A video of one face with its middle at the places x, one a frame; not seen where x is nan."""

    def moving(*places: float, fps: float = 25.0) -> Faces:
        mesh = np.stack([turned_face(x=np.nan_to_num(x)).mesh for x in places])[:, None]
        confidence = np.isfinite(places).astype(np.float32)[:, None]
        return Faces(mesh * confidence[..., None, None], confidence, 256, 256, fps)

    return moving


@pytest.fixture(scope="session")
def samples() -> Path:
    for folder in Path(__file__).parents:
        if (folder / "shared" / "samples").is_dir():
            return folder / "shared" / "samples"
    pytest.skip("the sample files are not here")


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A woman who looks at the camera and smiles: the middles of her eyes are at (203, 102) and (247, 104)."""
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="session")
def anny(samples) -> np.ndarray:
    return read_image(samples / "talking_anny_ref_256.png")
