"""HunyuanVideo's original names of layers, in files of weights and of LoRAs, and what they became in diffusers.

Source: Tencent-Hunyuan/HunyuanVideo, `hyvideo/modules/models.py`. kohya's trainer writes them with underscores, ComfyUI
some of them shorter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from .lora_files import Rename

_TO_QKV = "attn.to_q attn.to_k attn.to_v"
_LINEARS = {"linear_1": "linear_1", "linear_2": "linear_2", "mlp_0": "linear_1", "mlp_2": "linear_2"}
_FEED_FORWARD = {"mlp_fc1": "net.0.proj", "mlp_0": "net.0.proj", "mlp_fc2": "net.2", "mlp_2": "net.2"}
# A place, its underscored name as a pattern -> its name in diffusers, and its layers. One that became several, whose
# rows lay one below another, has the names of all.
_PLACES: dict[str, tuple[str, dict[str, str]]] = {
    r"double_blocks_(\d+)_img_": (
        r"transformer_blocks.\1.",
        {
            "mod_linear": "norm1.linear",
            "mod_lin": "norm1.linear",
            "attn_qkv": _TO_QKV,
            "attn_q_norm": "attn.norm_q",
            "attn_k_norm": "attn.norm_k",
            "attn_proj": "attn.to_out.0",
            **{old: f"ff.{new}" for old, new in _FEED_FORWARD.items()},
        },
    ),
    r"double_blocks_(\d+)_txt_": (
        r"transformer_blocks.\1.",
        {
            "mod_linear": "norm1_context.linear",
            "mod_lin": "norm1_context.linear",
            "attn_qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
            "attn_q_norm": "attn.norm_added_q",
            "attn_k_norm": "attn.norm_added_k",
            "attn_proj": "attn.to_add_out",
            **{old: f"ff_context.{new}" for old, new in _FEED_FORWARD.items()},
        },
    ),
    r"single_blocks_(\d+)_": (
        r"single_transformer_blocks.\1.",
        {
            "modulation_linear": "norm.linear",
            "modulation_lin": "norm.linear",
            "linear1": f"{_TO_QKV} proj_mlp",
            "linear2": "proj_out",
            "q_norm": "attn.norm_q",
            "k_norm": "attn.norm_k",
        },
    ),
    r"txt_in_individual_token_refiner_blocks_(\d+)_": (
        r"context_embedder.token_refiner.refiner_blocks.\1.",
        {
            "norm1": "norm1",
            "norm2": "norm2",
            "self_attn_qkv": _TO_QKV,
            "self_attn_proj": "attn.to_out.0",
            "adaLN_modulation_1": "norm_out.linear",
            **{old: f"ff.{new}" for old, new in _FEED_FORWARD.items()},
        },
    ),
    "txt_in_t_embedder_": ("context_embedder.time_text_embed.timestep_embedder.", _LINEARS),
    "txt_in_c_embedder_": ("context_embedder.time_text_embed.text_embedder.", _LINEARS),
    "txt_in_": ("context_embedder.", {"input_embedder": "proj_in"}),
    "time_in_": ("time_text_embed.timestep_embedder.", _LINEARS),
    "guidance_in_": ("time_text_embed.guidance_embedder.", _LINEARS),
    "vector_in_": ("time_text_embed.text_embedder.", {"in_layer": "linear_1", "out_layer": "linear_2"}),
    "img_in_": ("x_embedder.", {"proj": "proj"}),
    "final_layer_": ("", {"linear": "proj_out"}),
}
_SHIFT_AND_SCALE = "final_layer.adaLN_modulation.1"
"""The one layer whose rows diffusers has in another order."""


def layers_of(name: str) -> str:
    """The layer that an original one, with dots or underscores, became, or the layers with spaces between; the name
    itself where it is none."""
    underscored = name.replace(".", "_")
    for place, (new, layers) in _PLACES.items():
        found = re.match(place, underscored)
        if found and (rest := underscored[found.end() :]) in layers:
            return " ".join(found.expand(new) + layer for layer in layers[rest].split())
    return name


LORA_RENAMES: tuple[Rename, ...] = ((r"^.+$", lambda found: layers_of(found[0])),)
"""For `LoraPart.renames`."""


def is_original(names: Iterable[str]) -> bool:
    """Whether tensors have their original names."""
    return any(name.startswith(("double_blocks.", "single_blocks.")) for name in names)


def converted(name: str, tensor: Tensor, expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """An original tensor as diffusers has it: one, or several.

    expected: the network's tensors by name. What does not fit, or is not known, stays as it is.
    """
    layer, _, leaf = name.rpartition(".")
    if layer == _SHIFT_AND_SCALE:
        shift, scale = tensor.chunk(2)
        yield f"norm_out.linear.{leaf}", torch.cat([scale, shift])
        return
    names = [f"{new}.{leaf}" for new in layers_of(layer).split()]
    rows = [len(expected[new]) for new in names if new in expected]
    if len(names) == 1 or len(rows) < len(names) or sum(rows) != len(tensor):
        yield from ((new, tensor) for new in names)
        return
    for new, part in zip(names, tensor.split(rows), strict=True):
        yield new, part.clone()  # so that the whole need not be kept
