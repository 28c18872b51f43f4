"""Measures of faces whose opening and direction are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from animagic.faces import Face, eye_opening, face_in, find_faces, follow_faces, head_pose, mouth_opening
from animagic.faces.face import LEFT_EYE, LEFT_LIDS, LIPS, RIGHT_EYE
from animagic.media import read_video


def test_the_mouth_is_as_open_as_it_is(turned):
    face = turned()
    mesh = face.mesh.copy()
    eyes = np.linalg.norm(mesh[LEFT_EYE[0]] - mesh[RIGHT_EYE[0]])
    mesh[LIPS[1]] = mesh[LIPS[0]] + np.array([0, 0.25 * eyes, 0])
    assert mouth_opening(replace(face, mesh=mesh)) == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize("measure", [mouth_opening, eye_opening])
def test_openings_do_not_depend_on_direction_and_size(turned, measure):
    assert measure(turned(yaw=40, pitch=-20, roll=30, size=37)) == pytest.approx(measure(turned()), abs=1e-4)


def test_eyes_are_told_apart(turned):
    face = turned()
    mesh = face.mesh.copy()
    mesh[LEFT_LIDS[1]] = mesh[LEFT_LIDS[0]]
    right, left = eye_opening(Face(mesh, 1.0))
    assert left == 0
    assert right == pytest.approx(eye_opening(face)[0])


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 0, 0), (0, 25, 0), (0, 0, -50), (-60, 20, 30), (90, 0, 0)])
def test_the_head_looks_where_it_was_turned(turned, angles):
    assert head_pose(turned(*angles)) == pytest.approx(angles, abs=0.1)


def test_an_open_mouth_does_not_turn_the_head(turned):
    mesh = turned(20, 10, 5).mesh.copy()
    mesh[mesh[:, 1] > mesh[LIPS[0], 1]] += (0, 20, 0)
    assert head_pose(Face(mesh, 1.0)) == pytest.approx((20, 10, 5), abs=0.1)


def test_who_looks_to_the_right_in_the_mirror_looks_left(astronaut):
    there, back = (head_pose(find_faces(np.ascontiguousarray(one))[0]) for one in (astronaut, astronaut[:, ::-1]))
    assert there * (-1, 1, -1) == pytest.approx(back, abs=3)


@pytest.mark.parametrize("measure", [mouth_opening, eye_opening, head_pose])
def test_a_face_that_nobody_has_seen_has_no_measures(moving, measure):
    assert np.isnan(measure(face_in(0, 0, 10, 10))).all()
    measured = measure(moving(100.0, np.nan))
    assert np.isfinite(measured[0]).all()
    assert np.isnan(measured[1]).all()


def test_the_mouth_follows_what_is_said(samples):
    """The video was made with a known opening of the jaw; lips round and spread besides."""
    jaw = json.loads((samples / "talking_anny_controls.json").read_text())["controls_per_frame"]["jaw_open"]
    faces = follow_faces(read_video(samples / "talking_anny_256_25fps.mp4").frames, 25.0)
    opening = mouth_opening(faces)[:, 0]
    late = {lag: np.corrcoef(np.roll(jaw, lag)[5:-5], opening[5:-5])[0, 1] for lag in range(-4, 5)}
    assert late[0] > 0.85
    assert max(late, key=late.get) == 0
