"""SparseCtrl: single frames that a video is kept to."""

import copy

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from animagic.errors import InputError
from animagic.systems.animatediff.pipeline import AnimateDiffPipeline
from animagic.systems.animatediff.sparse import SparseControl, SparseControlNet, place_conditions
from animagic.systems.animatediff.training import SPATIAL_TARGETS
from animagic.weights.lora import add_lora

RGB = {"conditioning_channels": 4, "use_simplified_condition_embedding": True}
SCRIBBLE = {"conditioning_channels": 3, "conditioning_embedding_out_channels": (4, 8, 8)}  # 4 times smaller
MOTION = {"motion_num_attention_heads": 2, "motion_max_length": 16}


def trained(network: SparseControlNet, seed: int = 5) -> SparseControlNet:
    """As if it had learned something: nothing is zero any more."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def parts(animatediff_parts):
    return animatediff_parts()


@pytest.fixture(scope="module")
def rgb(parts):
    return trained(SparseControlNet.from_unet(parts["unet"], **RGB, **MOTION))


@pytest.fixture(scope="module")
def scribble(parts):
    return trained(SparseControlNet.from_unet(parts["unet"], **SCRIBBLE, **MOTION))


def run(network, pictures, indexes, frames=6, *, sample=None, text=None, scale=1.0):
    """Residuals of one clip, all in one list."""
    sample = randn(len(pictures), 4, frames, 8, 8, seed=1) if sample is None else sample
    text = randn(len(sample), 5, 16, seed=2) if text is None else text
    down, middle = network(sample, 500, text, *place_conditions(pictures, indexes, frames), scale)
    return [*down, middle]


def same(a, b, **tolerance) -> bool:
    return all(torch.allclose(x, y, **tolerance) for x, y in zip(a, b, strict=True))


# The network


def test_a_new_one_has_the_encoder_and_does_nothing(parts):
    unet, network = parts["unet"], SparseControlNet.from_unet(parts["unet"], **RGB, **MOTION).eval()
    assert torch.equal(network.mid_block.resnets[0].conv1.weight, unet.mid_block.resnets[0].conv1.weight)
    residuals = run(network, randn(1, 4, 1, 8, 8), [0])
    assert not any(x.any() for x in residuals)
    assert [len(block.motion_modules) for block in network.down_blocks] == [1, 1]
    attentions = [len(m.temporal_transformer.transformer_blocks[0].attention_blocks)
                  for block in network.down_blocks for m in block.motion_modules]  # fmt: skip
    assert attentions == [1, 1]


@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_it_is_saved_and_loaded(kind, request, tmp_path):
    network = request.getfixturevalue(kind)
    network.save_pretrained(tmp_path)
    again = SparseControlNet.from_pretrained(tmp_path)
    assert again.config.conditioning_channels == network.config.conditioning_channels
    pictures = randn(1, 4, 1, 8, 8) if kind == "rgb" else randn(1, 3, 1, 32, 32)
    assert same(run(again, pictures, [2]), run(network, pictures, [2]))


def test_a_picture_steers_the_other_frames(rgb):
    one, other = (run(rgb, randn(1, 4, 1, 8, 8, seed=seed), [0])[-1] for seed in (3, 4))
    assert ((one - other).flatten(1).norm(dim=1) > 1e-3).all()


def test_the_mask_tells_a_black_picture_from_none(rgb):
    black = torch.zeros(1, 4, 1, 8, 8)
    assert not same(run(rgb, black, [1]), run(rgb, black[:, :, :0], []))


def test_noise_is_not_seen_unless_wanted(parts, rgb):
    pictures, samples = randn(1, 4, 1, 8, 8), [randn(1, 4, 6, 8, 8, seed=seed) for seed in (1, 2)]
    assert same(*(run(rgb, pictures, [0], sample=sample) for sample in samples))
    seeing = SparseControlNet.from_unet(parts["unet"], set_noisy_sample_input_to_zero=False, **RGB, **MOTION)
    assert not same(*(run(trained(seeing), pictures, [0], sample=sample) for sample in samples))


def test_without_mask_one_channel_less(parts):
    network = trained(SparseControlNet.from_unet(parts["unet"], concate_conditioning_mask=False, **RGB, **MOTION))
    assert network.controlnet_cond_embedding.in_channels == 4
    assert run(network, randn(1, 4, 1, 8, 8), [0])[-1].any()


def test_a_prompt_a_video_is_a_prompt_a_frame(rgb, parts):
    pictures, text = randn(2, 4, 1, 8, 8), randn(2, 5, 16, seed=2)
    expected = run(rgb, pictures, [3], text=text)
    assert same(run(rgb, pictures, [3], text=text.repeat_interleave(6, dim=0)), expected, atol=1e-5)
    plain = SparseControlNet.from_unet(parts["unet"], **RGB, **MOTION)
    plain.load_state_dict(rgb.state_dict())
    plain.set_attn_processor(AttnProcessor2_0())
    assert same(run(plain.eval(), pictures, [3], text=text), expected, atol=1e-5)


def test_every_video_has_its_own_pictures(rgb):
    pictures, text, sample = randn(2, 4, 1, 8, 8), randn(2, 5, 16, seed=2), randn(2, 4, 6, 8, 8)
    both = run(rgb, pictures, [3], text=text, sample=sample)
    second = run(rgb, pictures[1:], [3], text=text[1:], sample=sample[1:])
    assert same([x[6:] for x in both], second, atol=1e-5)


def test_the_scale_multiplies(rgb):
    pictures = randn(1, 4, 1, 8, 8)
    half, whole = (run(rgb, pictures, [0], scale=scale) for scale in (0.5, 1.0))
    assert same([2 * x for x in half], whole)


def test_gradient_checkpointing_changes_no_gradient(rgb):
    gradients = []
    for checkpointing in (False, True):
        network = copy.deepcopy(rgb).train().requires_grad_(True)
        if checkpointing:
            network.enable_gradient_checkpointing()
        sum(x.square().mean() for x in run(network, randn(1, 4, 1, 8, 8), [0])).backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert same(*gradients, atol=1e-6)


# Where pictures go


def test_pictures_are_placed():
    pictures = randn(2, 3, 2, 4, 5)
    condition, mask = place_conditions(pictures, [4, 1], 6)
    assert condition.shape == (2, 3, 6, 4, 5)
    assert torch.equal(condition[:, :, [4, 1]], pictures)
    assert not condition[:, :, [0, 2, 3, 5]].any()
    assert mask.shape == (2, 1, 6, 4, 5)
    assert mask[1, 0, :, 2, 2].tolist() == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ([0, 6], "frame 6: the video has 6, counted from 0"),
        ([0, -1], "frame -1"),
        ([3, 3], "frame 3 has two control pictures"),
        ([0], "2 control pictures but 1 frame"),
        ([0, 1, 2], "2 control pictures but 3 frames"),
    ],
)
def test_wrong_frames_are_named(indexes, message):
    with pytest.raises(InputError, match=message):
        place_conditions(randn(1, 4, 2, 8, 8), indexes, 6)


# In windows


@pytest.mark.parametrize("window", [range(2, 8), (6, 7, 0, 1), (0, 5, 2, 5)])
def test_a_window_has_the_pictures_of_its_frames(rgb, window):
    pictures = randn(1, 4, 2, 8, 8)
    control = SparseControl(rgb, pictures, (5, 0), 0.7)
    sample, text = randn(2, 4, len(window), 8, 8), randn(2, 5, 16, seed=2)
    made = control(sample, torch.tensor(500), text, list(window))
    assert made.keys() == {"down_block_additional_residuals", "mid_block_additional_residual"}
    here = [(place, [5, 0].index(frame)) for place, frame in enumerate(window) if frame in (5, 0)]
    shown = pictures[:, :, [number for _, number in here]].expand(2, -1, -1, -1, -1)  # both halves of guidance
    expected = run(rgb, shown, [place for place, _ in here], len(window), sample=sample, text=text, scale=0.7)
    assert same([*made["down_block_additional_residuals"], made["mid_block_additional_residual"]], expected)


def test_a_window_without_pictures_is_left_alone(rgb):
    control = SparseControl(rgb, randn(1, 4, 1, 8, 8), (5,))
    assert control(randn(1, 4, 4, 8, 8), torch.tensor(500), randn(1, 5, 16), range(4)) == {}


# What a user gives


def of(network, images, indexes=(0,), **more):
    settings = {"num_frames": 8, "size": (32, 48), "encode": lambda pixels: randn(1, 4, len(pixels), 8, 12)}
    return SparseControl.of(network, images, indexes, **{**settings, **more})


def test_scribbles_are_pixels_of_the_videos_size(scribble, parts):
    picture = Image.new("L", (100, 60), 255)
    control = of(scribble, picture, unet=parts["unet"])
    assert control.pictures.shape == (1, 3, 1, 32, 48)
    assert (control.pictures == 1).all()


def test_pictures_become_latents(rgb, parts):
    shown = []
    two = [np.zeros((40, 40, 3), np.uint8), Image.new("RGB", (64, 64), "white")]
    encode = lambda pixels: shown.append(pixels) or randn(1, 4, 2, 8, 12)  # noqa: E731
    control = of(rgb, two, (0, 7), unet=parts["unet"], encode=encode)
    assert [pixels.shape for pixels in shown] == [(2, 32, 48, 3)]
    assert shown[0].mean(axis=(1, 2, 3)).tolist() == [0, 255]
    assert control.indexes == (0, 7)


def test_wrong_pictures_are_named(rgb, scribble, parts, animatediff_parts):
    unet, picture = parts["unet"], Image.new("RGB", (64, 64))
    with pytest.raises(InputError, match="frame 8: the video has 8"):
        of(rgb, [picture], (8,), unet=unet, encode=None)  # said before anything is encoded
    with pytest.raises(InputError, match="2 control pictures but 1 frame"):
        of(rgb, [picture, picture], unet=unet)
    with pytest.raises(InputError, match="3 channels; this network reads latents with 4"):
        of(rgb, randn(1, 3, 1, 32, 48), unet=unet)
    with pytest.raises(InputError, match="4 channels; this network reads pixels with 3"):
        of(scribble, randn(1, 4, 1, 8, 12), unet=unet)
    with pytest.raises(InputError, match="not \\(4, 8, 12\\)"):
        of(rgb, randn(4, 8, 12), unet=unet)
    with pytest.raises(InputError, match=r"feature maps of 4x4 .* the latents have 8x8"):
        run(scribble, randn(1, 3, 1, 16, 16), [0])
    with pytest.raises(InputError, match=r"base with cross_attention_dim 16, this one has 24"):
        of(rgb, picture, unet=animatediff_parts(cross_attention_dim=24)["unet"])
    with pytest.raises(InputError, match=r"block_out_channels \[32, 32\], this one has \[32, 64\]"):
        of(rgb, picture, unet=animatediff_parts(block_out_channels=(32, 64))["unet"])


def test_bases_that_it_cannot_be_made_for(animatediff_parts):
    with pytest.raises(InputError, match="no SparseCtrl for SDXL"):
        SparseControlNet(addition_embed_type="text_time")
    unet = animatediff_parts()["unet"]
    add_lora(unet, SPATIAL_TARGETS, 2, "look")
    with pytest.raises(InputError, match="LoRA"):
        SparseControlNet.from_unet(unet, **RGB)


# In the pipeline


@pytest.fixture(scope="module")
def pipe(parts, rgb):
    pipe = AnimateDiffPipeline(**parts, sparse_controlnet=rgb, config={"context_frames": 8, "context_overlap": 2})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe, **arguments) -> torch.Tensor:
    settings = {"num_frames": 6, "height": 32, "width": 32, "num_inference_steps": 2, "output_type": "latent"}
    generator = torch.Generator().manual_seed(1)
    return pipe("a red ball", **{**settings, **arguments}, generator=generator).frames


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))


def test_a_picture_changes_the_video(pipe):
    without = latents(pipe)
    assert torch.equal(latents(pipe, control_images=[PICTURE], control_scale=0.0), without)
    changed = latents(pipe, control_images=PICTURE, control_indexes=[2])
    assert (changed - without).abs().mean() > 0.01


def test_two_videos_share_their_pictures(pipe):
    noise = randn(1, 4, 6, 8, 8)
    one = latents(pipe, latents=noise, control_images=[PICTURE])
    two = latents(pipe, latents=noise.repeat(2, 1, 1, 1, 1), control_images=[PICTURE], num_videos_per_prompt=2)
    torch.testing.assert_close(two[1:], one, atol=1e-4, rtol=1e-4)


def test_a_long_clip_is_steered_in_the_windows_of_its_pictures(pipe, rgb, monkeypatch):
    seen = []
    call = rgb.forward
    monkeypatch.setattr(rgb, "forward", lambda *inputs: seen.append(inputs[4][0, 0, :, 0, 0].tolist()) or call(*inputs))
    made = latents(pipe, num_frames=20, num_inference_steps=1, control_images=[PICTURE] * 2, control_indexes=[1, 19])
    assert made.shape[2] == 20
    assert seen == [[0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]]  # three windows, two with a picture


def test_pictures_need_a_network(parts):
    with pytest.raises(InputError, match="SparseCtrl"):
        latents(AnimateDiffPipeline(**parts), control_images=[PICTURE])
