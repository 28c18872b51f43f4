"""The nodes for ComfyUI: their inputs are the systems' options, and what they make are videos and frames."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import animagic
from animagic.media import probe, read_image
from animagic.pipelines.options import option_of
from animagic.systems import SYSTEMS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "integrations" / "comfyui"


def run(node, **values) -> tuple:
    """What a node gives out, told what ComfyUI would tell it: a value for every widget, nothing for open sockets."""
    known = {one.id: one.about for one in node.define_schema().inputs}
    assert set(values) <= set(known)
    given = {name: about["default"] for name, about in known.items() if "default" in about}
    return node.execute(**given | values).args


def clip_of(nodes, tmp_path, frames: np.ndarray, fps: float = 12):
    """A VIDEO of ComfyUI."""
    from animagic.media import VideoWriter

    with VideoWriter(tmp_path / "clip.mp4", fps) as writer:
        writer.write(frames)
    return sys.modules["comfy_api.latest"].InputImpl.VideoFromFile(str(tmp_path / "clip.mp4"))


def test_every_system_has_a_node_with_its_options(nodes):
    assert set(nodes) == {
        "AnimagicLoad", "AnimagicStreamPreview", "AnimagicPlan",
        "AnimagicMagi1", "AnimagicAnimatediff", "AnimagicMagicanimate", "AnimagicMagicinfinite",
    }  # fmt: skip
    for row in SYSTEMS.values():
        node = nodes[f"Animagic{row.name.title()}"].define_schema()
        named = {one.id.removesuffix("_2") for one in node.inputs} - {"model", "preview"}
        fields = row.options_class.model_fields
        offered = {name for name, info in fields.items() if option_of(info) is not None and not info.exclude}
        assert named == offered
        assert [output.io_type for output in node.outputs] == ["VIDEO", "IMAGE"]


def test_inputs_have_the_types_bounds_and_words_of_the_options(nodes):
    inputs = {one.id: one for one in nodes["AnimagicAnimatediff"].define_schema().inputs}
    assert inputs["prompt"].about["multiline"]
    assert (inputs["seed"].io_type, inputs["seed"].about["max"]) == ("INT", 2**64 - 1)
    assert inputs["seed"].about["control_after_generate"]
    assert (inputs["frames"].about["min"], inputs["frames"].about["default"]) == (0, 0)
    assert (inputs["guidance"].about["min"], inputs["guidance"].about["max"]) == (-1, 100)
    assert inputs["fit"].about["options"] == ["crop", "pad", "stretch"]
    assert inputs["window_weights"].about["options"] == ["default", "pyramid", "flat"]
    assert (inputs["image"].io_type, inputs["video"].io_type) == ("IMAGE", "VIDEO")
    assert inputs["loras"].io_type == "STRING"
    assert "Frames that neighbouring windows share." in inputs["overlap"].about["tooltip"]
    talk = {one.id: one for one in nodes["AnimagicMagicinfinite"].define_schema().inputs}
    assert [talk[name].io_type for name in ("audio", "audio_2", "mask", "sound")] == ["AUDIO", "AUDIO", "MASK", "COMBO"]


@pytest.mark.integration
def test_a_prompt_becomes_a_video(nodes, comfy, quick_models):
    (model,) = run(nodes["AnimagicLoad"], name="magi1-tiny", device="cpu")
    (preview,) = run(nodes["AnimagicStreamPreview"], every=0.0)
    words = {"prompt": "a red ball bounces", "seed": 7, "frames": 30, "prompts_at": "1: a blue cube\n\n"}
    video, frames = run(nodes["AnimagicMagi1"], model=model, preview=preview, **words)
    assert frames.dtype == torch.float32
    assert frames.shape == (30, 64, 64, 3)
    assert 0 <= frames.min() < frames.max() <= 1
    assert probe(video.file)["frames"] == 30
    stored = animagic.media.read_metadata(video.file)["request"]
    assert (stored["prompts_at"], stored["seed"]) == ({"1": "a blue cube"}, 7)
    assert comfy.progress[-1]["value"] == comfy.progress[-1]["max"] > 1
    pictures = [said for said in comfy.progress if said["picture"] is not None]
    assert {said["node"] for said in pictures} == {"7"}
    frame = [said["value"] for said in pictures if said["picture"].size == (64, 64)]
    assert frame[0] < comfy.progress[-1]["max"]  # finished frames are seen before the last step


@pytest.mark.integration
def test_a_picture_moves(nodes, comfy, quick_models, picture):
    (model,) = run(nodes["AnimagicLoad"], name="magi1-tiny", device="cpu")
    _, frames = run(nodes["AnimagicMagi1"], model=model, prompt="it rolls", seed=7, frames=24, image=picture)
    assert len(frames) == 24
    assert comfy.progress[0]["node"] is None
    with pytest.raises(animagic.InputError, match="holds 2 pictures"):
        run(nodes["AnimagicMagi1"], model=model, prompt="it rolls", image=picture.repeat(2, 1, 1, 1))


@pytest.mark.integration
def test_animatediff(nodes, comfy, quick_models):
    (model,) = run(nodes["AnimagicLoad"], name="animatediff-tiny", device="cpu")
    words = {"prompt": "a red ball", "motion_prompt": "rises", "seed": 7, "loras": "blueprint:0.5", "frames": 16}
    video, frames = run(nodes["AnimagicAnimatediff"], model=model, **words)
    assert len(frames) == 16
    assert animagic.media.read_metadata(video.file)["request"]["loras"] == {"blueprint": 0.5}
    with pytest.raises(animagic.InputError, match="connect it to the node of AnimateDiff"):
        run(nodes["AnimagicMagi1"], model=model, prompt="a red ball")


@pytest.mark.integration
def test_a_person_moves(nodes, comfy, quick_models, tmp_path):
    pytest.importorskip("skia", reason="drawing needs skia-python: pip install -e '.[train]'")
    from animagic.synthetic.people import render_person, sample_motion, sample_person, sample_view

    view = sample_view(3, "full")
    drawn = [render_person(sample_person(seed), sample_motion(1), view, 6, 256, 256, 12).frames for seed in (5, 1)]
    (model,) = run(nodes["AnimagicLoad"], name="magicanimate-tiny", device="cpu")
    photo = torch.from_numpy(drawn[0][:1]).float() / 255
    clip = clip_of(nodes, tmp_path, drawn[1])
    _, frames = run(nodes["AnimagicMagicanimate"], model=model, image=photo, video=clip, seed=7)
    assert len(frames) == 6


@pytest.mark.integration
def test_a_portrait_speaks(nodes, comfy, quick_models):
    (model,) = run(nodes["AnimagicLoad"], name="magicinfinite-tiny", device="cpu")
    portrait = torch.from_numpy(read_image(ROOT / "docs" / "assets" / "portrait.png"))[None].float() / 255
    voice = {"waveform": torch.sin(torch.arange(8000) * 0.1)[None, None] / 4, "sample_rate": 16_000}
    video, frames = run(nodes["AnimagicMagicinfinite"], model=model, image=portrait, audio=voice, seed=7)
    facts = probe(video.file)
    assert facts["frames"] == len(frames) == 13  # half a second
    assert facts["audio"]
    with pytest.raises(animagic.InputError, match="audio_2 is connected, but not audio"):
        run(nodes["AnimagicMagicinfinite"], model=model, image=portrait, audio_2=voice)


@pytest.mark.integration
def test_cancel_ends_it_and_leaves_no_file(nodes, comfy, quick_models):
    (model,) = run(nodes["AnimagicLoad"], name="magi1-tiny", device="cpu")
    comfy.interrupt = 2
    with pytest.raises(InterruptedError):
        run(nodes["AnimagicMagi1"], model=model, prompt="a red ball bounces", seed=7, frames=24)
    assert len(comfy.progress) == 2
    assert list(comfy.temp.iterdir()) == []


@pytest.mark.parametrize("name", ["magi1-tiny", "animatediff-tiny", "magicanimate-tiny", "magicinfinite-tiny"])
def test_a_plan_is_drawn(nodes, name):
    (model,) = run(nodes["AnimagicLoad"], name=name, device="cpu")
    picture, counts = run(nodes["AnimagicPlan"], model=model, frames=48)
    assert picture.shape[0] == 1
    assert picture.shape[3] == 3
    assert "network calls" in counts


def test_what_the_registry_asks_for():
    about = tomllib.loads((NODES / "pyproject.toml").read_text("utf-8"))
    project, comfy = about["project"], about["tool"]["comfy"]
    assert project["version"] == animagic.__version__
    assert set(project["license"]) == {"text"}
    assert "comfy" not in project["name"].lower()
    assert project["urls"]["Repository"].startswith("https://")
    assert {"PublisherId", "DisplayName", "requires-comfyui"} <= set(comfy)


def test_the_workflows_fit_the_nodes(nodes):
    workflows = importlib.import_module("animagic_nodes.workflows")
    written = {file.stem: json.loads(file.read_text("utf-8")) for file in (NODES / "example_workflows").glob("*.json")}
    assert len(written) == 2
    assert written == {name: workflows.build(name, nodes) for name in workflows.WORKFLOWS}
    for workflow in written.values():
        made = {node["id"]: node for node in workflow["nodes"]}
        assert {node["type"] for node in made.values()} & set(nodes)
        for _, source, output, target, place, kind in workflow["links"]:
            assert made[source]["outputs"][output]["type"] == kind
            assert made[target]["inputs"][place]["type"] == kind


def test_with_comfyui_itself(load_nodes):
    """Set COMFYUI to a checkout of ComfyUI, in an environment with what it needs."""
    if "COMFYUI" in os.environ:
        sys.path.insert(0, os.environ["COMFYUI"])
    pytest.importorskip("comfy_api.latest", reason="no ComfyUI here: set COMFYUI to a checkout (it is on no index)")
    for node in load_nodes():
        info = node.GET_NODE_INFO_V1()
        assert info["category"] == "Animagic"
        json.dumps(info)


def test_a_mask_and_a_sound_become_files(nodes, tmp_path):
    inputs = importlib.import_module("animagic_nodes.inputs")
    widgets = inputs.inputs_of([SYSTEMS["magicinfinite"]])
    mask = torch.zeros(1, 32, 48)
    mask[:, :, :24] = 1
    sound = {"waveform": torch.full((1, 2, 100), 0.5), "sample_rate": 8000}
    values = {"mask": mask, "audio": sound, "say": "Hello.\nYes.", "sound": "no", "people": 0}
    options = inputs.options_from(widgets, values, tmp_path)
    assert options["say"] == ("Hello.", "Yes.")
    assert options["sound"] is False
    assert "people" not in options
    assert np.asarray(Image.open(options["mask"][0]))[0, [0, 47], 0].tolist() == [255, 0]
    heard = animagic.media.read_sound(options["audio"][0], rate=8000)
    assert np.allclose(heard.samples[10:-10], 0.5, atol=0.01)
