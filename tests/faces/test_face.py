"""Faces as data: boxes, and the mean face in a box that somebody gives."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.faces import face_in
from animagic.faces.face import BELOW_NOSE, LEFT_EYE, LIPS, RIGHT_EYE, mean_face


def test_the_mean_face_is_symmetric():
    mirrored = mean_face() * (-1, 1, 1)
    apart = np.linalg.norm(mirrored[:, None] - mean_face()[None], axis=-1)
    assert apart.min(1).max() < 1e-6


def test_the_mean_face_has_everything_in_its_place():
    x, y, z = mean_face().T
    assert x[RIGHT_EYE[0]] < x[RIGHT_EYE[1]] < 0 < x[LEFT_EYE[1]] < x[LEFT_EYE[0]]
    assert y[LEFT_EYE[0]] < y[BELOW_NOSE] < y[LIPS[0]] <= y[LIPS[1]]
    assert z[BELOW_NOSE] < z[LEFT_EYE[0]]  # the nose is in front


def test_a_given_face_fills_its_box():
    face = face_in(10, 20, 60, 90)
    assert face.box == pytest.approx((10, 20, 60, 90), abs=1e-3)
    assert face.confidence == 0


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, -1)])
def test_an_empty_box_is_named(width, height):
    with pytest.raises(InputError, match=f"box of {width}x{height} pixels is empty"):
        face_in(0, 0, width, height)


def test_a_face_of_a_video_is_there_only_where_it_is_seen(moving):
    faces = moving(100.0, np.nan)
    assert faces.at(1, 0) is None
    assert faces.at(0, 0).box == pytest.approx(faces.box[0, 0])
