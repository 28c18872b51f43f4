"""Metrics of drawn scenes, as they were before the judges moved into the package, and of toy values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from animagic.evaluation import SUITES, judge
from animagic.evaluation.cameras import camera_motion
from animagic.evaluation.metrics import (
    LIMITS,
    angle,
    chance,
    confusion,
    psnr,
    rate,
    ratios,
    seams,
    summarise,
    wilson,
)
from animagic.evaluation.scenes import direction
from animagic.evaluation.styles import flicker
from animagic.evaluation.suites import make_cases
from animagic.synthetic import render
from animagic.synthetic.styles import apply_style
from animagic.timeline import OverlappingWindows

MOVING = {  # seed -> what the judge measured: confidence, PSNR of the blurred clip, direction
    100_000: ("pink", "ring", "rolls right", "light blue background", 0.97532, 27.12724, (0.87039, 0.00165)),
    100_001: ("yellow", "triangle", "rises", "room", 0.99319, 27.54574, (-0.00044, -0.55655)),
    100_002: ("blue", "ball", "rises", "beige background", 0.98451, 27.32403, (0.00144, -0.87684)),
}
STYLED = {  # seed -> flicker plain, watercolour and blueprint, change at windows' borders, motion of the picture
    200_000: ((0.012270, 0.061433, 0.000551), (1.004065, 1.008280), (-0.017469, 0.004103, -0.000407, 0.000284)),
    200_001: ((0.013536, 0.047825, 0.000070), (0.999718, 1.000055), (-2.357991, -0.000187, -0.000084, -0.000005)),
}


def blur(frames: np.ndarray) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(frames.astype(np.float32), (0, 1, 1, 0))).astype(np.uint8)


def test_moving_scenes_measure_as_before():
    suite = SUITES["video"]
    for case in make_cases(3, 100_000, suite.splits, suite.fits):
        clip = render(case.scene, 24)
        verdict = judge(blur(clip))
        *facts, confidence, similarity, way = MOVING[case.seed]
        assert [verdict.colour, verdict.shape, verdict.motion, verdict.background] == facts
        assert verdict.camera == "still"
        assert verdict.confidence == pytest.approx(confidence, abs=2e-5)
        assert psnr(clip, blur(clip)) == pytest.approx(similarity, abs=2e-5)
        assert direction(blur(clip)) == pytest.approx(way, abs=2e-5)


def test_styled_scenes_measure_as_before():
    for case in make_cases(2, 200_000, apart=True):
        clip = render(case.scene, 16, fps=8)
        styled = {"plain": clip} | {name: apply_style(name, clip, case.seed) for name in ("watercolour", "blueprint")}
        flickers, borders, motion = STYLED[case.seed]
        assert [flicker(blur(one), name) for name, one in styled.items()] == pytest.approx(flickers, abs=2e-6)
        plan = OverlappingWindows(16, 4, size=6, overlap=2)
        assert seams(blur(clip), [plan.windows_at(step) for step in range(4)]) == pytest.approx(borders, abs=2e-6)
        assert camera_motion(blur(clip)) == pytest.approx(motion, abs=2e-5)


def test_intervals_and_angles():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 0) == (0, 1)
    assert rate([True] * 3 + [False] * 4) == {"percent": 42.9, "interval": [15.8, 75.0], "count": 7}
    assert angle((1, 0), (0, 1)) == pytest.approx(90)
    assert angle((-1, 0.1), (-1, -0.1)) == pytest.approx(11.4, abs=0.1)
    assert angle((1, 0), (0.01, 0)) == 180
    assert psnr(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 0


def toy(asked: str, seen: str, value: float, seed: int = 0, **right) -> dict:
    right = {"motion": asked == seen} | right
    return {"seed": seed, "asked": {"motion": asked}, "seen": {"motion": seen}, "right": right, "values": {"x": value}}


def test_chance_and_confusion():
    rows = [toy(asked, seen, 0) for asked, seen in zip("aabbc", "abbbc", strict=True)]
    assert chance(rows, "motion") == 36  # (2 * 1 + 2 * 3 + 1 * 1) / 25
    assert confusion(rows, "motion") == {"a": {"a": 1, "b": 1}, "b": {"b": 2}, "c": {"c": 1}}


def test_rates_means_and_limits(monkeypatch):
    monkeypatch.setitem(LIMITS, "x", ("2 to below 6", 2, 6))
    rows = [toy("a", "a", 1, style=[True, True]), toy("b", "a", 2, style=[True, False]), toy("b", "b", 6)]
    summary = summarise(rows)
    assert summary["motion"] == {"percent": 66.7, "interval": [20.8, 93.9], "count": 3, "chance": 44.4}
    assert (summary["style"]["percent"], summary["style"]["count"]) == (75, 4)  # of all frames
    assert "chance" not in summary["style"]  # no prompt decides it
    assert (summary["all"]["percent"], summary["all"]["count"]) == (66.7, 3)
    assert summary["x"] == {"mean": 3, "median": 2}
    assert summary["2 to below 6"]["percent"] == 33.3


def test_ratios_are_of_the_cases_that_both_have():
    rows = [toy("a", "a", 1, seed=0), toy("a", "a", 3, seed=1), toy("a", "a", 100, seed=2)]
    references = [toy("a", "a", 4, seed=0), toy("a", "a", 4, seed=1)]
    assert ratios(rows, references) == {"x": {"of mean": 2, "ratio": 0.5}}
