"""The networks find what a picture is known to show; faces keep their places."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from animagic.errors import InputError
from animagic.faces import find_faces, follow_faces
from animagic.faces.blazeface import crop_of
from animagic.faces.face import LEFT_EYE, RIGHT_EYE


def placed(*faces: tuple[np.ndarray, int, int], size=(256, 512)) -> np.ndarray:
    """Pictures put into a grey frame with their corners at x, y."""
    frame = np.full((*size, 3), 128, np.uint8)
    for picture, x, y in faces:
        height, width = picture.shape[:2]
        frame[y : y + height, x : x + width] = picture
    return frame


@pytest.fixture(scope="module")
def portrait(astronaut) -> np.ndarray:
    """(160, 160, 3): the astronaut's head, its nose in the middle."""
    return astronaut[40:200, 144:304]


def test_eyes_lie_where_they_are(astronaut):
    (face,) = find_faces(astronaut)
    eyes = [face.mesh[list(eye), :2].mean(0) for eye in (RIGHT_EYE, LEFT_EYE)]
    assert eyes[0] == pytest.approx((203, 102), abs=2)
    assert eyes[1] == pytest.approx((247, 104), abs=2)
    assert face.confidence > 0.9


@pytest.mark.parametrize("angle", [-40, 40])
def test_a_head_may_lean(astronaut, angle):
    upright = find_faces(astronaut)[0].mesh[:, :2]
    leaning = find_faces(np.asarray(Image.fromarray(astronaut).rotate(angle, Image.Resampling.BILINEAR)))[0]
    back = np.radians(angle)
    turn = np.array([[np.cos(back), -np.sin(back)], [np.sin(back), np.cos(back)]])
    error = (leaning.mesh[:, :2] - 256) @ turn.T + 256 - upright
    assert np.linalg.norm(error, axis=-1).mean() < 3  # pixels; the face is 130 high


def test_a_small_face_is_found(portrait):
    small = np.asarray(Image.fromarray(portrait).resize((48, 48)))
    (face,) = find_faces(placed((small, 300, 100), size=(512, 512)))
    assert face.box[:2] + face.box[2:] / 2 == pytest.approx((324, 124), abs=6)


def test_a_face_that_fills_the_picture_is_found(astronaut):
    assert len(find_faces(astronaut[60:185, 165:285])) == 1


def test_faces_come_by_their_size(portrait):
    small = np.asarray(Image.fromarray(portrait).resize((80, 80)))
    large, little = find_faces(placed((small, 20, 20), (portrait, 300, 40)))
    assert large.box[0] > 300 > little.box[0]
    assert large.box[3] > 1.5 * little.box[3]


def test_a_picture_without_a_face_has_none():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    assert find_faces(noise) == []


def test_faces_keep_their_places(portrait):
    frames = [placed((portrait, x, 30), (portrait[:, ::-1], 340, 60)) for x in range(0, 100, 10)]
    faces = follow_faces(frames, 10.0)
    assert faces.mesh.shape == (10, 2, 468, 3)
    moves = np.ptp(faces.box[..., 0] + faces.box[..., 2] / 2, axis=0)
    assert sorted(moves) == pytest.approx((0, 90), abs=3)


def test_a_face_that_comes_back_has_its_old_place(portrait):
    both, one = placed((portrait, 10, 30), (portrait, 340, 60)), placed((portrait, 10, 30))
    faces = follow_faces([both] * 4 + [one] * 3 + [both] * 4, 4.0)
    away = faces.box[0, :, 0] > 300
    assert (faces.confidence > 0)[:, away].ravel().tolist() == [True] * 4 + [False] * 3 + [True] * 4
    assert (faces.confidence > 0)[:, ~away].all()


def test_a_face_for_one_frame_is_none(portrait):
    nothing = placed()
    faces = follow_faces([nothing] * 5 + [placed((portrait, 10, 30))] + [nothing] * 5, 10.0)
    assert faces.mesh.shape == (11, 0, 468, 3)


def test_frames_are_counted(portrait):
    told = []
    follow_faces([placed((portrait, 10, 30)), placed()], 10.0, lambda *numbers: told.append(numbers))
    assert told == [(1, 1), (2, 0)]


def test_frames_that_cannot_be_are_named(portrait):
    with pytest.raises(InputError, match="no frames"):
        follow_faces([], 10.0)
    with pytest.raises(InputError, match="frame 2 is 100x160, the first 160x160"):
        follow_faces([portrait, portrait[:100]], 10.0)
    with pytest.raises(InputError, match="must be uint8"):
        find_faces(portrait / 255)


def test_a_crop_lies_as_the_eyes_lie(turned):
    crop = crop_of(turned(roll=25, x=80, y=90).mesh)
    assert np.degrees(crop.angle) == pytest.approx(25, abs=0.5)
    assert (crop.x, crop.y) == pytest.approx((80, 90), abs=3)
