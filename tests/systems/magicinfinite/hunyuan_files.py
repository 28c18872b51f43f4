"""HunyuanVideo's published files, made here, tiny and random."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from animagic.weights.hunyuan_video import layers_of

SHAPE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "num_refiner_layers": 1,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}
AUDIO = {"audio_layers": 3, "audio_channels": 16, "audio_tokens": 5}


def hunyuan(seed: int = 0, **changes: Any) -> HunyuanVideoTransformer3DModel:
    """A transformer whose weights all do something."""
    network = HunyuanVideoTransformer3DModel(**SHAPE | changes)
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
    return network.eval()


def original_names(depth: int = 20, single: int = 40, refiner: int = 2, guidance: bool = True) -> list[str]:
    """The names in HunyuanVideo's original file, written down from its modules."""
    layers = ["img_in.proj", "txt_in.input_embedder", "final_layer.linear", "final_layer.adaLN_modulation.1"]
    layers += [f"txt_in.t_embedder.mlp.{i}" for i in (0, 2)] + [f"txt_in.c_embedder.linear_{i}" for i in (1, 2)]
    layers += [f"{name}.mlp.{i}" for name in ("time_in", *["guidance_in"] * guidance) for i in (0, 2)]
    layers += ["vector_in.in_layer", "vector_in.out_layer"]
    own = ("norm1", "norm2", "self_attn_qkv", "self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    layers += [f"txt_in.individual_token_refiner.blocks.{i}.{name}" for i in range(refiner) for name in own]
    own = tuple(
        f"{of}_{name}"
        for of in ("img", "txt")
        for name in ("mod.linear", "attn_qkv", "attn_proj", "mlp.fc1", "mlp.fc2")
    )
    layers += [f"double_blocks.{i}.{name}" for i in range(depth) for name in own]
    layers += [
        f"single_blocks.{i}.{name}" for i in range(single) for name in ("linear1", "linear2", "modulation.linear")
    ]
    names = [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    norms = [f"double_blocks.{i}.{of}_attn_{x}_norm" for i in range(depth) for of in ("img", "txt") for x in "qk"]
    norms += [f"single_blocks.{i}.{x}_norm" for i in range(single) for x in "qk"]
    return names + [f"{norm}.weight" for norm in norms]


def as_original(network: HunyuanVideoTransformer3DModel) -> dict[str, torch.Tensor]:
    """Its tensors as the original file has them."""
    own, config = network.state_dict(), network.config
    names = original_names(config.num_layers, config.num_single_layers, config.num_refiner_layers)
    tensors = {}
    for name in names if config.guidance_embeds else [name for name in names if "guidance" not in name]:
        layer, _, leaf = name.rpartition(".")
        if layer == "final_layer.adaLN_modulation.1":
            scale, shift = own.pop(f"norm_out.linear.{leaf}").chunk(2)
            tensors[name] = torch.cat([shift, scale])
        else:
            tensors[name] = torch.cat([own.pop(f"{new}.{leaf}") for new in layers_of(layer).split()])
    assert not own
    return tensors
