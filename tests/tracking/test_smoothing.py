"""What is smoothed keeps its course; gaps are filled where they are short."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.tracking import filled, fitted, gaps

TIMES = np.arange(40.0)


def test_a_parabola_stays_as_it_is_and_noise_goes():
    course = np.stack([0.1 * TIMES**2, 3 - TIMES], -1)[:, None]
    noise = np.random.default_rng(0).normal(size=course.shape)
    weights = np.ones((40, 1))
    assert fitted(course, weights, 2.0) == pytest.approx(course, abs=1e-4)
    assert np.std((fitted(course + noise, weights, 3.0) - course)[5:-5]) < 0.6 * np.std(noise)


def test_what_has_no_weight_stays_and_does_not_count():
    points, weights = np.zeros((40, 2, 1)), np.ones((40, 2))
    points[20], weights[20, 0] = 100, 0
    result = fitted(points, weights, 2.0)
    assert result[20, 0] == 100
    assert result[np.arange(40) != 20, 0] == pytest.approx(0, abs=1e-6)
    assert result[19, 1] > 5


def test_short_gaps_are_filled_along_lines_and_long_ones_are_not():
    points, confidence = TIMES[:, None, None].copy(), np.ones((40, 1))
    seen = np.ones((40, 1), bool)
    for gap in (slice(0, 2), slice(5, 8), slice(20, 25)):
        points[gap], confidence[gap], seen[gap] = -1, 0, False
    points, confidence = filled(points, confidence, seen, longest=3)
    assert points[5:8, 0, 0] == pytest.approx([5, 6, 7])
    assert confidence[4:9, 0].tolist() == [1, 0.5, 0.5, 0.5, 1]
    assert (points[20:25] == -1).all()
    assert not confidence[20:25].any()
    assert not confidence[:2].any()


def test_what_is_filled_has_some_confidence():
    confidence, seen = np.array([[0.1], [0.0], [0.1]]), np.array([[True], [False], [True]])
    assert filled(np.zeros((3, 1, 1)), confidence, seen, 1, least=0.08)[1][1] == 0.08


def test_gaps_are_told_in_seconds():
    seen = np.array([0, 0, 1, 1, 0, 1, 0], bool)
    assert gaps(seen, 2.0) == [(0, 1), (2, 2.5), (3, 3.5)]
    assert gaps(np.ones(3, bool), 2.0) == []
    assert gaps(np.zeros(4, bool), 2.0) == [(0, 2)]
