"""The UNet whose frames see each other: the picture model frame by frame, and what the motion modules add."""

import json

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch._dynamo.utils import counters

from animagic import AnimateDiffUNet, CheckpointError, InputError
from animagic.layers.inflation import Clip, JointGroupNorm, SharedTextProcessor

FRAMES, LENGTH, DIM = 3, 6, 16
BASE = {
    "sample_size": 8,
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": DIM,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 12,
}
MOTION = {"motion_num_attention_heads": 2, "motion_max_length": 8}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def base(**settings) -> UNet2DConditionModel:
    torch.manual_seed(1)
    unet = UNet2DConditionModel(**{**BASE, **settings}).eval()
    with torch.no_grad():  # every norm and bias takes part
        for parameter in unet.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return unet


def moving(picture: UNet2DConditionModel | None = None, **motion) -> AnimateDiffUNet:
    """With motion modules that do something."""
    unet = AnimateDiffUNet.from_unet2d(picture or base(), **{**MOTION, **motion}).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "temporal_transformer.proj_out" in name:
                parameter += 0.2 * torch.randn_like(parameter)
    return unet


def inputs(batch: int = 2, frames: int = FRAMES, size: tuple[int, int] = (8, 8)) -> dict:
    return {
        "sample": randn(batch, 4, frames, *size),
        "timestep": torch.tensor([700, 20, 300][:batch]),
        "encoder_hidden_states": randn(batch, LENGTH, DIM, seed=1),
    }


def frame_by_frame(picture: UNet2DConditionModel, given: dict, texts: torch.Tensor | None = None, **more):
    """What the picture model says of each frame, (batch, channels, frames, h, w)."""
    sample = given["sample"]
    frames = sample.shape[2]
    texts = given["encoder_hidden_states"].repeat_interleave(frames, 0) if texts is None else texts
    flat = sample.transpose(1, 2).flatten(0, 1)
    made = picture(flat, given["timestep"].repeat_interleave(frames), texts, **more).sample
    return made.unflatten(0, (len(sample), frames)).transpose(1, 2)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def different(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().mean()) > 1e-3


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


# The picture model, frame by frame

SIZES = [(1, 1, (8, 8)), (2, FRAMES, (8, 8)), (1, 2, (7, 5)), (1, 2, (4, 9)), (3, 2, (2, 2))]


@pytest.mark.parametrize(("batch", "frames", "size"), SIZES)
def test_new_motion_modules_change_nothing(batch, frames, size):
    picture = base()
    given = inputs(batch, frames, size)
    expected = frame_by_frame(picture, given)
    assert different(expected, given["sample"])
    close(AnimateDiffUNet.from_unet2d(picture, **MOTION).eval()(**given).sample, expected)
    unet = moving(picture)
    close(unet(**given, use_motion=False).sample, expected)
    if frames > 1:
        assert different(unet(**given).sample, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"layers_per_block": 2, "mid_block_scale_factor": 1.4},
        {"attention_head_dim": (2, 8)},
        {"resnet_time_scale_shift": "scale_shift"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_other_picture_models(settings):
    picture, given = base(**settings), inputs()
    close(moving(picture, motion_mid_block=True)(**given, use_motion=False).sample, frame_by_frame(picture, given))


def test_a_shape_of_sdxl():
    picture = base(**SDXL)
    unet, given = moving(picture), inputs()
    added = {"text_embeds": randn(2, 12, seed=3), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64], [32.0] * 6])}
    repeated = {name: tensor.repeat_interleave(FRAMES, 0) for name, tensor in added.items()}
    expected = frame_by_frame(picture, given, added_cond_kwargs=repeated)
    close(unet(**given, added_cond_kwargs=added, use_motion=False).sample, expected)
    assert different(unet(**given, added_cond_kwargs=added).sample, expected)
    other = added | {"text_embeds": 3 * randn(2, 12, seed=4)}
    assert different(unet(**given, added_cond_kwargs=other).sample, unet(**given, added_cond_kwargs=added).sample)


def test_a_model_that_is_told_the_guidance_scale():
    picture, given, told = base(time_cond_proj_dim=8), inputs(), randn(2, 8, seed=3)
    expected = frame_by_frame(picture, given, timestep_cond=told.repeat_interleave(FRAMES, 0))
    close(moving(picture)(**given, timestep_cond=told, use_motion=False).sample, expected)


def test_what_a_controlnet_adds():
    picture, given = base(), inputs()
    sides = (8, 8, 4, 4)
    down = [randn(2 * FRAMES, 32, side, side, seed=i) for i, side in enumerate(sides)]
    middle = randn(2 * FRAMES, 32, 4, 4, seed=9)
    added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    close(moving(picture)(**given, **added, use_motion=False).sample, frame_by_frame(picture, given, **added))


def test_free_u_is_honoured():
    picture, given = base(), inputs()
    unet, plain = moving(picture), frame_by_frame(base(), given)
    for model in (picture, unet):
        model.enable_freeu(s1=0.4, s2=0.2, b1=1.6, b2=1.8)
    free = frame_by_frame(picture, given)
    close(unet(**given, use_motion=False).sample, free)
    assert different(free, plain)
    unet.disable_freeu()
    close(unet(**given, use_motion=False).sample, plain)


# What goes in


def test_a_timestep_for_all_or_each():
    unet, given = moving(), inputs()
    given["timestep"] = torch.tensor([20, 20])
    expected = unet(**given).sample
    for timestep in (20, torch.tensor(20), torch.tensor([20])):
        close(unet(**given | {"timestep": timestep}).sample, expected)


def test_videos_of_a_batch_do_not_see_each_other():
    unet, given = moving(), inputs()
    one = {name: tensor[1:] for name, tensor in given.items()}
    close(unet(**given).sample[1:], unet(**one).sample)


@pytest.mark.parametrize("own_processor", [False, True])
def test_a_prompt_a_video_is_the_same_prompt_for_every_frame(own_processor):
    unet, given = moving(), inputs()
    if own_processor:
        unet.set_attn_processor(AttnProcessor())
    one = unet(**given).sample
    each = given | {"encoder_hidden_states": given["encoder_hidden_states"].repeat_interleave(FRAMES, 0)}
    close(unet(**each).sample, one)
    close(one, moving()(**given).sample)


def test_a_prompt_a_frame():
    picture = base()
    unet, given = moving(picture), inputs()
    texts = randn(2 * FRAMES, LENGTH, DIM, seed=4)
    made = unet(**given | {"encoder_hidden_states": texts}, use_motion=False).sample
    close(made, frame_by_frame(picture, given, texts))
    assert different(made, unet(**given, use_motion=False).sample)


def test_keys_and_values_of_a_shared_prompt_are_made_once():
    unet, rows = moving(), []
    unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k.register_forward_hook(
        lambda module, given, out: rows.append(len(given[0]))
    )
    unet(**inputs())
    assert rows == [2]


def test_the_motion_text_matters_only_where_it_is_read():
    given, text = inputs(), 3 * randn(2, 4, DIM, seed=7)
    deaf = moving()
    assert torch.equal(deaf(**given, motion_hidden_states=text).sample, deaf(**given).sample)
    reads = moving(motion_attention_block_types=("Temporal_Self", "Temporal_Cross"))
    made = reads(**given, motion_hidden_states=text).sample
    assert different(made, reads(**given).sample)
    # Without one of its own, that of the first frame.
    prompt = given["encoder_hidden_states"]
    close(reads(**given, motion_hidden_states=prompt).sample, reads(**given).sample)
    texts = randn(2 * FRAMES, LENGTH, DIM, seed=4)
    each = given | {"encoder_hidden_states": texts}
    close(reads(**each, motion_hidden_states=texts[::FRAMES]).sample, reads(**each).sample)
    assert torch.equal(
        reads(**given, motion_hidden_states=text, use_motion=False).sample, reads(**given, use_motion=False).sample
    )


def test_a_motion_text_of_other_channels():
    unet = moving(motion_attention_block_types=("Temporal_Cross",), motion_cross_attention_dim=10)
    assert unet(**inputs(), motion_hidden_states=randn(2, 4, 10)).sample.shape == (2, 4, FRAMES, 8, 8)


def test_more_frames_than_positions_are_refused_in_a_sentence():
    unet = moving()
    assert unet(**inputs(1, 8)).sample.shape[2] == 8
    with pytest.raises(InputError, match="at most 8 frames together, not 9; use windows of at most 8 frames"):
        unet(**inputs(1, 9))
    assert unet(**inputs(1, 9), use_motion=False).sample.shape[2] == 9


def test_the_tuple_form():
    unet, given = moving(), inputs()
    (made,) = unet(**given, return_dict=False)
    assert torch.equal(made, unet(**given).sample)


# The motion modules


def test_every_resnet_has_one_and_the_middle_if_asked():
    def where(**motion) -> dict[str, list[int]]:
        unet = moving(base(layers_per_block=2), **motion)
        return {
            "down": [len(block.motion_modules) for block in unet.down_blocks],
            "mid": len(unet.mid_block.motion_modules),
            "up": [len(block.motion_modules) for block in unet.up_blocks],
        }

    assert where() == {"down": [2, 2], "mid": 0, "up": [3, 3]}
    assert where(motion_mid_block=True)["mid"] == 1
    assert where(motion_decoder_only=True) == {"down": [0, 0], "mid": 0, "up": [3, 3]}
    assert where(motion_resolutions=(1, 4)) == {"down": [2, 0], "mid": 0, "up": [0, 3]}
    assert where(motion_resolutions=(2,)) == {"down": [0, 2], "mid": 0, "up": [3, 0]}


def test_the_middle_one_takes_part():
    unet, given = moving(motion_mid_block=True), inputs()
    before = unet(**given).sample
    unet.mid_block.motion_modules = torch.nn.ModuleList()
    assert different(before, unet(**given).sample)


def test_joint_norms_take_all_frames_of_a_video_together():
    picture = base()
    joint, given = moving(picture, joint_group_norm=True), inputs()
    alone = frame_by_frame(picture, given)
    assert different(joint(**given, use_motion=False).sample, alone)
    # Of equal frames, and of one frame, they are the norms of each.
    still = given | {"sample": given["sample"][:, :, :1].expand(-1, -1, FRAMES, -1, -1)}
    close(joint(**still, use_motion=False).sample, frame_by_frame(picture, still))
    one = given | {"sample": given["sample"][:, :, 1:2]}
    close(joint(**one, use_motion=False).sample, alone[:, :, 1:2])
    # Videos stay apart.
    close(joint(**given).sample[:1], joint(**{name: x[:1] for name, x in given.items()}).sample)
    assert sum(isinstance(module, JointGroupNorm) for module in joint.modules()) == 2 * (2 + 2 + 4) + 1


def test_a_joint_norm_is_the_norm_of_a_video():
    norm = JointGroupNorm(4, 8)
    norm.clip = Clip(3)
    x = randn(6, 8, 2, 5)
    plain = torch.nn.functional.group_norm(x.unflatten(0, (2, 3)).transpose(1, 2), 4)
    close(norm(x), plain.transpose(1, 2).flatten(0, 1))


# Files and weights

UNUSUAL = {
    "motion_attention_block_types": ("Temporal_Self", "Temporal_Cross"),
    "motion_num_attention_heads": 4,
    "motion_num_transformer_blocks": 2,
    "motion_max_length": 5,
    "motion_attention_dim_div": 2,
    "motion_cross_attention_dim": 10,
    "motion_resolutions": (2,),
    "motion_mid_block": True,
    "motion_decoder_only": True,
    "joint_group_norm": True,
}


@pytest.mark.parametrize("motion", [{}, UNUSUAL], ids=["plain", "unusual"])
@pytest.mark.parametrize("settings", [{}, SDXL], ids=["sd", "sdxl"])
def test_saved_and_loaded_it_is_the_same(tmp_path, motion, settings):
    unet = moving(base(**settings), **motion)
    unet.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "AnimateDiffUNet"
    loaded = AnimateDiffUNet.from_pretrained(tmp_path)
    public = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    assert {k: _plain(v) for k, v in loaded.config.items() if k in public} == {k: _plain(v) for k, v in public.items()}
    assert loaded.config.motion_max_length == motion.get("motion_max_length", 8)
    ours, theirs = unet.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def test_what_was_loaded_computes_the_same(tmp_path):
    unet, given = moving(), inputs()
    unet.save_pretrained(tmp_path)
    assert torch.equal(AnimateDiffUNet.from_pretrained(tmp_path)(**given).sample, unet(**given).sample)


def test_it_is_made_of_a_picture_model_and_copies_its_weights():
    picture = base().to(torch.float64)
    unet = AnimateDiffUNet.from_unet2d(picture, **MOTION)
    assert unet.dtype == torch.float64
    assert unet.config.block_out_channels == (32, 32)
    assert unet.base_state_dict().keys() == picture.state_dict().keys()
    before = picture.conv_in.weight.clone()
    unet.conv_in.weight.zero_()
    assert torch.equal(picture.conv_in.weight, before)


def test_the_two_halves_are_the_whole():
    unet = moving()
    base_half, motion_half = unet.base_state_dict(), unet.motion_state_dict()
    assert not base_half.keys() & motion_half.keys()
    assert base_half.keys() | motion_half.keys() == unet.state_dict().keys()
    assert "up_blocks.1.motion_modules.0.temporal_transformer.proj_in.weight" in motion_half

    other = AnimateDiffUNet.from_unet2d(base(), **MOTION).eval()
    other.load_motion_state_dict(motion_half)
    assert torch.equal(other(**inputs()).sample, unet(**inputs()).sample)
    other.load_base_state_dict({name: torch.zeros_like(tensor) for name, tensor in base_half.items()})
    assert not other.conv_in.weight.any()
    assert all(torch.equal(tensor, motion_half[name]) for name, tensor in other.motion_state_dict().items())


@pytest.mark.parametrize("half", ["base", "motion"])
def test_a_tensor_that_does_not_fit_is_named(half):
    unet = moving()
    state = getattr(unet, f"{half}_state_dict")()
    load = getattr(unet, f"load_{half}_state_dict")
    name = list(state)[3]
    what = "base model" if half == "base" else "motion module"
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    with pytest.raises(CheckpointError, match=f"the {what}: the tensor {name} is missing"):
        load({key: tensor for key, tensor in zeros.items() if key != name})
    shape = rf"\[{', '.join(map(str, state[name].shape))}\]"
    with pytest.raises(CheckpointError, match=rf"the {what}: the tensor {name} has the shape \[7\], not {shape}"):
        load(zeros | {name: torch.zeros(7)})
    with pytest.raises(CheckpointError, match=f"the {what}: the tensor blocks.9.weight is unexpected"):
        load(zeros | {"blocks.9.weight": torch.zeros(1)})
    # Nothing was taken of what did not fit.
    assert all(torch.equal(tensor, before[key]) for key, tensor in unet.state_dict().items())


def test_a_frozen_base_leaves_the_motion_modules_to_learn():
    unet = moving()
    unet.freeze_base()
    learns = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, _ in unet.named_parameters() if "motion_modules." in name}
    assert learns


# What others do with it


def test_gradient_checkpointing_gives_the_same_gradients():
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        unet = moving(motion_mid_block=True).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with torch.enable_grad():
            unet(**inputs()).sample.square().mean().backward()
        return {name: parameter.grad for name, parameter in unet.named_parameters()}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert gradient is not None, name
        close(again[name], gradient, 1e-6)


def test_another_call_between_a_checkpoint_and_its_gradients_changes_nothing():
    def gradient(another_call: bool) -> torch.Tensor:
        unet = moving(motion_attention_block_types=("Temporal_Cross",), joint_group_norm=True).train()
        unet.enable_gradient_checkpointing()
        with torch.enable_grad():
            loss = unet(**inputs(), motion_hidden_states=randn(2, 4, DIM)).sample.square().mean()
            if another_call:
                unet(**inputs(1, 2), use_motion=False)
            loss.backward()
        return unet.down_blocks[1].motion_modules[0].temporal_transformer.proj_in.weight.grad

    assert gradient(False).any()
    assert torch.equal(gradient(True), gradient(False))


def test_checkpointing_really_computes_again():
    unet, calls = moving().train(), []
    unet.enable_gradient_checkpointing()
    unet.down_blocks[0].motion_modules[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.enable_grad():
        unet(**inputs()).sample.mean().backward()
    assert len(calls) == 2


def ip_adapter(unet: UNet2DConditionModel) -> dict:
    """Random weights of an IP-Adapter, as its file has them: four tokens from an image embedding of 5 channels."""
    weights = {}
    for i, name in enumerate(name for name in unet.attn_processors if "attn2" in name):
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * i + 1}.{part}.weight"] = randn(32, DIM, seed=hash_free(name + part))
    projection = {"proj.weight": randn(4 * DIM, 5, seed=5), "proj.bias": randn(4 * DIM, seed=6)}
    projection |= {"norm.weight": torch.ones(DIM), "norm.bias": torch.zeros(DIM)}
    return {"image_proj": projection, "ip_adapter": weights}


def hash_free(text: str) -> int:
    """A number of a text that is the same in every run."""
    return int(np.frombuffer(text.encode(), np.uint8).astype(int).sum())


def test_an_ip_adapter_shows_its_picture_to_every_frame():
    picture, given = base(), inputs()
    unet = moving(picture)
    plain = unet(**given, use_motion=False).sample
    weights = ip_adapter(picture)
    picture._load_ip_adapter_weights([weights])
    unet._load_ip_adapter_weights([weights])
    kinds = {type(processor) for name, processor in unet.attn_processors.items() if "attn2" in name}
    assert kinds == {IPAdapterAttnProcessor2_0}
    shown = randn(2, 1, 5, seed=8)  # a picture each

    expected = frame_by_frame(picture, given, added_cond_kwargs={"image_embeds": [shown.repeat_interleave(FRAMES, 0)]})
    made = unet(**given, added_cond_kwargs={"image_embeds": [shown]}, use_motion=False).sample
    close(made, expected)
    assert different(made, plain)
    # A prompt a frame beside it.
    texts = randn(2 * FRAMES, LENGTH, DIM, seed=4)
    each = given | {"encoder_hidden_states": texts, "added_cond_kwargs": {"image_embeds": [shown]}}
    shown = shown.repeat_interleave(FRAMES, 0)
    close(
        unet(**each, use_motion=False).sample,
        frame_by_frame(picture, given, texts, added_cond_kwargs={"image_embeds": [shown]}),
    )
    assert unet(**each).sample.shape == given["sample"].shape


def test_attention_over_a_picture_stays_diffusers_own():
    kinds = {name.split(".")[-2]: type(processor) for name, processor in moving().attn_processors.items()}
    assert kinds == {"attn1": AttnProcessor2_0, "attn2": SharedTextProcessor}


@pytest.mark.integration
def test_it_compiles_to_one_graph():
    torch.compiler.reset()
    counters.clear()
    blocks = {"block_out_channels": (32,), "down_block_types": ("CrossAttnDownBlock2D",)}
    picture = base(**blocks, up_block_types=("CrossAttnUpBlock2D",))
    unet = moving(picture, motion_attention_block_types=("Temporal_Self", "Temporal_Cross"), joint_group_norm=True)
    compiled = torch.compile(unet, fullgraph=True, backend="eager")
    given = inputs(1, 4) | {"motion_hidden_states": randn(1, 4, DIM, seed=3)}
    for _ in range(2):
        close(compiled(**given).sample, unet(**given).sample)
    assert counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()
