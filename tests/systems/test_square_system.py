"""What a new system gets for nothing: a registry row, an options class and a denoiser are all that it brings.

The system: a square moves over a dark ground; there is no network, and its latents are the pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from annotated_types import Ge, Le

import animagic
from animagic import requests, systems, zoo
from animagic.media import Sound, read_image, read_metadata, read_sound, read_video
from animagic.pipelines.base import Sampling, VideoPipeline
from animagic.pipelines.job import Job
from animagic.pipelines.options import Option, VideoOptions
from animagic.pipelines.voices import mixed
from animagic.systems import System


class SquareOptions(VideoOptions):
    speed: Annotated[int, Ge(0), Le(8), Option("Pixels that the square moves in a frame.")] = 1


class SquarePipeline(VideoPipeline):
    sampling = Sampling(num_frames=8, height=32, width=32, fps=12, num_inference_steps=4)

    def denoiser(self, prompt, plan, sampling, *, speed=1):
        colour = torch.tensor([1.0, -1.0, -1.0] if "red" in prompt else [-1.0, -1.0, 1.0])

        def velocity(latents, window):
            picture = torch.full_like(latents, -1)
            for i, frame in enumerate(window.frames):
                picture[:, :, i, 12:20, speed * frame : speed * frame + 8] = colour[:, None, None]
            left = 1 - torch.tensor(window.levels) / plan.num_steps
            return (picture - latents) / left.clamp_min(1e-6)[:, None, None]

        return velocity


SQUARE = System(
    name="square",
    title="Square",
    options=SquareOptions,
    job=Job,
    classes={"SquarePipeline": SquarePipeline},
    pipelines={"text": "SquarePipeline"},
)


@pytest.fixture
def square(tmp_path_factory, monkeypatch):
    """The system is registered, and its model has a name."""
    monkeypatch.setitem(systems.SYSTEMS, "square", SQUARE)
    folder = tmp_path_factory.mktemp("square")
    SquarePipeline().save_pretrained(folder)
    monkeypatch.setattr(zoo, "_MODELS", dict(zoo._MODELS))
    zoo.register("square-tiny", folder, "a square that moves")


@pytest.fixture
def square_run(square, run):
    return lambda *words: run(*words, "--model", "square-tiny") if words[0] in ("generate", "plan") else run(*words)


def left_edges(frames: np.ndarray) -> list[int]:
    """Of the bright part of each frame."""
    return [int((frame.max(-1) > 128).any(0).argmax()) for frame in frames]


def test_it_generates_and_its_option_works(square_run):
    ran = square_run("generate", "a red square", "-o", "a.mp4", "--speed", 2, "--seed", 7, "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["frames"] == 8
    frames = read_video("a.mp4").frames
    assert left_edges(frames) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert frames[0][16, 4, 0] > 200 > 60 > frames[0][16, 4, 2]


def test_its_flag_is_in_the_help_with_its_text(square_run, run):
    shown = square_run("generate", "--help").out
    assert "--speed" in shown
    assert "Pixels that the square moves" in shown
    assert "--loop" not in shown, "that is another system's"
    assert "Only Square" in run("generate", "--help").out


def test_its_values_are_checked_and_options_of_others_refused(square_run, run):
    square_run("generate", "a square", "-o", "a.mp4", "--speed", 9).refused("--speed is 9; it must lie between 0 and 8")
    square_run("generate", "a square", "-o", "a.mp4", "--loop").refused("has no --loop")
    run("generate", "a ball", "-o", "a.mp4", "--speed", 2).refused("has no --speed: that is for Square models")
    assert not list(Path().iterdir())


def test_its_plan_is_drawn_and_its_model_listed(square_run):
    ran = square_run("plan", "--frames", 6, "--steps", 3, "--json")
    assert json.loads(ran.out) == {
        "output": "plan.png", "steps": 3, "network_calls": 3, "calls_to_first_frame": 3, "peak_frames": 6, "frames": 6,
    }  # fmt: skip
    assert read_image("plan.png").size
    assert "square-tiny  (square, " in square_run("models").out


def test_it_streams_previews_resumes_and_is_reproduced(square_run, run):
    request = requests.build_request("a red square", "square-tiny", seed=3, speed=1, steps=6)
    pipe = requests.load_pipeline("square-tiny", "cpu")
    previews = []

    def stop(report):
        previews.append(Path("a.png").exists())
        if report.step == 4:
            raise KeyboardInterrupt

    options = {"pipe": pipe, "preview": "a.png", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        requests.generate(request, "a.mp4", on_report=stop, **options)
    assert any(previews)
    assert requests.kept_seed(Path("a.mp4")) == 3
    requests.generate(request, "a.mp4", **options)
    assert [path.name for path in Path().iterdir()] == ["a.mp4"]
    assert read_metadata("a.mp4")["request"]["speed"] == 1
    assert "speed" in run("info", "a.mp4").out
    assert json.loads(run("reproduce", "a.mp4", "--json").out)["equal_frames"] == 8
    chunks = list(animagic.load("square-tiny").stream("a blue square", num_frames=4, output_type="np"))
    assert sum(len(chunk.frames[0]) for chunk in chunks) == 4


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_a_job_may_give_sound_in_memory_which_is_heard_in_time(square, monkeypatch, tmp_path, name):
    """Two voices, each of which claps once."""
    claps = (0.3, 0.55)
    sounds = [np.random.default_rng(0).normal(0, 1e-3, rate).astype(np.float32) for rate in (16_000, 44_100)]
    for sound, clap in zip(sounds, claps, strict=True):
        sound[round(clap * len(sound)) :][:60] = 0.9
    monkeypatch.setattr(Job, "sound", mixed([Sound(sound, len(sound)) for sound in sounds]))
    request = requests.build_request("a red square", "square-tiny", seed=3)
    requests.generate(request, tmp_path / name, device="cpu")
    if name == "a.gif":  # which has none
        return
    heard = read_sound(tmp_path / name, 48_000)
    assert heard.seconds == pytest.approx(8 / 12, abs=0.03)
    for clap in claps:
        near = np.abs(heard.samples[round((clap - 0.1) * 48_000) : round((clap + 0.1) * 48_000)])
        first = np.flatnonzero(near > 0.5 * near.max())[0] / 48_000 + clap - 0.1
        assert near.max() > 0.1
        assert first == pytest.approx(clap, abs=0.02)  # seconds
