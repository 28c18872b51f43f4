"""The measurement of AnimateDiff models, tried on makers of videos whose score is known."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import measure_animatediff as measuring
import numpy as np
import pytest
import torch
from measure_animatediff import contact_sheet, make_cases, measure, parse, table

from animagic import zoo
from animagic.synthetic import held_out, render
from animagic.synthetic.cameras import move_camera
from animagic.synthetic.looks import apply_look
from animagic.systems.animatediff.denoiser import AnimateDiffSampling


class Perfect:
    """Draws what was asked for, in the looks and with the cameras that it is given. It knows a scene by its prompt."""

    reads_motion = True
    sampling = AnimateDiffSampling(height=64, width=64)

    def __init__(self, scenes: dict):
        self.scenes, self.look, self.move, self.plans = scenes, None, None, []

    @contextmanager
    def using_loras(self, loras, motion_loras=None):
        self.look, self.move = (
            next(iter(files or ["."])).split("/")[-1].split(".")[0] for files in (loras, motion_loras)
        )
        yield
        self.look = self.move = None

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.transpose(1, 2)

    def clip(self, scene, seed: int, frames: int, use_motion: bool) -> np.ndarray:
        if self.move:
            clip = move_camera(render(scene, frames, 128, 128, 8), self.move, 64, 64)
        else:
            clip = render(scene, frames, fps=8)
        if self.look:
            clip = apply_look(self.look, clip, seed)
        if not use_motion:
            noise = np.random.default_rng(seed).integers(-20, 21, (frames, 64, 64, 3))
            clip = np.clip(clip.astype(int) + noise, 0, 255).astype(np.uint8)
        return clip

    def __call__(self, prompt, motion_prompt, generator, num_frames, output_type, use_motion=True, **settings):
        assert output_type == "np"
        self.plans.append(self.sampling.changed(num_frames=num_frames).plan(4))
        seeds = [g.initial_seed() for g in generator]
        clips = [
            self.clip(self.scenes[text], seed, num_frames, use_motion) for text, seed in zip(prompt, seeds, strict=True)
        ]
        return SimpleNamespace(frames=np.stack(clips) / 255)


class Deaf(Perfect):
    """Draws something else than what was asked for."""

    def __init__(self, scenes: dict):
        names = list(scenes)
        super().__init__(dict(zip(names, [scenes[name] for name in names[1:] + names[:1]], strict=True)))


@pytest.fixture
def folder(tmp_path):
    """Of a model with a look and a camera move, of which only the names matter here."""
    for name in ("loras/blueprint", "loras/unknown", "motion_loras/pan-left"):
        (tmp_path / f"{name}.safetensors").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.safetensors").touch()
    return tmp_path


def run(maker, folder, monkeypatch, *words):
    monkeypatch.setattr(zoo, "resolve", lambda model: folder)
    monkeypatch.setattr(measuring, "LONG", 40)
    asked = parse(["--cases", "8", "--batch", "3", "--alone", "4", "--long", "1", "--camera-cases", "2", *words])
    cases = make_cases(8, asked.seed) + make_cases(2, asked.seed, still=True)
    pipe = maker({case.prompt: case.scene for case in cases})
    return pipe, *measure(pipe, "model", asked)


def test_what_was_drawn_is_right(folder, monkeypatch):
    pipe, report, sheet = run(Perfect, folder, monkeypatch)
    assert set(report["looks"]) == {"plain", "blueprint"}
    for figures in report["looks"].values():
        assert figures["look"]["percent"] == 100
        assert figures["motion"]["percent"] >= 85
        assert figures["motion"]["chance"] < 40
        assert figures["flicker"]["ratio"] < 0.5
        assert figures["flicker"]["count"] == 4
    assert set(report["looks"]["blueprint"]) == {"motion", "look", "look, frame by frame", "flicker"}
    assert report["looks"]["plain"]["colour"]["percent"] == 100
    assert {plan.moving for plan in pipe.plans if plan.num_frames == 40} == {True, False}
    assert all(0.5 < figures["ratio"] < 1.5 for figures in report["seams"].values())
    assert {name: figure["percent"] for name, figure in report["cameras"].items()} == {"still": 100, "pan-left": 100}
    assert type(pipe.sampling) is AnimateDiffSampling
    assert sheet.shape[0] > 8 * 80
    assert all(figures["motion"]["percent"] >= 75 for figures in report["drawn"].values())
    assert report["drawn"]["blueprint"]["look"] == {"percent": 100, "interval": [94.3, 100.0], "count": 64}
    assert "| blueprint | 100 % |" in table(report)
    assert table(report).count("\n| ") == 4


def test_what_ignores_the_prompt_is_found_out(folder, monkeypatch):
    _, report, _ = run(Deaf, folder, monkeypatch, "--long", "0", "--camera-cases", "0")
    figures = report["looks"]["plain"]
    assert max(figures[name]["percent"] for name in ("motion", "shape", "background")) < 50
    assert "seams" not in report
    assert "cameras" not in report


def test_cases_are_held_out_and_always_the_same():
    cases = make_cases(20, 200_000)
    assert cases == make_cases(30, 200_000)[:20]
    for case in cases:
        thing = case.scene.things[0]
        assert held_out(thing.shape, thing.colour, thing.motion.name)
        assert case.prompt == case.motion
    apart = make_cases(20, 200_000, "apart")
    assert [case.scene for case in apart] == [case.scene for case in cases]
    assert all(case.motion not in case.prompt for case in apart)
    assert all(case.scene.things[0].motion.name == "stays still" for case in make_cases(4, 7, still=True))


def test_the_sheet_shows_what_is_wrong():
    row = {"prompt": "a", "motion prompt": "b", "said": {"motion": "falls"}, "truth": {"motion": "rises"}}
    video = np.zeros((16, 64, 64, 3), np.uint8)
    wrong = contact_sheet({"plain": ([row], [video])})
    right = contact_sheet({"plain": ([row | {"truth": {"motion": "falls"}}], [video])})
    assert wrong.shape == right.shape
    assert (wrong != right).any()


def test_the_settings_of_still_windows():
    still = measuring.StillWindows(**dataclasses.asdict(AnimateDiffSampling(num_frames=40)))
    plan = still.plan(4)
    assert plan.windows_at(0) == plan.windows_at(3)
