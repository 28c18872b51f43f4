"""From a recipe to a person who moves: what each stage trains, what it learns from, what comes out."""

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

import animagic
from animagic import CheckpointError, InputError, MagicAnimatePipeline
from animagic.layers.autoencoder import ConvAutoencoder
from animagic.media import VideoWriter
from animagic.poses import LANDMARKS, Poses
from animagic.systems.magicanimate.training import PARTS, STAGES, AnimationObjective, build, export
from animagic.training import person_videos, stages
from animagic.training.text_to_image import load_text_to_image

pytestmark = pytest.mark.integration

SIZE = {"batch_size": 2, "num_frames": 2, "height": 32, "width": 32}
LEARN = {"steps": 2, "learning_rate": 1e-2, "warmup": 0, "decay": 1, "ema": 0.5, "save_every": 1, "log_every": 1}
LEARN |= {"workers": 0}
CALL = {"num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> str:
    """A folder of two clips from the studio, which all trainings here share."""
    return str(tmp_path_factory.mktemp("drawn"))


def section(drawn: str, **more) -> dict:
    data = {**SIZE, "folder": drawn, "clips": 2, "begin": 2}
    return {"objective": {}, "data": data, "training": dict(LEARN), **more}


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory) -> str:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("models") / "vae"
    ConvAutoencoder(patch_length=1, latent_channels=4, widths=[16, 8, 8]).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def recipe(autoencoder, drawn) -> dict:
    """One from nothing, without a text encoder."""
    model = {
        "sample_size": 4, "block_out_channels": [32, 32], "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1, "attention_head_dim": 2,
        "cross_attention_dim": 8, "norm_num_groups": 4,
    }  # fmt: skip
    sampling = {"num_frames": 2, "height": 32, "width": 32, "num_inference_steps": 2, "context_frames": 2}
    return {
        "vae": autoencoder,
        "unet": {
            "model": model,
            "motion": {"motion_num_attention_heads": 2, "motion_max_length": 4},
            "pose_channels": [4, 4, 8, 8],
        },
        "appearance": section(drawn),
        "temporal": section(drawn),
        "together": section(drawn),
        "loras": {"mine": section(drawn, rank=2)},
        "sampling": {**sampling, "context_overlap": 0, "windows": "moving", "text_tokens": 1},
    }


@pytest.fixture(scope="session")
def base(tiny_picture_model, tmp_path_factory) -> str:
    """A text-to-image model whose latents are a quarter of the pixels, with attention where Stable Diffusion has it."""
    folder = tmp_path_factory.mktemp("models") / "base"
    shutil.copytree(tiny_picture_model, folder)
    torch.manual_seed(4)
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 32), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=2, norm_num_groups=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    return str(folder)


@pytest.fixture
def on_a_base(recipe, base) -> dict:
    del recipe["vae"], recipe["sampling"]["text_tokens"]
    recipe["unet"] = {"motion": recipe["unet"]["motion"], "pose_channels": [4, 4, 8]}
    return {**recipe, "base": base}


def only(recipe: dict, *names: str) -> dict:
    return {name: value for name, value in recipe.items() if name not in STAGE_NAMES or name in names}


STAGE_NAMES = ("appearance", "temporal", "together", "loras")


def train(recipe, folder, parts=None, on_log=None) -> Path:
    return stages.train(recipe, STAGES, folder, parts, on_log=on_log)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def model(recipe, shared) -> Path:
    """The folder of a model, trained in two stages."""
    folder = shared / "model"
    return folder if folder.exists() else train(only(recipe, "appearance", "temporal"), shared)


def changed(before: nn.Module, folder: Path) -> set[str]:
    """The names of weights that training has changed."""
    state, average = before.state_dict(), load_file(folder / "average.safetensors")
    assert state.keys() == average.keys()
    return {name for name, tensor in average.items() if not torch.equal(tensor, state[name])}


def kinds(names: set[str]) -> set[str]:
    return {"motion" if "motion_modules." in name else name.split(".")[0] for name in names}


def run(folder: Path | MagicAnimatePipeline, **call) -> torch.Tensor:
    pipe = animagic.load(str(folder), dtype=torch.float32) if isinstance(folder, Path) else folder
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    photo, poses = (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (1, 2))
    return pipe(image=photo[0], pose_frames=poses, generator=torch.Generator().manual_seed(1), **CALL, **call).frames


# What each stage trains


def test_the_stages_of_a_recipe_from_nothing(recipe, tmp_path):
    seen = []
    folder = train(recipe, tmp_path, on_log=lambda part, line: seen.append((part, line["step"])))
    assert seen == [(part, step) for part in ("appearance", "temporal", "together", "lora_mine") for step in (1, 2)]
    fresh = build(recipe, None)
    assert kinds(changed(fresh, tmp_path / "appearance")) == set(PARTS)
    fresh.load_state_dict(load_file(tmp_path / "appearance" / "average.safetensors"))
    assert kinds(changed(fresh, tmp_path / "temporal")) == {"motion"}
    fresh.load_state_dict(load_file(tmp_path / "temporal" / "average.safetensors"))
    assert kinds(changed(fresh, tmp_path / "together")) == {*PARTS, "motion"}
    together = load_file(tmp_path / "together" / "average.safetensors")
    lora = load_file(tmp_path / "lora_mine" / "average.safetensors")
    assert {n: x for n, x in lora.items() if ".lora_" not in n}.keys() == {
        n if n in lora else ".base_layer.".join(n.rsplit(".", 1)) for n in together
    }
    assert all(
        torch.equal(x, lora.get(n, lora.get(".base_layer.".join(n.rsplit(".", 1))))) for n, x in together.items()
    )

    # The last stage is what is exported, beside the LoRA.
    pipe = animagic.load(str(folder), dtype=torch.float32)
    for name, tensor in pipe.unet.state_dict().items():
        assert torch.equal(tensor, together[f"unet.{name}"].half().float())
    assert [path.name for path in (folder / "loras").iterdir()] == ["mine.safetensors"]
    assert run(folder).shape == (1, 4, 2, 4, 4)


def test_on_a_base_its_unet_stays(on_a_base, tmp_path):
    recipe = only(on_a_base, "appearance", "temporal")
    folder = train(recipe, tmp_path)
    base = load_text_to_image(on_a_base["base"])
    fresh = build(recipe, base)
    assert kinds(changed(fresh, tmp_path / "appearance")) == {"appearance_encoder", "controlnet"}
    unet = load_file(tmp_path / "temporal" / "average.safetensors")
    assert all(torch.equal(tensor, unet[f"unet.{name}"]) for name, tensor in base.unet.state_dict().items())
    assert {"text_encoder", "tokenizer", "vae"} <= {path.name for path in folder.iterdir()}
    assert run(folder).shape == (1, 4, 2, 8, 8)


def test_the_autoencoder_of_a_model_folder(recipe, base, tmp_path):
    recipe["vae"], recipe["unet"]["pose_channels"] = base, [4, 4, 8]
    folder = train(only(recipe, "appearance"), tmp_path)
    own = load_text_to_image(base).vae.state_dict()
    vae = animagic.load(str(folder), dtype=torch.float32).vae.state_dict()
    assert all(torch.equal(tensor, own[name].half().float()) for name, tensor in vae.items())


def test_a_frozen_weight_that_changes_is_noticed(recipe, tmp_path, monkeypatch):
    class Careless(stages.Trainer):
        def run(self, *arguments):
            average = super().run(*arguments)
            with torch.no_grad():
                self.model.unet.conv_out.bias[0] += 1e-6
            return average

    train(only(recipe, "appearance"), tmp_path)
    monkeypatch.setattr(stages, "Trainer", Careless)
    with pytest.raises(AssertionError, match="frozen weights have changed"):
        train(only(recipe, "appearance", "temporal"), tmp_path, ("temporal",))


def test_resumed_it_is_the_same(recipe, tmp_path):
    recipe = only(recipe, "appearance")
    whole = train(recipe, tmp_path / "whole")

    def stop(part, line):
        raise KeyboardInterrupt

    recipe["appearance"]["training"]["log_every"] = 2  # the save of the first step comes before
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "broken", on_log=stop)
    assert (tmp_path / "broken" / "appearance" / "state.pt").exists()
    seen = []
    train(recipe, tmp_path / "broken", on_log=lambda part, line: seen.append(line["step"]))
    assert seen == [2]
    a, b = (load_file(path / "appearance" / "average.safetensors") for path in (whole.parent, tmp_path / "broken"))
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_temporal_goes_on_from_appearance(recipe, tmp_path):
    with pytest.raises(CheckpointError, match="train the part appearance first"):
        train(only(recipe, "appearance", "temporal"), tmp_path, ("temporal",))


def test_it_begins_from_a_model(recipe, model, tmp_path):
    """As shipped, for who goes on with a model."""
    prepared = stages.prepare(only(recipe, "appearance"), STAGES, tmp_path)
    stages.start_from(prepared, model)
    start, _ = prepared.stages[0].start(prepared.stages[0])
    pipe = animagic.load(str(model), dtype=torch.float32)
    for part in PARTS:
        state = getattr(start, part).state_dict()
        assert all(torch.equal(x, state[name]) for name, x in getattr(pipe, part).state_dict().items())


# The loss


class Eye(nn.Module):
    """An autoencoder that keeps every eighth pixel."""

    config = SimpleNamespace(scaling_factor=1.0)

    def encode(self, pixels):
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda generator: pixels[:, :, ::8, ::8]))


class Listener(nn.Module):
    """A network that predicts nothing, and keeps what it was given."""

    def forward(self, noisy, timesteps, text, pictures, poses, alone, use_motion):
        self.given = SimpleNamespace(
            noisy=noisy, timesteps=timesteps, text=text, pictures=pictures, poses=poses, alone=alone, motion=use_motion
        )
        return torch.zeros_like(noisy)


@pytest.fixture
def batch() -> dict:
    rng = np.random.default_rng(0)
    shapes = {"photo": (4, 3, 16, 16), "video": (4, 3, 5, 16, 16), "poses": (4, 3, 5, 16, 16)}
    return {name: torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)) for name, shape in shapes.items()}


def given(batch, seed: int = 0, **settings) -> SimpleNamespace:
    model = Listener()
    AnimationObjective(Eye(), torch.zeros(1, 1, 8), {"beta_schedule": "linear"}, **settings)(
        model, batch, torch.Generator().manual_seed(seed)
    )
    return model.given


def test_what_the_networks_are_given(batch):
    seen = given(batch, use_motion=False)
    assert seen.noisy.shape == (4, 3, 5, 2, 2)
    assert seen.motion is False
    assert torch.equal(seen.pictures, batch["photo"][:, :, ::8, ::8].float() / 127.5 - 1)
    assert torch.equal(seen.poses, batch["poses"].float() / 255)
    assert sorted((seen.timesteps * 4 // 1000).tolist()) == [0, 1, 2, 3]


def test_the_share_of_clips_without_their_picture(batch):
    assert given(batch, drop_picture=0.0).alone == 0
    assert given(batch, drop_picture=1.0).alone == 4
    left_out = [given(batch, seed, drop_picture=0.25).alone for seed in range(200)]
    assert np.mean(left_out) == pytest.approx(1.0, abs=0.2)


def test_the_share_of_single_frames(batch):
    frames = [given(batch, seed, image_share=0.3).noisy.shape[2] for seed in range(200)]
    assert set(frames) == {1, 5}
    assert frames.count(1) / 200 == pytest.approx(0.3, abs=0.08)
    alone = given(batch, image_share=1.0)
    assert torch.equal(alone.poses, batch["poses"][:, :, :1].float() / 255)
    assert torch.equal(alone.pictures, given(batch).pictures)


def test_a_still_picture_is_its_own_picture(batch):
    seen = given(batch, image_share=1.0, own_picture=1.0)
    assert torch.equal(seen.pictures, batch["video"][:, :, 0, ::8, ::8].float() / 127.5 - 1)
    assert torch.equal(given(batch, own_picture=1.0).pictures, given(batch).pictures)  # of clips it is not asked


def test_without_its_picture_a_clip_does_not_see_it(recipe, batch):
    """The networks themselves: the clips without pictures stay the same when those change, and the others do not."""
    model = build(recipe, None).eval()
    torch.manual_seed(0)
    noisy, pictures, poses = torch.randn(2, 4, 2, 4, 4), torch.randn(2, 2, 4, 4, 4), torch.rand(2, 3, 2, 32, 32)
    call = (noisy, torch.tensor([500, 500]), torch.zeros(1, 1, 8))
    with torch.no_grad():
        one, other = (model(*call, pictures[i], poses, alone=1) for i in (0, 1))
        assert torch.equal(one[0], other[0])
        assert not torch.allclose(one[1], other[1])
        model(*call, pictures[0], poses, alone=2)


def test_the_loss_falls_on_one_batch(recipe, tmp_path, monkeypatch):
    class Repeated(torch.utils.data.Dataset):
        def __init__(self, data):
            self.batch = data[0]

        def __len__(self):
            return 40

        def __getitem__(self, step):
            return self.batch

    recipe = only(recipe, "appearance")
    recipe["appearance"]["training"] |= {"steps": 40, "learning_rate": 5e-3, "save_every": 40, "log_every": 10}
    (stage,) = stages.prepare(recipe, STAGES, tmp_path).stages
    losses = []
    stages.carry_out(stage, Repeated(stage.batches()), lambda part, line: losses.append(line["late_error"]))
    assert losses[-1] < 0.8 * losses[0]


# LoRAs


@pytest.fixture
def for_a_model(recipe, model) -> dict:
    """LoRA for a finished model: neither autoencoder nor UNet is named again."""
    return {"model": str(model), "loras": recipe["loras"]}


def test_a_lora_for_a_model(for_a_model, model, tmp_path):
    folder = train(for_a_model, tmp_path)
    file = folder / "mine.safetensors"
    assert folder == tmp_path / "loras"
    names = load_file(file)
    assert all(name.startswith("unet.") for name in names)
    assert any("motion_modules" in name for name in names)
    assert not (tmp_path / "model").exists()

    pipe = animagic.load(str(model), dtype=torch.float32)
    plain = run(pipe)
    pipe.load_lora_weights(str(file), adapter_name="mine")
    assert not torch.equal(run(pipe), plain)
    pipe.set_adapters("mine", 0.0)
    torch.testing.assert_close(run(pipe), plain, rtol=1e-4, atol=1e-5)
    pipe.unload_lora_weights()
    torch.testing.assert_close(run(pipe), plain, rtol=1e-4, atol=1e-5)


def test_a_lora_learns_with_the_models_own_parts(for_a_model, model, tmp_path):
    (stage,) = stages.prepare(for_a_model, STAGES, tmp_path).stages
    network, frozen = stage.start(stage)
    pipe = animagic.load(str(model), dtype=torch.float32)
    vae = pipe.vae.state_dict()
    assert all(torch.equal(x, vae[name]) for name, x in frozen["autoencoder"].state_dict().items())
    assert frozen["text"].shape == (1, 1, 8)
    assert frozen["scheduler_config"]["beta_schedule"] == "linear"
    assert all(".lora_" in name and ".mine." in name for name, p in network.named_parameters() if p.requires_grad)


def test_a_lora_for_a_model_that_reads_text(on_a_base, tmp_path):
    model = train(only(on_a_base, "appearance"), tmp_path / "first")
    (stage,) = stages.prepare({"model": str(model), "loras": on_a_base["loras"]}, STAGES, tmp_path).stages
    assert stage.start(stage)[1]["text"].shape == (1, 16, 16)


# Videos of one's own


def found(frames, fps, on_frame=None) -> Poses:
    """In place of the network that finds poses: somebody stands in the middle."""
    frames = list(frames)
    points = np.zeros((len(frames), 1, len(LANDMARKS), 3), np.float32)
    points[..., 0] = np.linspace(20, 40, len(LANDMARKS))
    points[..., 1] = np.linspace(8, 36, len(LANDMARKS))
    return Poses(points, np.ones(points.shape[:3], np.float32), 40, 64, fps)


def test_videos_of_ones_own(for_a_model, tmp_path, monkeypatch):
    monkeypatch.setattr(person_videos, "extract_poses", found)
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(2):
        with VideoWriter(videos / f"{i}.mp4", fps=24) as writer:
            writer.write(np.full((6, 40, 64, 3), 90 * i, np.uint8))
    data = {"source": str(videos), "folder": str(tmp_path / "poses"), **SIZE}
    for_a_model["loras"]["mine"]["data"] = data
    assert (train(for_a_model, tmp_path / "run") / "mine.safetensors").exists()
    assert 1 <= len(list((tmp_path / "poses").glob("*.json"))) <= 2
    assert len(list(videos.iterdir())) == 2


# Wrong recipes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"appearance": {"data": {"colour": 1}}}, "an unknown field appearance.data.colour"),
        ({"appearance": {"objective": {"noises": 1}}}, "an unknown field appearance.objective.noises"),
        (
            {"appearance": {"data": {"source": "nowhere", "clips": None, "begin": None}}},
            "nowhere is no source of videos of people",
        ),
        ({"sampling": {"frames": 3}}, "'frames' is unknown"),
        ({"vae": None}, "has no autoencoder: name the folder of one as vae"),
        ({"vae": "/nowhere/vae"}, "the autoencoder in /nowhere/vae cannot be read"),
        ({"base": "/nowhere/base"}, "/nowhere/base cannot be loaded"),
        ({"appearance": None}, "the recipe lacks appearance"),
        ({"loras": {"mine": {"rank": None}}}, "the recipe lacks loras.mine.rank"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_used_is_refused(recipe, tmp_path, change, said):
    for name, value in change.items():
        recipe[name] = _changed(recipe.get(name), value)
    with pytest.raises((InputError, CheckpointError), match=said):
        train({name: value for name, value in recipe.items() if value is not None}, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def _changed(old, new):
    if not isinstance(new, dict) or not isinstance(old, dict) or "frames" in new:
        return new
    made = {**copy.deepcopy(old), **{name: _changed(old.get(name), value) for name, value in new.items()}}
    return {name: value for name, value in made.items() if value is not None}


def test_a_model_that_is_not_there(recipe, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no MagicAnimate model in .*/nowhere"):
        train({"model": str(tmp_path / "nowhere"), "loras": recipe["loras"]}, tmp_path / "run")


def test_a_model_is_for_loras_alone(recipe, model, tmp_path):
    with pytest.raises(InputError, match="a recipe that names a model trains LoRAs for it, nothing else"):
        train({"model": str(model), **recipe}, tmp_path)
    with pytest.raises(InputError, match="the recipe lacks loras"):
        train({"model": str(model)}, tmp_path)


def test_a_base_that_cannot_see_a_picture(on_a_base, tiny_picture_model, tmp_path):
    on_a_base["base"] = str(tiny_picture_model)
    with pytest.raises(InputError, match="the last block of the UNet has no attention"):
        train(on_a_base, tmp_path)


def test_nothing_to_export(recipe, tmp_path):
    with pytest.raises(CheckpointError, match="train the part appearance first"):
        export(recipe, tmp_path)
