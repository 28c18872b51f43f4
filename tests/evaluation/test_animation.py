"""The suite of animated people, tried on pipelines whose score is known: they draw the truth, or something else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from animagic.errors import InputError
from animagic.evaluation import SUITES, evaluate, sheet, table
from animagic.evaluation.animation import FPS, FRAMES, KNOWN, SEED, VERSION, animation_of, people_cases
from animagic.evaluation.people import classified, groups_of, kept_colours, part_overlap
from animagic.systems.animatediff.denoiser import AnimateDiffSampling

COUNT, SHORT = 3, 8  # cases, frames
SMALL = {"count": COUNT, "frames": SHORT, "batch": 2}


class Actor:
    """A pipeline that draws the truth, changed by a function of (truth, photo, driving)."""

    def __init__(self, change=lambda truth, photo, driving: truth):
        self.sampling, self.change, self.calls = AnimateDiffSampling(height=64, width=64, fps=8), change, []
        self.cases = {case.seed: case for case in people_cases(COUNT, SEED)}

    def plan(self, num_frames, num_inference_steps):
        return self.sampling.changed(num_frames=num_frames).plan(num_inference_steps or 4)

    def encode_frames(self, frames):
        return torch.from_numpy(ndimage.gaussian_filter(frames.astype(np.float32), (0, 0.5, 0.5, 0)))[None] / 255

    def decode_frames(self, latents):
        return latents.permute(0, 1, 4, 2, 3)

    def prepare(self, call, pose_frames=None):
        raise NotImplementedError

    def __call__(self, *, image, video, height, width, generator, output_type, **settings):
        assert (image.size, video.shape, output_type) == ((64, 64), (SHORT, 64, 64, 3), "np")
        self.calls.append(settings)
        truth = animation_of(self.cases[generator.initial_seed()], SHORT, height, width).truth
        return SimpleNamespace(frames=self.change(truth, np.asarray(image), video)[None] / 255)


@pytest.fixture(scope="module")
def perfect():
    return evaluate(Actor(), "people", model="truth", **SMALL)


def summary_of(change):
    return evaluate(Actor(change), "people", **SMALL).report["summary"]["model"]


def test_what_is_true_is_right(perfect):
    summary = perfect.report["summary"]["model"]
    assert summary["part overlap"]["mean"] > 0.95
    assert summary["part overlap of 0.6 or more"]["percent"] == 100
    assert summary["identity colours"]["percent"] == 100
    assert summary["background psnr"]["mean"] == summary["PSNR"]["mean"] == 99
    assert summary["flicker ratio"]["mean"] == 1
    assert summary["flicker where still"]["mean"] < 0.1
    assert (summary["L1"]["mean"], summary["SSIM"]["mean"]) == (0, 1)


def test_what_the_autoencoder_loses_is_known(perfect):
    summary = perfect.report["summary"]
    assert list(summary) == ["model", "from landmarks", "autoencoder", "truth"]
    assert summary["truth"]["PSNR"]["mean"] == 99
    assert summary["autoencoder"]["PSNR"]["mean"] < 40
    assert summary["autoencoder"]["part overlap"]["mean"] > 0.85


def test_a_photo_that_does_not_move_is_found_out():
    summary = summary_of(lambda truth, photo, driving: np.repeat(photo[None], len(truth), 0))
    assert summary["part overlap of 0.6 or more"]["percent"] < 50
    assert summary["flicker ratio"]["mean"] == 0
    assert summary["background psnr"]["mean"] == 99  # the photo has that


def test_the_wrong_place_is_found_out():
    summary = summary_of(lambda truth, photo, driving: np.roll(truth, 4, 2))
    assert summary["part overlap"]["mean"] < 0.6


def test_wrong_colours_are_found_out():
    summary = summary_of(lambda truth, photo, driving: truth[..., ::-1])
    assert summary["identity colours"]["percent"] < 60


def test_flicker_is_found_out():
    noise = np.random.default_rng(0).normal(0, 12, (SHORT, 64, 64, 3))
    summary = summary_of(lambda truth, photo, driving: (truth + noise).clip(0, 255).astype(np.uint8))
    assert summary["flicker ratio"]["mean"] > 1.3
    assert summary["flicker where still"]["mean"] > 5


def test_another_background_is_found_out():
    summary = summary_of(
        lambda truth, photo, driving: np.where((driving == driving[0, 0, 0]).all(-1)[..., None], 128, truth)
    )
    assert summary["background psnr"]["mean"] < 24


def test_settings_reach_the_pipeline():
    pipe = Actor()
    evaluate(pipe, "people", steps=3, guidance=2.0, count=1, frames=SHORT)
    assert pipe.calls[0] == {"num_inference_steps": 3, "guidance_scale": 2.0}


def test_the_report_names_the_version_and_the_sheet_shows_three_rows(perfect):
    assert perfect.report["version"] == VERSION
    assert "from landmarks" in table(perfect.report)
    assert perfect.strips["model"][0].shape == (3 * 64, 6 * 65, 3)
    assert sheet(perfect).shape[0] > 3 * 96


def test_the_suite_is_for_models_that_animate_a_photo():
    plain = Actor()
    plain.prepare = lambda call: None
    with pytest.raises(InputError, match="people needs a model whose pipeline takes a photo and a video that moves it"):
        evaluate(plain, "people", **SMALL)
    with pytest.raises(InputError, match="text needs a model whose pipeline takes prompts; this one fits people"):
        evaluate(Actor(), "text", **SMALL)


def test_cases_are_held_out_and_do_not_depend_on_the_count():
    cases = people_cases(12, SEED)
    assert all(case.movement.held_out for case in cases)
    assert cases[:4] == people_cases(4, SEED)


def test_the_benchmark_is_what_its_version_says():
    """A change here is another benchmark: raise VERSION, and measure again what was measured."""
    suite = SUITES["people"]
    assert (suite.version, suite.seed, suite.count, suite.frames, suite.fps) == (1, 400_000, 60, 24, 12)
    assert (VERSION, SEED, FRAMES, FPS) == (1, 400_000, 24, 12)
    cases = people_cases(8, SEED)
    known = {  # one with each motion, a skirt, half of a body, a drawing
        0: ("dance_b: pale skin, grey hair, purple shirt, orange trousers", (442, 100, 1825, 1658, 208)),
        2: ("wave_both: dark skin, grey hair, pink shirt, grey trousers", (913, 0, 988, 1591, 240)),
        4: ("kick: light skin, pink hair, white shirt, orange shorts", (1502, 53, 617, 665, 237)),
        5: ("squat: brown skin, blond hair, orange shirt, beige skirt", (1087, 97, 995, 1023, 185)),
        6: ("squat: light skin, brown hair, red shirt, grey shorts", (836, 101, 1014, 482, 145)),
        7: ("squat: light skin, red hair, orange shirt, white trousers", (1986, 221, 3079, 2081, 0)),
    }
    for number, (prompt, pixels) in known.items():
        regions = animation_of(cases[number], SHORT, 64, 64).regions
        assert cases[number].prompt == prompt
        assert np.bincount(regions.ravel(), minlength=7)[1:6] == pytest.approx(pixels, abs=20)


# ---- the judge alone ----------------------------------------------------------------------------------------------


def test_the_judge_agrees_with_the_truth_and_bears_blur():
    sharp, blurred = [], []
    for case in people_cases(8, SEED + 50):
        drawn = animation_of(case, 4, 64, 64)
        soft = ndimage.gaussian_filter(drawn.truth.astype(float), (0, 0.5, 0.5, 0)).round().astype(np.uint8)
        for kept, frames in ((sharp, drawn.truth), (blurred, soft)):
            kept.append(part_overlap(frames, drawn.regions, drawn.colours, drawn.background))
    assert np.mean(sharp) > 0.96
    assert min(sharp) > 0.85
    assert np.mean(blurred) > 0.9


def test_materials_of_one_colour_count_as_one():
    red, dark_red, blue = (200, 30, 30), (170, 26, 26), (30, 60, 200)
    assert groups_of({1: red, 2: blue, 3: dark_red}) == {1: 1, 2: 2, 3: 1}


def test_a_colour_in_any_light_is_the_same_material():
    colours = {1: (240, 134, 34), 2: (44, 90, 204)}
    frames = np.full((1, 32, 32, 3), (90, 200, 90), np.uint8)
    background = frames[0].copy()
    frames[0, :8], frames[0, 8:16] = (216, 120, 30), (22, 45, 102)
    found = classified(frames, colours, background)[0]
    assert [np.unique(found[rows]).tolist() for rows in (slice(0, 8), slice(8, 16), slice(17, 32))] == [[1], [2], [0]]


def test_colours_are_kept_or_not_region_by_region():
    regions = np.zeros((2, 32, 32), np.uint8)
    regions[:, 4:12], regions[:, 14:22] = 2, 3
    truth = np.full((2, 32, 32, 3), 100, np.uint8)
    truth[regions == 3] = (200, 40, 40)
    wrong = truth.copy()
    wrong[1][regions[1] == 3] = (40, 40, 200)
    assert kept_colours(wrong, truth, regions, list(KNOWN)) == [True, True, True, False]
