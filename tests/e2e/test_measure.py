"""The measurement of models, tried on makers of videos whose score is known."""

from __future__ import annotations

from types import SimpleNamespace

import measure
import numpy as np
import pytest
import torch
from measure import GIVEN, Case, angle, contact_sheet, make_cases, psnr, share, summarise, wilson

from animagic.synthetic import held_out, render, sample_scene

TASKS = ("text", "image", "video", "reconstruct")


class Perfect:
    """Renders what was asked for. It knows the scene by the seed of the generator."""

    sampling = SimpleNamespace(chunk_width=6, temporal_downsample_factor=4, scale_factor=1.0)

    def __init__(self, cases: list[Case]):
        self.scenes = {case.seed: case.scene for case in cases}
        self.vae = SimpleNamespace(dtype=torch.float32, decode=lambda video: SimpleNamespace(sample=video))

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1

    def scene(self, seed: int):
        return self.scenes[seed]

    def __call__(self, prompt, generator, prefix_latents, num_frames, output_type):
        assert output_type == "np"
        assert len(prompt) == len(generator)
        start = GIVEN if prefix_latents is not None and prefix_latents.shape[2] > 1 else 0
        videos = [render(self.scene(g.initial_seed()), num_frames, start=start) for g in generator]
        return SimpleNamespace(frames=np.stack(videos) / 255)


class Deaf(Perfect):
    """Renders something, whatever was asked for."""

    def scene(self, seed: int):
        rng = np.random.default_rng(seed + 1_000_000)
        while True:
            scene = sample_scene(rng)
            if len(scene.things) == 1 and scene.camera == "still":
                return scene


def rows_of(maker, task: str, count: int = 24, frames: int = 24):
    cases = make_cases(count, 100_000, task)
    return measure.measure(maker(cases), task, cases, frames, 10, {})


@pytest.mark.parametrize("task", TASKS)
def test_what_was_drawn_is_right(task):
    rows, videos = rows_of(Perfect, task)
    assert len(rows) == len(videos) == 24
    summary = summarise(rows)
    if task != "video":  # a thing may leave the picture while it goes on, and come back
        assert min(summary[name]["percent"] for name in ("colour", "shape", "motion", "background")) >= 95
    if task in ("image", "reconstruct"):
        assert summary["psnr"]["mean"] > 50
        assert summary["psnr of 24 dB or more"]["percent"] == 100
    if task == "video":
        assert summary["under 30 degrees"]["percent"] >= 95
        assert summary["degrees"]["median"] < 5


def test_what_ignores_the_prompt_scores_by_chance():
    rows, _ = rows_of(Deaf, "text", count=60)
    summary = summarise(rows)
    for name in ("colour", "shape", "motion", "background"):  # of 8, 9, 13 and 24: uneven, but never half
        assert summary[name]["percent"] < 30
    assert summary["all four"]["percent"] == 0


def test_what_ignores_the_picture_or_the_clip_is_found_out():
    pictures, _ = rows_of(Deaf, "image", count=12)
    assert summarise(pictures)["psnr of 24 dB or more"]["percent"] < 30
    clips, _ = rows_of(Deaf, "video", count=24)
    assert summarise(clips)["under 30 degrees"]["percent"] < 60


def test_cases_are_held_out_and_always_the_same():
    cases = make_cases(40, 100_000)
    assert cases == make_cases(60, 100_000)[:40]
    assert [case.seed for case in cases] == list(range(100_000, 100_040))
    for case in cases:
        thing = case.scene.things[0]
        assert held_out(thing.shape, thing.colour, thing.motion.name) == (case.split == "test")
        assert len(case.scene.things) == 1
        assert case.scene.camera == "still"
    assert sum(case.split == "test" for case in cases) == 20
    assert 0.7 < np.mean([case.tells_where for case in make_cases(200, 100_000)]) < 0.95
    assert all(case.scene.things[0].motion.name in measure.STRAIGHT for case in make_cases(10, 100_000, "video"))


def test_intervals_and_angles():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 0) == (0, 1)
    assert share([True, False])["percent"] == 50
    assert angle((1, 0), (0, 1)) == pytest.approx(90)
    assert angle((-1, 0.1), (-1, -0.1)) == pytest.approx(11.4, abs=0.1)
    assert angle((1, 0), (0.01, 0)) == 180
    assert psnr(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 0


def test_the_sheet_shows_captions_and_frames():
    rows, videos = rows_of(Perfect, "text", count=4)
    sheet = contact_sheet(rows, videos, count=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 2 * 96
    assert sheet.shape[1] > 2 * 5 * 96


def test_confusion_counts_every_row():
    rows, _ = rows_of(Deaf, "text", count=10)
    table = measure.confusion(rows, "shape")
    assert sum(sum(said.values()) for said in table.values()) == 10
    assert set(table) == {row["truth"]["shape"] for row in rows}
