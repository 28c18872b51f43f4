"""LoRAs of HunyuanVideo on MagicInfinite, in the names of every tool that makes them."""

import copy

import pytest
import torch
from hunyuan_files import AUDIO, SHAPE, hunyuan
from peft import get_peft_model_state_dict

from animagic import CheckpointError
from animagic.systems.magicinfinite.pipeline import MagicInfinitePipeline
from animagic.systems.magicinfinite.transformer import MagicInfiniteTransformer3DModel
from animagic.systems.magicinfinite.weights import completed_tensors

RANK = 3
# Of a layer in the original names: those in diffusers, with the rows of each.
QKV = {f"attn.to_{x}": 32 for x in "qkv"}
LAYERS = {
    "double_blocks.1.img_attn_qkv": {f"transformer_blocks.1.{name}": rows for name, rows in QKV.items()},
    "double_blocks.0.txt_attn_qkv": {f"transformer_blocks.0.attn.add_{x}_proj": 32 for x in "qkv"},
    "double_blocks.0.img_attn_proj": {"transformer_blocks.0.attn.to_out.0": 32},
    "double_blocks.1.txt_attn_proj": {"transformer_blocks.1.attn.to_add_out": 32},
    "double_blocks.0.img_mod.linear": {"transformer_blocks.0.norm1.linear": 192},
    "double_blocks.1.img_mlp.fc1": {"transformer_blocks.1.ff.net.0.proj": 128},
    "double_blocks.1.txt_mlp.fc2": {"transformer_blocks.1.ff_context.net.2": 32},
    "single_blocks.2.linear1": {
        **{f"single_transformer_blocks.2.{name}": rows for name, rows in QKV.items()},
        "single_transformer_blocks.2.proj_mlp": 128,
    },
    "single_blocks.0.linear2": {"single_transformer_blocks.0.proj_out": 32},
    "single_blocks.1.modulation.linear": {"single_transformer_blocks.1.norm.linear": 96},
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv": {
        f"context_embedder.token_refiner.refiner_blocks.0.{name}": rows for name, rows in QKV.items()
    },
}
COMFY = (
    ("_attn_", "_attn."),
    (".fc1", ".0"),
    (".fc2", ".2"),
    ("mod.linear", "mod.lin"),
    ("modulation.linear", "modulation.lin"),
)


@pytest.fixture(scope="module")
def network():
    network = MagicInfiniteTransformer3DModel(**SHAPE, **AUDIO).eval()
    network.load_state_dict(completed_tensors(network, hunyuan().state_dict()))
    return network


@pytest.fixture
def pipe(network):
    return MagicInfinitePipeline(copy.deepcopy(network))


@pytest.fixture(scope="module")
def change(network):
    """Layer in the original names -> (down, up), at random."""
    draw, pairs = torch.Generator().manual_seed(4), {}
    for layer, parts in LAYERS.items():
        width = network.get_submodule(next(iter(parts))).in_features
        pairs[layer] = (
            torch.randn(RANK, width, generator=draw) * 0.2,
            torch.randn(sum(parts.values()), RANK, generator=draw) * 0.2,
        )
    return pairs


def in_diffusers(change):
    tensors = {}
    for layer, parts in LAYERS.items():
        down, up = change[layer]
        for (name, _), rows in zip(parts.items(), up.split(list(parts.values())), strict=True):
            tensors |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": rows.clone()}
    return tensors


def original(change, prefix, down, up, alpha=None, dots=".", renames=()):
    tensors = {}
    for layer, pair in change.items():
        for old, new in renames:
            layer = layer.replace(old, new)
        name = prefix + layer.replace(".", dots)
        tensors |= {f"{name}.{down}.weight": pair[0], f"{name}.{up}.weight": pair[1]}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def run(network):
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return network(
            torch.randn(1, 4, 2, 4, 6, generator=draw),
            torch.tensor([500.0]),
            torch.randn(1, 6, 16, generator=draw),
            torch.ones(1, 6),
            torch.randn(1, 8, generator=draw),
            guidance=torch.tensor([6000.0]),
        ).sample


@pytest.fixture(scope="module")
def expected(network, change):
    """What W + up @ down makes, computed by hand."""
    changed = copy.deepcopy(network)
    for layer, parts in LAYERS.items():
        down, up = change[layer]
        for name, rows in zip(parts, (up @ down).split(list(parts.values())), strict=True):
            changed.get_submodule(name).weight.data += rows
    return run(changed)


NAMINGS = {
    "diffusers": in_diffusers,
    "authors": lambda change: original(change, "", "lora_A", "lora_B"),
    "transformer.": lambda change: original(change, "transformer.", "lora_A", "lora_B"),
    "kohya": lambda change: original(change, "lora_unet_", "lora_down", "lora_up", RANK, "_"),
    "ComfyUI": lambda change: original(change, "diffusion_model.", "lora_A", "lora_B", renames=COMFY),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_changes_the_same_layers(pipe, change, expected, network, naming):
    pipe.load_lora_weights(NAMINGS[naming](change))
    torch.testing.assert_close(run(pipe.transformer), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(expected, run(network), atol=1e-2)
    pipe.unload_lora_weights()
    assert torch.equal(run(pipe.transformer), run(network))


def test_alpha_counts_and_files_come_back(pipe, change, network, expected, tmp_path):
    twice = original(change, "lora_unet_", "lora_down", "lora_up", 2 * RANK, "_")
    pipe.load_lora_weights(twice, adapter_name="style")
    pipe.set_adapters("style", 0.5)
    torch.testing.assert_close(run(pipe.transformer), expected, rtol=1e-4, atol=1e-5)
    MagicInfinitePipeline.save_lora_weights(tmp_path, get_peft_model_state_dict(pipe.transformer, adapter_name="style"))
    again = MagicInfinitePipeline(copy.deepcopy(network))
    again.load_lora_weights(tmp_path)
    again.set_adapters("default_0", 0.5)
    torch.testing.assert_close(run(again.transformer), expected, rtol=1e-4, atol=1e-5)


def test_a_lora_may_change_what_hears_the_voices(pipe):
    draw = torch.Generator().manual_seed(6)
    name = "transformer.audio_attention.0.attn.to_q"
    pipe.load_lora_weights({
        f"{name}.lora_A.weight": torch.randn(2, 32, generator=draw),
        f"{name}.lora_B.weight": torch.randn(32, 2, generator=draw),
    })  # fmt: skip
    assert pipe.get_active_adapters() == ["default_0"]


@pytest.mark.parametrize(
    ("layer", "rows", "sentence"),
    [
        ("double_blocks.7.img_attn_qkv", 96, r"\.7\..*; this model has no transformer_blocks\.7\.attn\.to_q"),
        ("double_blocks.0.img_attn_qkv", 90, r"shape \[90, 3\]; \[96, 3\] is needed"),
        ("double_blocks.0.img_attn_what", 32, "this model has no double_blocks.0.img_attn_what"),
        ("final_layer.adaLN_modulation.1", 64, "this model has no final_layer.adaLN_modulation.1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(pipe, layer, rows, sentence):
    tensors = {f"{layer}.lora_A.weight": torch.zeros(3, 32), f"{layer}.lora_B.weight": torch.zeros(rows, 3)}
    with pytest.raises(CheckpointError, match=sentence):
        pipe.load_lora_weights(tensors)
