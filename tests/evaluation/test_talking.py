"""The suites of talking people, tried on pipelines whose score is known: they draw the truth, or something else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from talking_models import talking_pipeline

from animagic.errors import InputError
from animagic.evaluation import SUITES, Variant, evaluate, page, sheet, speech_plot, table
from animagic.evaluation import talking as suite
from animagic.evaluation.running import reconstruct
from animagic.evaluation.speaking import Heard
from animagic.evaluation.talking import KINDS, PAIR, TalkCase, in_frames, openings, talk_cases, talking_of
from animagic.speech import Phone
from animagic.systems.magicinfinite.denoiser import MagicInfiniteSampling

SIDE, SHORT = 96, 29


@pytest.fixture(autouse=True)
def a_voice(monkeypatch):
    """A second of one vowel after 0.3 s, in place of a synthesiser."""
    samples = np.zeros(80_000, np.float32)
    samples[4_800:12_800] = 0.3 * np.sin(0.1 * np.arange(8_000))
    monkeypatch.setattr(suite, "_heard", lambda seed, seconds: Heard(samples, (Phone("AA1", 0.3, 0.8),)))
    talking_of.cache_clear()
    yield
    talking_of.cache_clear()


class Actor:
    """A pipeline that draws the truth, changed by a function of (truth, photo)."""

    def __init__(self, change=lambda truth, photo: truth):
        self.sampling, self.change = MagicInfiniteSampling(height=SIDE, width=SIDE, fps=25), change
        self.cases = {case.seed: case for case in talk_cases(3, suite.SEED, ("one person", PAIR))}

    def plan(self, num_frames=None, num_inference_steps=None):
        return self.sampling.plan_for(num_frames, num_inference_steps or 4)

    def encode_frames(self, frames):
        return frames

    def decode_frames(self, latents):
        return np.concatenate([latents[:1]] * 3 + [latents])[None] / 255

    def prepare(self, call, voices=(), masks=None):
        raise NotImplementedError

    def __call__(self, prompt, *, image, voices, masks, num_frames, height, width, generator, output_type, **settings):
        assert (image.size, num_frames, output_type) == ((SIDE, SIDE), SHORT, "np")
        assert len(voices) == len(masks)
        assert sum(voice.any() for voice in voices) == 1
        truth = talking_of(self.cases[generator.initial_seed()], num_frames, height, width, 25.0).truth
        return SimpleNamespace(frames=[self.change(truth, np.asarray(image)) / 255])


def result_of(change=lambda truth, photo: truth):
    suite_of_one = replace(SUITES["talk"], variants=lambda *_: [Variant("model")], splits=("one person", PAIR))
    return evaluate(Actor(change), suite_of_one, model="actor", count=2, frames=SHORT, batch=1)


@pytest.fixture
def truth():
    return result_of()


def test_what_is_true_is_right(truth):
    summary = truth.report["summary"]["model"]
    assert summary["sync"]["mean"] > 0.9
    assert summary["offset"]["mean"] == 0
    assert summary["shut in silence"]["percent"] == 100
    assert summary["the other one shut"]["percent"] == 100
    assert summary["identity of 0.6 or less"]["percent"] == 100
    assert summary["background psnr"]["mean"] == 99
    assert "drift" not in summary
    assert set(truth.report["by split"]["model"]) == {"one person", PAIR}
    text = table(truth.report)
    assert "Targets: sync 0.7" in text
    assert sheet(truth).ndim == 3
    assert "<table>" in page(truth)


def test_a_photo_does_not_speak():
    summary = result_of(lambda truth, photo: np.broadcast_to(photo, truth.shape)).report["summary"]["model"]
    assert summary["sync"]["mean"] < 0.5
    assert summary["background flicker"]["mean"] == 0


def test_who_comes_late_is_found_late():
    late = result_of(lambda truth, photo: truth[np.maximum(np.arange(len(truth)) - 3, 0)])
    assert late.report["summary"]["model"]["offset"]["mean"] == pytest.approx(3, abs=0.5)


def test_nobody_is_nobody():
    rows = result_of(lambda truth, photo: np.full_like(truth, 90)).report["rows"]["model"]
    assert {row["seen"]["expression"] for row in rows} == {"not seen"}
    assert all(row["values"]["face seen"] == row["values"]["sync"] == 0 for row in rows)
    assert all("identity" not in row["values"] for row in rows)


def test_cases_do_not_depend_on_the_count_and_take_turns():
    few, many = talk_cases(3, 7, KINDS), talk_cases(12, 7, KINDS)
    assert few == many[:3]
    assert {case.split for case in many} == set(KINDS)
    assert {case.expression for case in many} == {"neutral", "smiling", "sad", "angry", "surprised"}
    assert all(len(case.people) == (2 if case.split == PAIR else 1) for case in many)
    assert all((abs(case.yaw) > 20) == (case.split == "turned away") for case in many)
    assert all(case.people[0].kind == ("head" if case.split == "realistic" else "drawn") for case in many)
    assert any("smil" in case.prompt or "happy" in case.prompt for case in many)


def test_the_photo_has_a_face_and_nobody_has_none():
    case = next(case for case in talk_cases(9, 3) if isinstance(case, TalkCase))
    drawn = talking_of(case, SHORT, SIDE, SIDE, 25.0)
    assert drawn.photo.shape == (SIDE, SIDE, 3)
    assert drawn.masks.shape == (1, SIDE, SIDE)
    assert 0.2 < drawn.place(0)[0] < 0.8
    nobody = suite.follow_faces(np.zeros((2, 64, 64, 3), np.uint8), 25)
    assert np.isnan(openings(case, drawn, np.zeros((2, 64, 64, 3), np.uint8), nobody, nobody)[0]).all()


def test_windows_of_latents_are_windows_of_frames():
    assert in_frames([[[0, 1, 2], [2, 3]]]) == [[[0, 8], [5, 12]]]


def test_what_a_decoder_gives_too_many_is_left_out():
    clip = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    assert (reconstruct(Actor(), clip) == clip).all()


def test_only_who_speaks_is_judged():
    dancer = SimpleNamespace(prepare=lambda call, pose_frames=None: None)
    writer = SimpleNamespace(prepare=lambda call, prefix_latents=None: None)
    assert SUITES["talk"].lacking(dancer) == "a portrait and a voice"
    assert SUITES["talk"].lacking(writer) == "a portrait and a voice"
    assert SUITES["text"].lacking(Actor()) == "prompts"
    assert SUITES["people"].lacking(Actor()) == "a photo and a video that moves it"
    assert not SUITES["talk"].lacking(Actor())
    with pytest.raises(InputError, match="a portrait and a voice"):
        evaluate(writer, "talk")


def test_a_mouth_is_drawn_beside_the_sound():
    samples = np.sin(np.arange(16_000) / 20).astype(np.float32)
    half = np.where(np.arange(25) < 12, np.nan, np.arange(25.0))
    picture = speech_plot(samples, {"seen": half, "heard": np.arange(25.0)}, 25)
    assert picture.dtype == np.uint8
    assert picture.shape == (320, 1100, 3)
    assert picture.std() > 5


def test_a_pipeline_is_asked_as_it_wants_to_be(tiny_text_encoder, monkeypatch):
    monkeypatch.setattr(TalkCase, "prompt", "a red ball")  # that encoder reads few words
    pipe = talking_pipeline(tiny_text_encoder, height=64, width=64)
    two = replace(SUITES["talk"], splits=("one person", PAIR))
    rows = evaluate(pipe, two, count=2, frames=13, steps=1, batch=2).report["rows"]
    assert {name: len(some) for name, some in rows.items()} == {"model": 2, "autoencoder": 1, "truth": 1}
    assert rows["truth"][0]["values"]["sync"] > 0.7
    assert "seams" in rows["model"][0]["values"]
