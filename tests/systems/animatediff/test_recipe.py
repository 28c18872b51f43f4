"""From a recipe to a model: adapter, motion module, MotionLoRAs, on a picture model that stays as it is."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from animagic import AnimateDiffPipeline, CheckpointError, InputError
from animagic.media import VideoWriter
from animagic.systems.animatediff import training as room
from animagic.systems.animatediff.training import STAGES, start_motion, trained_motion
from animagic.training import stages
from animagic.training.text_to_image import load_text_to_image

pytestmark = pytest.mark.integration

CLIPS = {"batch_size": 1, "num_frames": 3, "height": 32, "width": 32}
LEARN = {"steps": 2, "learning_rate": 1e-2, "warmup": 0, "decay": 1, "ema": 0.5, "save_every": 1, "log_every": 1}
LEARN |= {"workers": 0}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)


@pytest.fixture
def recipe(tiny_picture_model) -> dict:
    def section(**more) -> dict:
        return {"objective": {"drop_text": 0.1}, "data": dict(CLIPS), "training": dict(LEARN), **more}

    adapter = section(rank=2)
    adapter["data"]["num_frames"] = 1
    zoom = section(rank=2)
    zoom["data"]["camera"] = "zoom-in"
    zoom["objective"]["most_weight"] = 5.0  # as earlier versions called it
    return {
        "base": str(tiny_picture_model),
        "adapter": adapter,
        "motion": section(model={"motion_num_attention_heads": 2, "motion_max_length": 4, "motion_mid_block": True}),
        "motion_loras": {"zoom-in": zoom},
        "sampling": {"num_frames": 3, "height": 32, "width": 32, "num_inference_steps": 2, "context_frames": 4},
    }


def train(recipe, folder, parts=None, on_log=None) -> Path:
    return stages.train(recipe, STAGES, folder, parts, on_log=on_log)


@pytest.fixture
def only_motion(recipe) -> dict:
    return {name: recipe[name] for name in ("base", "motion", "sampling")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_a_recipe_makes_a_model(recipe, tmp_path):
    before, seen = copy.deepcopy(recipe), []
    folder = train(recipe, tmp_path, on_log=lambda part, line: seen.append((part, line["step"])))
    assert folder == tmp_path / "model"
    assert recipe == before
    assert seen == [(part, step) for part in ("adapter", "motion", "motion_lora_zoom-in") for step in (1, 2)]

    # What comes out is the picture model, bit for bit, and a motion module that has learnt.
    base = load_text_to_image(recipe["base"])
    unet = AnimateDiffPipeline.from_pretrained(folder).unet
    assert same(unet.base_state_dict(), {name: x.half() for name, x in base.unet.state_dict().items()})
    motion = load_file(tmp_path / "motion_module.safetensors")
    assert same(unet.motion_state_dict(), {name: x.half() for name, x in motion.items()})
    fresh = start_motion(recipe["motion"], base).motion_state_dict()
    assert motion.keys() == fresh.keys()
    assert not any(torch.equal(x, fresh[name]) for name, x in motion.items() if "proj_out" in name)

    # The LoRAs are there in the published layout, and change something.
    assert (tmp_path / "adapter.safetensors").exists()
    adapter = load_file(tmp_path / "adapter.safetensors")
    assert all(".processor.to_" in name and "motion_modules" not in name for name in adapter)
    zoom = load_file(folder / "motion_loras" / "zoom-in.safetensors")
    assert all(".processor.to_" in name and "motion_modules" in name for name in zoom)
    assert {x.dtype for x in zoom.values()} == {torch.float16}
    assert any(x.any() for name, x in zoom.items() if ".up." in name)

    pipe = AnimateDiffPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.beta_schedule == "linear"

    def run() -> torch.Tensor:
        return pipe("a red ball", generator=torch.Generator().manual_seed(1), output_type="latent").frames

    plain = run()
    assert plain.shape == (1, 4, 3, 8, 8)
    with pipe.using_loras({}, {str(folder / "motion_loras" / "zoom-in.safetensors"): 1.0}):
        assert not torch.equal(run(), plain)


def test_trained_in_parts_it_is_the_same(recipe, tmp_path):
    del recipe["motion_loras"]
    whole = train(recipe, tmp_path / "whole")
    with pytest.raises(CheckpointError, match="train the motion module first"):
        train(recipe, tmp_path / "parts", ("adapter",))
    parts = train(recipe, tmp_path / "parts", ("motion",))
    name = "unet/diffusion_pytorch_model.safetensors"
    assert same(load_file(whole / name), load_file(parts / name))


def test_the_motion_module_is_trained_on_the_adapted_model(recipe, only_motion, tmp_path):
    train(recipe, tmp_path / "adapted", ("adapter", "motion"))
    train(only_motion, tmp_path / "plain")
    assert not same(*(load_file(tmp_path / x / "motion_module.safetensors") for x in ("adapted", "plain")))
    base = load_text_to_image(recipe["base"])
    under = start_motion(recipe["motion"], base, tmp_path / "adapted" / "adapter")
    changed = {name for name, x in base.unet.state_dict().items() if not torch.equal(x, under.state_dict()[name])}
    assert changed
    assert all(".attn1." in name or ".attn2." in name for name in changed)
    assert under.state_dict().keys() == start_motion(recipe["motion"], base).state_dict().keys()


def test_resumed_it_is_the_same(only_motion, tmp_path):
    only_motion["motion"]["training"]["steps"] = 3
    whole = train(only_motion, tmp_path / "whole")

    def stop(part, line):
        if line["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(only_motion, tmp_path / "broken", on_log=stop)
    assert not (tmp_path / "broken" / "model").exists()
    seen = []
    resumed = train(only_motion, tmp_path / "broken", on_log=lambda part, line: seen.append(line["step"]))
    assert seen == [2, 3]
    name = "unet/diffusion_pytorch_model.safetensors"
    assert same(load_file(whole / name), load_file(resumed / name))
    # Finished, it makes no step again.
    seen.clear()
    train(only_motion, tmp_path / "broken", on_log=lambda part, line: seen.append(line["step"]))
    assert seen == []


@pytest.mark.parametrize("where", ["model", "average"])
def test_a_frozen_weight_that_changes_is_noticed(only_motion, tmp_path, monkeypatch, where):
    class Careless(stages.Trainer):
        def run(self, *arguments):
            average = super().run(*arguments)
            with torch.no_grad():
                (self.model if where == "model" else average).conv_out.bias[0] += 1e-6
            return average

    monkeypatch.setattr(stages, "Trainer", Careless)
    with pytest.raises(AssertionError, match="frozen weights have changed"):
        train(only_motion, tmp_path)
    assert not (tmp_path / "model").exists()


def test_weight_decay_does_not_reach_what_is_frozen(only_motion, tmp_path):
    only_motion["motion"]["training"]["weight_decay"] = 0.5
    folder = train(only_motion, tmp_path)
    unet, base = AnimateDiffPipeline.from_pretrained(folder).unet, load_text_to_image(only_motion["base"]).unet
    assert same(unet.base_state_dict(), {name: x.half() for name, x in base.state_dict().items()})


def test_it_goes_on_from_a_motion_module(only_motion, tmp_path):
    train(only_motion, tmp_path / "first")
    file = tmp_path / "first" / "motion_module.safetensors"
    section = {**only_motion["motion"], "start": str(file)}
    assert same(start_motion(section, load_text_to_image(only_motion["base"])).motion_state_dict(), load_file(file))
    train({**only_motion, "motion": section}, tmp_path / "second")
    assert not same(load_file(tmp_path / "second" / "motion_module.safetensors"), load_file(file))


def test_the_trained_motion_leaves_the_adapter_behind(recipe, tmp_path):
    train(recipe, tmp_path, ("adapter", "motion"))
    base = load_text_to_image(recipe["base"])
    unet = trained_motion(recipe, base, tmp_path)
    assert same(unet.base_state_dict(), base.unet.state_dict())
    assert not unet.training


def test_videos_of_ones_own(only_motion, tmp_path, monkeypatch):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i, name in enumerate(("a red ball", "the blue cat")):
        frames = np.full((6, 40, 48, 3), 40 + 90 * i, np.uint8)
        for t in range(6):
            frames[t, 8:16, 4 * t : 4 * t + 10] = 250
        with VideoWriter(videos / f"{name}.mp4", fps=8) as writer:
            writer.write(frames)
    only_motion["motion"]["data"] = {
        "source": str(videos), "clips_per_batch": 2, "num_frames": 3, "sample_stride": 2, "height": 32, "width": 32,
    }  # fmt: skip
    texts = []
    embed = room.ClipObjective.embed

    def listen(self, model, given, dropped, device):
        texts.extend(given)
        return embed(self, model, given, dropped, device)

    monkeypatch.setattr(room.ClipObjective, "embed", listen)
    folder = train(only_motion, tmp_path / "out")
    assert set(texts) <= {"a red ball", "the blue cat"}
    assert (folder / "model_index.json").exists()


def test_the_looks_of_the_picture_model_come_along(only_motion, tiny_picture_model, tmp_path):
    import shutil

    from safetensors.torch import save_file

    base = tmp_path / "base"
    shutil.copytree(tiny_picture_model, base)
    (base / "loras").mkdir()
    save_file({"x": torch.ones(2)}, base / "loras" / "ink.safetensors")
    folder = train({**only_motion, "base": str(base)}, tmp_path / "out")
    assert load_file(folder / "loras" / "ink.safetensors")["x"].dtype == torch.float16
    # Made again, nothing of an older model is left.
    (folder / "loras" / "old.safetensors").touch()
    train({**only_motion, "base": str(base)}, tmp_path / "out")
    assert [path.name for path in (folder / "loras").iterdir()] == ["ink.safetensors"]


def without(recipe: dict, path: str) -> dict:
    made = copy.deepcopy(recipe)
    *parents, last = path.split("/")
    inner = made
    for name in parents:
        inner = inner[name]
    del inner[last]
    return made


@pytest.mark.parametrize("path", ["motion/model", "sampling", "motion", "adapter/rank", "motion_loras/zoom-in/rank"])
def test_what_a_recipe_lacks_is_named(recipe, tmp_path, path):
    with pytest.raises(InputError, match=rf"the recipe lacks {path.replace('/', '.')}\."):
        train(without(recipe, path), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"motion": {"data": {"colour": 1}}}, "an unknown field motion.data.colour"),
        ({"motion": {"data": {"source": "nowhere"}}}, "nowhere is no source of videos"),
        ({"sampling": {"frames": 3}}, "'frames' is unknown"),
        ({"base": "nowhere"}, "nowhere has no text-to-image model"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_recipe_that_cannot_be_used_is_refused(only_motion, tmp_path, change, said):
    for name, value in change.items():
        only_motion[name] = {**only_motion[name], **value} if name == "motion" else value
    with pytest.raises(InputError, match=said):
        train(only_motion, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_parts_that_are_not_there(only_motion, tmp_path):
    with pytest.raises(InputError, match="the part 'adapter' is unknown; the recipe has motion"):
        train(only_motion, tmp_path, ("adapter",))
    with pytest.raises(CheckpointError, match=r"motion/average.safetensors is missing: train the motion module first"):
        trained_motion(only_motion, load_text_to_image(only_motion["base"]), Path(tmp_path))
