"""Masks lie where the face lies, move with it and have the edge that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.faces import face_in, face_mask, mouth_mask
from animagic.faces.face import BELOW_NOSE, LEFT_EYE, LIPS, RIGHT_EYE


def at(mask: np.ndarray, face, point: int) -> float:
    x, y = face.mesh[point, :2].round().astype(int)
    return float(mask[y, x])


def middle(mask: np.ndarray) -> tuple[float, float]:
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    return float((mask * x).sum() / mask.sum()), float((mask * y).sum() / mask.sum())


def test_a_face_mask_covers_the_face_alone(turned):
    face = turned(yaw=30, roll=20)
    mask = face_mask(face, 256, 256)
    assert (mask.shape, mask.dtype) == ((256, 256), np.float32)
    assert min(at(mask, face, point) for point in range(468)) > 0.9
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0


def test_a_mouth_mask_covers_lips_and_chin_but_no_eyes(turned):
    face = turned(yaw=-20)
    mask = mouth_mask(face, 256, 256)
    assert min(at(mask, face, point) for point in (*LIPS, 61, 291, 152)) > 0.9
    assert max(at(mask, face, point) for point in (*LEFT_EYE, *RIGHT_EYE, 10)) < 0.01
    assert (mask <= face_mask(face, 256, 256) + 0.01).all()


@pytest.mark.parametrize("make", [face_mask, mouth_mask])
def test_a_mask_moves_by_parts_of_a_pixel(turned, make):
    here, there = (middle(make(turned(x=x), 256, 256)) for x in (100, 100.5))
    assert there[0] - here[0] == pytest.approx(0.5, abs=0.1)
    assert there[1] == pytest.approx(here[1], abs=0.05)


def test_a_mask_grows_by_its_share(turned):
    face = turned()
    wide = [(face_mask(face, 256, 256, 0, grow)[128] > 0.5).sum() for grow in (0, 0.1)]
    assert wide[1] - wide[0] == pytest.approx(2 * 0.1 * face.box[2:].mean(), abs=2)


def test_the_edge_is_as_soft_as_asked(turned):
    face = turned()
    soft = [face_mask(face, 256, 256, feather)[128, :128] for feather in (0, 0.2)]
    between = [((row > 0.02) & (row < 0.98)).sum() for row in soft]
    assert between[0] <= 2
    assert between[1] == pytest.approx(0.2 * face.box[2:].mean(), abs=4)
    assert abs(int((soft[0] > 0.5).sum()) - int((soft[1] > 0.5).sum())) <= 1  # half of it lies outside


@pytest.mark.parametrize("make", [face_mask, mouth_mask])
def test_a_box_is_enough(make):
    mask = make(face_in(40, 60, 80, 100), 200, 160)
    y, x = np.nonzero(mask > 0.5)
    assert 25 < x.min() < x.max() < 135
    assert 45 < y.min() < y.max() < 175
    assert mask[150, 80] > 0.9  # the chin


def test_a_mask_ends_where_the_frame_ends(turned):
    mask = face_mask(turned(x=10), 200, 100)
    assert mask.shape == (200, 100)
    assert mask[128, 0] == 1
    assert face_mask(turned(x=-300), 200, 100).max() == 0


def test_what_cannot_be_is_named(turned):
    with pytest.raises(InputError, match="0x5"):
        face_mask(turned(), 0, 5)
    with pytest.raises(InputError, match="edge of -1"):
        mouth_mask(turned(), 5, 5, feather=-1)


def test_the_depth_of_a_mesh_does_not_matter(turned):
    face = turned()
    flat = replace(face, mesh=face.mesh * (1, 1, 0))
    assert (face_mask(flat, 256, 256) == face_mask(face, 256, 256)).all()
    assert face.mesh[BELOW_NOSE, 2] != 0
