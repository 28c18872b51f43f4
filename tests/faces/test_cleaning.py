"""Smoothing takes the noise and leaves the movement; gaps are filled if they are short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.faces import Faces, smoothed


def test_noise_falls_by_half(moving):
    faces = moving(*np.linspace(100, 150, 40))
    noise = np.random.default_rng(0).normal(0, 1, faces.mesh.shape).astype(np.float32)
    error = smoothed(replace(faces, mesh=faces.mesh + noise), 0.08).mesh - faces.mesh
    assert error[4:-4].std() < 0.6


def test_an_even_movement_stays_as_it_is(moving):
    faces = moving(*(100 + 0.1 * np.arange(20.0) ** 2))
    assert smoothed(faces, 0.06).mesh == pytest.approx(faces.mesh, abs=0.01)


def test_lips_that_shut_for_two_frames_shut(moving):
    faces = moving(*np.where(np.isin(np.arange(20), (9, 10)), 100.0, 110.0))
    assert smoothed(faces).mesh[9:11, 0, :, 0].mean() - faces.mesh[9, 0, :, 0].mean() < 1.5


def test_short_gaps_are_filled_along_a_line(moving):
    faces = smoothed(moving(100.0, np.nan, np.nan, 130.0), 0)
    assert faces.box[:, 0, 0] - faces.box[0, 0, 0] == pytest.approx((0, 10, 20, 30), abs=1e-3)
    assert faces.confidence[:, 0] == pytest.approx((1, 0.5, 0.5, 1))


def test_long_gaps_and_the_ends_stay_empty(moving):
    faces = smoothed(moving(np.nan, 100.0, *[np.nan] * 5, 130.0, np.nan), 0.03, longest_gap=4 / 25)
    assert (faces.confidence[:, 0] > 0).tolist() == [False, True, *[False] * 5, True, False]


def test_no_faces_stay_no_faces(moving):
    faces = moving(100.0, 101.0)
    nobody = replace(faces, mesh=faces.mesh[:, :0], confidence=faces.confidence[:, :0])
    assert smoothed(nobody).mesh.shape == (2, 0, 468, 3)


def test_negative_lengths_are_named(moving):
    with pytest.raises(InputError, match=r"over -1 s with gaps of 0\.5 s"):
        smoothed(moving(100.0), -1)


def test_a_video_of_nobody_stays_empty():
    nobody = Faces(np.zeros((5, 0, 468, 3), np.float32), np.zeros((5, 0), np.float32), 64, 64, 25.0)
    assert smoothed(nobody).mesh.shape == (5, 0, 468, 3)
