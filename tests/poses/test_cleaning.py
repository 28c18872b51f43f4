"""Smoothing against a truth with noise; gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.poses import Poses, smoothed


@pytest.fixture
def moving(stand):
    """Makes somebody who moves by a few slow waves for 4 seconds."""

    def moving(fps: float) -> Poses:
        rng = np.random.default_rng(0)
        time = np.arange(round(4 * fps)) / fps
        points = np.repeat(stand().points, len(time), 0)
        for speed in (0.3, 0.8, 1.5):
            far, start = rng.normal(size=(33, 3)) * 8 / (1 + speed), rng.uniform(0, 6, (33, 3))
            points[:, 0] += far * np.sin(2 * np.pi * speed * time[:, None, None] + start)
        return Poses(points, np.ones(points.shape[:3], np.float32), 256, 256, fps)

    return moving


def noisy(truth: Poses, size: float = 2.0) -> Poses:
    rng = np.random.default_rng(1)
    confidence = rng.choice([1.0, 0.5, 0.2], truth.confidence.shape).astype(np.float32)
    noise = rng.normal(size=truth.points.shape) * size / np.sqrt(confidence[..., None])
    return replace(truth, points=(truth.points + noise).astype(np.float32), confidence=confidence)


def error(poses: Poses, truth: Poses, frames=slice(None)) -> float:
    return float(np.linalg.norm((poses.points - truth.points)[frames, ..., :2], axis=-1).mean())


@pytest.mark.parametrize(("fps", "most"), [(12, 0.85), (25, 0.6), (60, 0.45)])
def test_noise_is_taken_away(moving, fps, most):
    truth = moving(fps)
    given = noisy(truth)
    assert error(smoothed(given), truth) < most * error(given, truth)


def test_what_has_no_noise_stays(moving):
    truth = moving(25)
    assert error(smoothed(truth), truth) < 0.1


def test_it_does_not_lag_behind(moving):
    truth = moving(25)
    late = replace(truth, points=np.roll(truth.points, 1, 0))
    found = smoothed(noisy(truth, 0.5))
    inner = slice(5, -5)
    assert error(found, truth, inner) < 0.5 * error(found, late, inner)


def test_a_frame_with_left_and_right_exchanged_is_mended(moving):
    truth = moving(25)
    points = truth.points.copy()
    points[50, :, 11:] = points[50, :, 11:].reshape(1, 11, 2, 3)[:, :, ::-1].reshape(1, 22, 3)
    assert error(replace(truth, points=points), truth, 50) > 20
    assert error(smoothed(replace(truth, points=points)), truth, 50) < 1


def test_a_short_gap_is_filled(moving):
    truth = moving(25)
    confidence = truth.confidence.copy()
    confidence[40:46] = 0
    found = smoothed(replace(truth, points=truth.points * (confidence[..., None] > 0), confidence=confidence))
    assert error(found, truth, slice(40, 46)) < 4
    assert (found.confidence[40:46] > 0.1).all()
    assert (found.confidence[40:46] < 1).all()


def test_a_long_gap_stays_empty(moving):
    truth = moving(25)
    confidence = truth.confidence.copy()
    confidence[40:60, 0, :10] = 0
    confidence[:3], confidence[-3:] = 0, 0
    found = smoothed(replace(truth, confidence=confidence))
    assert not found.confidence[40:60, 0, :10].any()
    assert not found.confidence[:3].any()
    assert not found.confidence[-3:].any()
    assert (found.confidence[40:60, 0, 10:] == 1).all()
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_brief_videos(moving, frames):
    truth = moving(25)
    brief = replace(truth, points=truth.points[:frames], confidence=truth.confidence[:frames])
    assert error(smoothed(brief), brief) < 0.5


def test_nobody(moving):
    truth = moving(25)
    nobody = replace(truth, points=truth.points[:, :0], confidence=truth.confidence[:, :0])
    assert smoothed(nobody).points.shape == (100, 0, 33, 3)


def test_negative_lengths_are_refused(moving):
    with pytest.raises(InputError, match="0 or more"):
        smoothed(moving(25), seconds=-1)
