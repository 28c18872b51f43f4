"""What the motion module learns from: clips, the loss, and what is kept from learning."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import nn

from animagic import AnimateDiffUNet, InputError
from animagic.systems.animatediff.training import (
    MOTION_TARGETS,
    SPATIAL_TARGETS,
    ClipObjective,
    SceneClips,
)
from animagic.training.stages import fingerprint
from animagic.training.text_to_image import load_text_to_image
from animagic.weights.lora import add_lora

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False}
MOTION = {"motion_num_attention_heads": 2, "motion_max_length": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The loss


class Eye(nn.Module):
    """An autoencoder that keeps every fourth pixel of red."""

    config = SimpleNamespace(scaling_factor=2.0)

    def encode(self, pixels):
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda generator: pixels[:, :1, ::4, ::4]))


class Reader(nn.Module):
    """A text encoder, and its tokenizer, that keep what they have read."""

    model_max_length = 3

    def __init__(self):
        super().__init__()
        self.texts: list[list[str]] = []

    def tokens(self, texts, **_):
        self.texts.append(texts)
        return SimpleNamespace(input_ids=torch.tensor([[len(text)] for text in texts]))

    def forward(self, ids):
        return (ids[..., None].float(),)


class Silent(nn.Module):
    """A network that predicts nothing, and keeps what it was given."""

    def forward(self, sample, timestep, text, motion, use_motion):
        self.given = SimpleNamespace(sample=sample, timestep=timestep, text=text, motion=motion, use_motion=use_motion)
        return SimpleNamespace(sample=torch.zeros_like(sample))


@pytest.fixture
def batch() -> dict:
    video = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 2, 8, 12), dtype=np.uint8))
    return {"video": video, "captions": ["a", "bb", "ccc", "dddd"], "motions": ["e" * i for i in range(5, 9)]}


def objective(**settings):
    reader = Reader()
    tokenizer = reader.tokens
    made = ClipObjective(Eye(), tokenizer, {**SCHEDULE, **settings.pop("schedule", {})}, reader, **settings)
    tokenizer = lambda texts, **_: reader.tokens(texts)  # noqa: E731
    tokenizer.model_max_length = 3
    made.tokenizer = tokenizer
    return made


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("max_snr_weight", [1.0, 3.0])
def test_the_loss_is_the_error_of_the_noise(batch, predicts, max_snr_weight):
    model = Silent()
    made = objective(schedule={"prediction_type": predicts}, max_snr_weight=max_snr_weight, drop_text=0.0)
    loss, figures = made(model, batch, seeded())
    given = model.given
    clean = 2 * (batch["video"][:, :1, :, ::4, ::4].float() / 127.5 - 1)
    alpha = DDIMScheduler(**SCHEDULE).alphas_cumprod[given.timestep][:, None, None, None, None]
    noise = (given.sample - alpha.sqrt() * clean) / (1 - alpha).sqrt()
    assert noise.std() == pytest.approx(1, abs=0.3)
    target = noise if predicts == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    error = target.square().mean((1, 2, 3, 4))
    weight = ((1 - alpha) / alpha).sqrt().flatten().clamp(max=max_snr_weight) if max_snr_weight > 1 else 1.0
    assert float(loss) == pytest.approx(float((weight * error).mean()), rel=1e-3)
    assert figures["error"] == pytest.approx(float(error.mean()), rel=1e-3)
    assert figures["late_error"] == pytest.approx(float(error[given.timestep >= 500].mean()), rel=1e-3)


def test_every_batch_sees_the_whole_schedule(batch):
    model = Silent()
    objective(noises=3)(model, batch, seeded())
    assert model.given.sample.shape == (12, 1, 2, 2, 3)
    assert sorted((model.given.timestep * 12 // 1000).tolist()) == list(range(12))


def test_a_clip_is_used_with_other_noise_and_its_own_text(batch):
    model, made = Silent(), objective(noises=2, drop_text=0.0)
    made(model, batch, seeded())
    assert made.text_encoder.texts == [batch["captions"], batch["motions"]]
    assert model.given.text.flatten().tolist() == [1, 2, 3, 4] * 2
    assert model.given.motion.flatten().tolist() == [5, 6, 7, 8] * 2
    first, second = model.given.sample.chunk(2)
    assert not torch.equal(first, second)


def test_texts_are_left_out_together(batch):
    model, made = Silent(), objective(drop_text=0.5)
    made(model, batch, seeded(1))
    words, motions = made.text_encoder.texts
    assert [not text for text in words] == [not text for text in motions]
    assert 0 < sum(not text for text in words) < 4
    objective(drop_text=1.0)(model, batch, seeded())
    assert not model.given.text.any()


def test_without_texts_of_motion_the_captions_stand_for_them(batch):
    model = Silent()
    objective(drop_text=0.0)(model, {name: batch[name] for name in ("video", "captions")}, seeded())
    assert torch.equal(model.given.motion, model.given.text)


def test_the_image_stage_leaves_motion_out(batch):
    model = Silent()
    for use_motion in (True, False):
        objective(use_motion=use_motion)(model, batch, seeded())
        assert model.given.use_motion is use_motion


def test_the_generator_decides(batch):
    losses = [float(objective()(Silent(), batch, seeded(seed))[0]) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_other_predictions_are_refused():
    with pytest.raises(InputError, match="predict sample cannot be trained here; epsilon or v_prediction can"):
        objective(schedule={"prediction_type": "sample"})


# What learns, and what does not


@pytest.fixture(scope="module")
def parts(tiny_picture_model) -> StableDiffusionPipeline:
    return load_text_to_image(tiny_picture_model)


def unet_of(parts) -> AnimateDiffUNet:
    torch.manual_seed(0)
    return AnimateDiffUNet.from_unet2d(parts.unet, **MOTION)


def learns(unet: nn.Module) -> set[str]:
    return {name for name, parameter in unet.named_parameters() if parameter.requires_grad}


def test_a_motion_lora_lies_over_the_attention_of_motion_modules_only(parts):
    unet = unet_of(parts)
    add_lora(unet, MOTION_TARGETS, 2, "zoom")
    names = learns(unet)
    layers = {name.split(".lora_")[0] for name in names}
    expected = {name for name, layer in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))}
    assert layers == {name for name in expected if ".motion_modules." in name}
    assert len(layers) == 2 * 4 * sum(len(b.motion_modules) for b in (*unet.down_blocks, *unet.up_blocks))
    assert all(".lora_" in name and ".zoom." in name for name in names)


def test_a_domain_adapter_lies_over_the_spatial_attention_only(parts):
    unet = unet_of(parts)
    add_lora(unet, SPATIAL_TARGETS, 2, "adapter")
    layers = {name.split(".lora_")[0] for name in learns(unet)}
    expected = {name for name, layer in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))}
    assert layers == {name for name in expected if ".attentions." in name and ".motion_modules." not in name}
    assert any(".mid_block." in f".{name}" for name in layers)
    assert any(".attn2." in name for name in layers)


def test_a_fingerprint_sees_every_bit_of_what_is_frozen(parts):
    unet = unet_of(parts)
    motion = set(unet.motion_state_dict())
    before = fingerprint(unet, motion)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "motion_modules." in name:
                parameter += 1
    assert fingerprint(unet, motion) == before
    bias = unet.conv_out.bias
    with torch.no_grad():
        bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    assert fingerprint(unet, motion) != before


@pytest.mark.integration
def test_the_loss_of_a_clip_falls_and_only_motion_modules_change(parts):
    unet = unet_of(parts)
    unet.freeze_base()
    motion = learns(unet)
    frozen = fingerprint(unet, motion)
    clip = SceneClips(seed=1, steps=1, batch_size=1, num_frames=4, height=32, width=32)[0]
    frozen_parts = (parts.vae, parts.tokenizer, dict(parts.scheduler.config), parts.text_encoder)
    made = ClipObjective(*frozen_parts, drop_text=0.0, noises=2)

    def error() -> float:
        with torch.no_grad():
            return sum(made(unet, clip, seeded(seed))[1]["error"] for seed in range(900, 904)) / 4

    before = error()
    optimiser = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for step in range(50):
        loss, _ = made(unet, clip, seeded(step))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert error() < 0.9 * before
    assert fingerprint(unet, motion) == frozen
    assert all(torch.equal(tensor, unet.state_dict()[name]) for name, tensor in parts.unet.state_dict().items())
    # All of every module has learnt.
    fresh = unet_of(parts).motion_state_dict()
    assert all(not torch.equal(tensor, fresh[name]) for name, tensor in unet.motion_state_dict().items())
