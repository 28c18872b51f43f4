"""The suites, tried on pipelines whose score is known: they draw what was asked for, or something else."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.evaluation import SUITES, evaluate, sheet, table
from animagic.evaluation.suites import make_cases
from animagic.synthetic import held_out, render
from animagic.synthetic.cameras import move_camera
from animagic.synthetic.styles import apply_style
from animagic.systems.animatediff.denoiser import AnimateDiffSampling

FACTS = ("colour", "shape", "motion", "background")
FILES = {
    "loras": {"blueprint": Path("loras/blueprint.safetensors"), "unknown": Path("loras/unknown.safetensors")},
    "motion_loras": {"pan-left": Path("motion_loras/pan-left.safetensors")},
}


class Drawing:
    """A pipeline that draws what it is asked for, in the style and with the camera of its LoRA. It knows a scene by the
    seed of the noise. shift: it draws the scene of another case."""

    reads_motion = False

    def __init__(self, name: str, count: int, fps: float, shift: int = 0):
        suite = SUITES[name]
        cases = make_cases(count, suite.seed, suite.splits, suite.fits)
        self.scenes = {case.seed: cases[(i + shift) % count].scene for i, case in enumerate(cases)}
        self.sampling = AnimateDiffSampling(height=64, width=64, fps=fps)
        self.given, self.style, self.move, self.plans, self.calls = suite.given, None, None, [], 0

    def encode_frames(self, frames):
        return torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255

    def decode_frames(self, latents):
        return latents.transpose(1, 2)

    @contextmanager
    def using_loras(self, loras, motion_loras=None):
        self.style, self.move = (Path(next(iter(files or ["."]))).stem or None for files in (loras, motion_loras))
        yield
        self.style = self.move = None

    def plan(self, num_frames, num_inference_steps):
        return self.sampling.changed(num_frames=num_frames).plan(num_inference_steps or 4)

    def draw(self, seed, frames, use_motion):
        fps, start = self.sampling.fps, self.given if self.given > 1 else 0
        if self.move:
            clip = move_camera(render(self.scenes[seed], frames, 128, 128, fps), self.move, 64, 64)
        else:
            clip = render(self.scenes[seed], frames, fps=fps, start=start)
        if self.style:
            clip = apply_style(self.style, clip, seed)
        if not use_motion:
            noise = np.random.default_rng(seed).integers(-20, 21, clip.shape)
            clip = np.clip(clip + noise, 0, 255).astype(np.uint8)
        return clip

    def prepare(self, prefix_latents=None, use_motion=True, context_frames=None):
        raise NotImplementedError

    def __call__(self, *, prompt, generator, num_frames, output_type, use_motion=True, prefix_latents=None, **settings):
        assert output_type == "np"
        assert len(prompt) == len(generator)
        assert (prefix_latents is None) == (self.given == 0)
        self.calls += 1
        self.plans.append(self.plan(num_frames, None))
        clips = [self.draw(one.initial_seed(), num_frames, use_motion) for one in generator]
        return SimpleNamespace(frames=np.stack(clips) / 255)


def run(name: str, count: int, fps: float = 24, shift: int = 0, **settings):
    pipe = Drawing(name, count, fps, shift)
    return pipe, evaluate(pipe, name, count=count, batch=10, **FILES, **settings)


@pytest.mark.parametrize("name", ["text", "image", "video", "reconstruct"])
def test_what_was_drawn_is_right(name):
    _, result = run(name, 20, frames=24)
    (summary,) = result.report["summary"].values()
    assert summary["colour"]["count"] == 20
    if name != "video":  # a thing may leave the picture while it goes on, and come back
        assert min(summary[fact]["percent"] for fact in FACTS) >= 95
    if name in ("image", "reconstruct"):
        assert summary["psnr"]["mean"] > 50
        assert summary["psnr of 24 dB or more"]["percent"] == 100
    if name == "video":
        assert summary["under 30 degrees"]["percent"] >= 95
        assert summary["degrees"]["median"] < 5
    (splits,) = result.report["by split"].values()
    assert {split: part["colour"]["count"] for split, part in splits.items()} == {"train": 10, "test": 10}


def test_what_ignores_the_prompt_is_right_by_chance_only():
    _, result = run("text", 40, frames=24, shift=7)
    summary = result.report["summary"]["model"]
    assert max(summary[fact]["percent"] for fact in FACTS) < 30  # of 8, 9, 13 and 24: uneven, but never half
    assert summary["all"]["percent"] == 0
    assert abs(summary["colour"]["percent"] - summary["colour"]["chance"]) < 15
    counts = result.report["confusion"]["model"]["shape"]
    assert sum(sum(seen.values()) for seen in counts.values()) == 40
    assert any(seen.keys() - {asked} for asked, seen in counts.items())


def test_what_ignores_the_picture_or_the_clip_is_found_out():
    _, pictures = run("image", 12, shift=5, frames=24)
    assert pictures.report["summary"]["model"]["psnr of 24 dB or more"]["percent"] < 30
    _, clips = run("video", 24, shift=5)
    assert clips.report["summary"]["model"]["under 30 degrees"]["percent"] < 60


def test_styles_are_compared_with_frames_made_one_by_one_and_with_drawings():
    _, result = run("styles", 8, fps=8)
    summary = result.report["summary"]
    assert list(summary) == [
        name + how for name in ("base", "blueprint") for how in ("", ", frame by frame", ", drawn")
    ]
    for name in ("base", "blueprint"):
        assert summary[name]["style"] == {"percent": 100, "interval": [97.1, 100.0], "count": 128}
        assert summary[name]["motion"]["percent"] >= 85
        assert summary[name]["motion"]["chance"] < 40
        assert summary[f"{name}, drawn"]["motion"]["percent"] == 100
        single = summary[f"{name}, frame by frame"]["flicker"]
        assert single["ratio"] < 0.5
        assert single["ratio"] == pytest.approx(single["of mean"] / single["mean"], abs=2e-3)
        assert summary[f"{name}, frame by frame"]["motion"]["count"] == 2  # a fifth, rounded up
    assert "colour" not in summary["blueprint"]


def test_a_style_that_is_not_the_prompt_s_scene_is_found_out():
    _, result = run("styles", 8, fps=8, shift=1)
    summary = result.report["summary"]["base"]
    assert max(summary[name]["percent"] for name in ("motion", "shape", "background")) < 50


def test_windows_move_and_stand_still():
    pipe, result = run("windows", 1, fps=8, frames=40)
    assert [plan.moving for plan in pipe.plans] == [True, False]
    assert type(pipe.sampling) is AnimateDiffSampling
    for summary in result.report["summary"].values():
        assert 0.5 < summary["change at borders"]["mean"] <= summary["in the worst step"]["mean"] < 1.5
    still, moving = (result.report["summary"][f"{name} windows"] for name in ("still", "moving"))
    assert still["change at borders"] == still["in the worst step"] != moving["in the worst step"]


def test_the_camera_moves_as_its_lora_says():
    _, result = run("camera", 2, fps=8)
    assert {name: part["camera"]["percent"] for name, part in result.report["summary"].items()} == {
        "still": 100,
        "pan-left": 100,
    }
    pipe = Drawing("camera", 2, 8)
    pipe.using_loras = lambda *files: pytest.fail("a model without LoRAs was asked for one")
    with pytest.raises(InputError, match="no motion LoRA"):
        evaluate(pipe, "camera", count=2)


def test_cases_are_held_out_and_always_the_same():
    cases = make_cases(40, 100_000, ("train", "test"))
    assert cases == make_cases(60, 100_000, ("train", "test"))[:40]
    assert [case.seed for case in cases] == list(range(100_000, 100_040))
    for case in cases:
        thing = case.scene.things[0]
        assert held_out(thing.shape, thing.colour, thing.motion.name) == (case.split == "test")
        assert len(case.scene.things) == 1
        assert case.scene.camera == "still"
        assert case.prompt == case.motion_prompt
    assert sum(case.split == "test" for case in cases) == 20
    assert 0.7 < np.mean([case.names_background for case in make_cases(200, 100_000)]) < 0.95
    apart = make_cases(20, 200_000, apart=True)
    assert [case.scene for case in apart] == [case.scene for case in make_cases(20, 200_000)]
    assert all(case.motion_prompt not in case.prompt for case in apart)


def test_a_background_that_the_prompt_leaves_open_is_not_judged():
    _, result = run("text", 20, frames=8)
    named = [case.names_background for case in make_cases(20, 100_000, ("train", "test"))]
    assert 0 < sum(named) < 20
    assert result.report["summary"]["model"]["background"]["count"] == sum(named)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("text", {"seed": -1}, "seed must be at least 0"),
        ("text", {"frames": 4}, "frames must be at least 8"),
        ("text", {"motion_apart": True}, "reads no motion prompt"),
    ],
)
def test_wrong_input_is_refused(name, settings, message):
    with pytest.raises(InputError, match=message):
        evaluate(Drawing("text", 1, 24), name, **settings)


def test_a_suite_that_the_model_cannot_take_names_those_that_it_can():
    pipe = Drawing("text", 1, 24)
    pipe.prepare = lambda prompt=None: None
    with pytest.raises(InputError, match="takes prefix_latents; this one fits text, reconstruct"):
        evaluate(pipe, "video", count=1)


def test_finished_cases_are_not_made_again(tmp_path):
    folder = tmp_path / "report.json.cases"
    pipe = Drawing("text", 6, 24)

    def stop(variant, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(pipe, "text", count=6, frames=8, batch=2, folder=folder, on_progress=stop)
    assert pipe.calls == 2
    assert len(list(folder.iterdir())) == 2  # one a batch
    again = evaluate(pipe, "text", count=6, frames=8, batch=2, folder=folder)
    assert pipe.calls == 3
    whole = evaluate(pipe, "text", count=6, frames=8, batch=2)
    for result in (again, whole):
        del result.report["seconds"]
    assert json.dumps(again.report) == json.dumps(whole.report)
    assert (sheet(again) == sheet(whole)).all()
    with pytest.raises(InputError, match="another evaluation"):
        evaluate(pipe, "text", count=6, frames=9, batch=2, folder=folder)


def test_table_and_sheet_show_every_variant():
    _, result = run("styles", 4, fps=8)
    lines = table(result.report).splitlines()
    assert len(lines[0].split("|")) == len(lines[1].split("|")) == len(lines[3].split("|"))
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {name}" for name in result.report["summary"]]
    picture = sheet(result)
    assert picture.dtype == np.uint8
    assert picture.shape[0] > 2 * 96  # two rows of three variants, of the one case that all have
    assert picture.shape[1] > 3 * 5 * 96
    right = picture.copy()
    result.report["rows"]["base"][0]["right"]["motion"] = False
    assert (sheet(result) != right).any()
