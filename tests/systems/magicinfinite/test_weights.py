"""MagicInfinite begins where HunyuanVideo ended: every layout of its weights, its exact numbers, and what cannot be."""

import json

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers
from hunyuan_files import AUDIO, SHAPE, as_original, hunyuan
from safetensors.torch import load_file, save_file

from animagic import CheckpointError, InputError
from animagic.checkpoints import from_original
from animagic.systems.magicinfinite.transformer import MagicInfiniteTransformer3DModel
from animagic.systems.magicinfinite.weights import from_hunyuan
from animagic.weights.hunyuan_video import converted

NEW = ("audio_projector.", "audio_attention.")


def given(channels=4, frames=3, guidance=True):
    draw = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 6)
    mask[0, 4:] = 0
    return {
        "hidden_states": torch.randn(2, channels, frames, 4, 6, generator=draw),
        "timestep": torch.tensor([300.0, 800.0]),
        "encoder_hidden_states": torch.randn(2, 6, 16, generator=draw),
        "encoder_attention_mask": mask,
        "pooled_projections": torch.randn(2, 8, generator=draw),
        "guidance": torch.full((2,), 6000.0) if guidance else None,
    }


@torch.no_grad()
def same(ours, theirs, **inputs):
    torch.testing.assert_close(ours(**inputs).sample, theirs(**inputs).sample, rtol=1e-5, atol=1e-5)


def folder_of(network, path, shard="10KB"):
    network.save_pretrained(path, max_shard_size=shard)
    return path


def test_its_numbers_are_hunyuan_videos_until_it_is_trained(tmp_path):
    theirs = hunyuan()
    ours = from_hunyuan(folder_of(theirs, tmp_path / "transformer"), **AUDIO)
    same(ours, theirs, **given())
    assert not ours.training
    draw = torch.Generator().manual_seed(2)
    heard = {
        "speech": torch.randn(2, 2, 3, 8, 3, 16, generator=draw),
        "masks": torch.rand(2, 2, 3, 4, 6, generator=draw),
    }
    known = torch.randn(2, 5, 3, 4, 6, generator=draw)
    noisy = given()
    everything = noisy | heard | {"hidden_states": torch.cat([noisy["hidden_states"], known], dim=1)}
    with torch.no_grad():
        made = ours(**everything).sample
    torch.testing.assert_close(made, theirs(**noisy).sample.detach(), rtol=1e-5, atol=1e-5)
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in ours.parameters())


def test_what_is_new_begins_as_in_a_new_network(tmp_path):
    folder = folder_of(hunyuan(), tmp_path / "transformer")
    before = torch.get_rng_state()
    first, second = (from_hunyuan(tmp_path, num_audio_layers=2, **AUDIO).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    new = MagicInfiniteTransformer3DModel(**SHAPE, num_audio_layers=2, **AUDIO).state_dict()
    assert first.keys() == new.keys()
    started = {name: tensor for name, tensor in first.items() if name.startswith(NEW)}
    assert started
    for name, tensor in started.items():
        assert torch.equal(tensor, second[name]), name
        assert torch.allclose(tensor.std(), new[name].std(), rtol=0.5, atol=1e-3), name
    assert not started["audio_attention.1.attn.to_out.weight"].any()
    assert not torch.equal(started["audio_attention.0.attn.to_q.weight"], started["audio_attention.1.attn.to_q.weight"])
    assert folder.is_dir()


@pytest.mark.parametrize(("channels", "kind"), [(9, "latent_concat"), (8, None)])
def test_an_image_beside_the_noise_is_read_as_before(tmp_path, channels, kind):
    theirs = hunyuan(in_channels=channels, guidance_embeds=False, image_condition_type=kind)
    ours = from_hunyuan(folder_of(theirs, tmp_path), **AUDIO)
    assert ours.config.in_channels == 4
    inputs = given(channels, guidance=False)
    padded = torch.nn.functional.pad(inputs["hidden_states"], (0, 0) * 3 + (0, 9 - channels))
    with torch.no_grad():
        made = ours(**inputs | {"hidden_states": padded}).sample
        torch.testing.assert_close(made, theirs(**inputs).sample, rtol=1e-5, atol=1e-5)


def test_a_first_frame_that_replaced_tokens_is_a_clean_frame(tmp_path):
    # There, guidance is not embedded for the first frame; and the output and the text have one level for all frames.
    theirs = hunyuan(guidance_embeds=False, image_condition_type="token_replace")
    ours = from_hunyuan(folder_of(theirs, tmp_path), **AUDIO)
    inputs = given(guidance=False)
    plain = HunyuanVideoTransformer3DModel(**SHAPE | {"guidance_embeds": False})
    plain.load_state_dict(theirs.state_dict())
    same(ours, plain.eval(), **inputs)


@pytest.mark.parametrize("guidance", [True, False])
def test_the_original_file_is_the_same_network(tmp_path, guidance):
    theirs = hunyuan(guidance_embeds=guidance)
    tensors = as_original(theirs)
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save({"module": tensors}, tmp_path / "mp_rank_00_model_states.pt")
    config = {name: SHAPE[name] for name in SHAPE if name != "in_channels"}  # which the tensors say, as guidance
    for name in ("model.safetensors", "mp_rank_00_model_states.pt"):
        ours = from_hunyuan(tmp_path / name, config=config, allow_pickle=True, **AUDIO)
        assert ours.config.guidance_embeds is guidance
        same(ours, theirs, **given(guidance=guidance))
    with pytest.raises(InputError, match="allow-pickle"):
        from_hunyuan(tmp_path / "mp_rank_00_model_states.pt", config=config)


def test_it_is_read_in_the_dtype_asked_for_or_as_stored(tmp_path):
    folder_of(hunyuan().half(), tmp_path)
    assert {p.dtype for p in from_hunyuan(tmp_path, **AUDIO).parameters()} == {torch.float16}
    assert {p.dtype for p in from_hunyuan(tmp_path, torch_dtype=torch.float32, **AUDIO).parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def published():
    """The whole HunyuanVideo on the meta device, and in the names of its original file."""
    with init_empty_weights():
        network = HunyuanVideoTransformer3DModel()
    return network.state_dict(), as_original(network)


def test_every_name_of_the_13b_model_has_its_place(published):
    with init_empty_weights():
        ours = MagicInfiniteTransformer3DModel()
    theirs, original = published
    expected = ours.state_dict()
    made = {new: part for name, tensor in original.items() for new, part in converted(name, tensor, expected)}
    assert {name: t.shape for name, t in made.items()} == {name: t.shape for name, t in theirs.items()}
    new = {name for name in expected if name not in theirs}
    assert all(name.startswith(NEW) for name in new)
    differing = [name for name in theirs if expected[name].shape != theirs[name].shape]
    assert differing == ["x_embedder.proj.weight"]
    assert sum(t.numel() for t in theirs.values()) == 12_821_012_544
    assert len(ours.audio_attention) == 14


def test_rows_are_as_diffusers_converts_them(published):
    theirs, original = published
    rows = {name: torch.arange(float(len(tensor)))[:, None] for name, tensor in original.items()}
    made = {new: part for name, tensor in rows.items() for new, part in converted(name, tensor, theirs)}
    expected = convert_hunyuan_video_transformer_to_diffusers(dict(rows))
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)


def test_from_original_takes_both_namings():
    theirs = hunyuan()
    for tensors in (theirs.state_dict(), as_original(theirs)):
        ours = from_original("magicinfinite", "transformer", tensors, SHAPE | AUDIO)
        same(ours, theirs, **given())
    tensors = as_original(theirs)
    del tensors["double_blocks.1.img_mod.linear.bias"]
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.1\.norm1\.linear\.bias is missing"):
        from_original("magicinfinite", "transformer", tensors, SHAPE | AUDIO)


def change(folder, **tensors):
    file = folder / "diffusion_pytorch_model.safetensors"
    kept = load_file(file) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in kept.items() if tensor is not None}, file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"proj_out__bias": None}, r"the tensor proj_out\.bias is missing: is it HunyuanVideo"),
        ({"more__bias": torch.zeros(2)}, r"the tensor more\.bias is unexpected"),
        ({"proj_out__bias": torch.zeros(2)}, r"proj_out\.bias has the shape \[2\], not \[16\]"),
        ({"proj_out__bias": torch.zeros(16).to(torch.float8_e4m3fn)}, "is stored as torch.float8_e4m3fn"),
        ({"x_embedder__proj__weight": torch.zeros(32, 10, 1, 2, 2)}, r"\[32, 10, 1, 2, 2\], not \[32, 9, 1, 2, 2\]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, changes, sentence):
    change(folder_of(hunyuan(), tmp_path, "1GB"), **changes)
    with pytest.raises(CheckpointError, match=sentence):
        from_hunyuan(tmp_path, **AUDIO)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"_class_name": "HunyuanVideo15Transformer3DModel"}, "is that of a HunyuanVideo15Transformer3DModel"),
        ({"in_channels": 6}, r"has 6 input channels; 4 \(noisy latents\), 8 .* or 9 \(and a mask\) are needed"),
        ({"has_image_proj": True}, "unknown field 'has_image_proj'"),
        ({"num_audio_layers": 9}, "num_audio_layers is 9; there are 3"),
    ],
)
def test_another_model_is_refused(tmp_path, fields, sentence):
    folder_of(hunyuan(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((CheckpointError, InputError), match=sentence):
        from_hunyuan(tmp_path, **AUDIO)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no transformer of HunyuanVideo under its original names"):
        from_hunyuan(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no weights"):
        from_hunyuan(tmp_path / "nowhere")
