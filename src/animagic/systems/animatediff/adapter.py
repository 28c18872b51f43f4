"""diffusers' ways to keep AnimateDiff: a text-to-image UNet with a MotionAdapter beside it, a UNetMotionModel, a
SparseControlNetModel. They become this library's networks and back, without a second copy of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel, SparseControlNetModel, UNet2DConditionModel, UNetMotionModel
from torch import Tensor

from ...errors import CheckpointError, InputError
from ...layers.inflation import arguments_for
from ...weights.files import PathLike
from ...weights.fit import build, check, fill, network_of
from ...weights.motion_module import (
    VERSIONS,
    MotionFile,
    diffusers_name,
    motion_name,
    original_names,
    read_motion_module,
)
from .sparse import SparseControlNet
from .unet import AnimateDiffUNet

_TWO_SELF = ("Temporal_Self", "Temporal_Self")


class MotionAdapter(diffusers.MotionAdapter):
    """diffusers' MotionAdapter, which also reads the published files without asking the hub for a configuration."""

    @classmethod
    def from_single_file(
        cls,
        pretrained_model_link_or_path_or_dict: PathLike,
        *,
        torch_dtype: torch.dtype | None = None,
        allow_pickle: bool = False,
        **config: Any,
    ) -> MotionAdapter:
        """The motion modules of a file (.ckpt or .safetensors) in the published layout or diffusers'.

        Args:
            torch_dtype: None: as stored. allow_pickle: read pickles; no code in them is run.
            config: fields of MotionAdapter in which it differs from those published.
        Raises: InputError, CheckpointError, which name the file.
        """
        motion = read_motion_module(Path(pretrained_model_link_or_path_or_dict), allow_pickle=allow_pickle)
        return _adapter(cls, motion.tensors, motion.config, motion.source, torch_dtype, **config)


def _adapter(
    cls: Any, tensors: Mapping[str, Tensor], motion: Mapping[str, Any], source: Any, dtype: Any = None, **config: Any
) -> Any:
    """A MotionAdapter with the tensors, by their published names, of motion modules of AnimateDiffUNet's arguments."""
    widths = [
        len(tensors[f"down_blocks.{i}.motion_modules.0.temporal_transformer.norm.weight"])
        for i in range(8)
        if f"down_blocks.{i}.motion_modules.0.temporal_transformer.norm.weight" in tensors
    ]
    layers = sum(n.startswith("down_blocks.0.") and n.endswith("temporal_transformer.norm.weight") for n in tensors)
    fields = {
        "block_out_channels": tuple(widths),
        "motion_layers_per_block": layers,
        "motion_transformer_layers_per_block": motion.get("motion_num_transformer_blocks", 1),
        "motion_transformer_layers_per_mid_block": motion.get("motion_num_transformer_blocks", 1),
        "motion_num_attention_heads": motion.get("motion_num_attention_heads", 8),
        "motion_norm_num_groups": motion.get("motion_norm_num_groups", 32),
        "motion_max_seq_length": motion["motion_max_length"],
        "use_motion_mid_block": motion["motion_mid_block"],
    }
    made = build(lambda: cls(**fields | config), source)
    named = {diffusers_name(name): tensor for name, tensor in tensors.items()}
    expected = {name: tensor for name, tensor in made.state_dict().items() if not name.endswith("pos_embed.pe")}
    check(expected, named, source)
    return fill(made, named, dtype)


def _one(value: Any, what: str) -> Any:
    """The one value that a field has for every block. Raises InputError."""
    values = set(value) if isinstance(value, list | tuple) else {value}
    if len(values) != 1:
        raise InputError(f"{what} is {value}; only motion modules with one value for every block can be used.")
    return values.pop()


def _motion_of(adapter: diffusers.MotionAdapter) -> MotionFile:
    """The motion modules of an adapter, and the arguments of AnimateDiffUNet that go with them. Raises InputError."""
    config = adapter.config
    if config.conv_in_channels:
        raise InputError("a motion adapter with its own first convolution (PIA) cannot be used; take one without.")
    names = ("motion_transformer_layers_per_block", "motion_num_attention_heads")
    blocks, heads = (_one(config[name], name) for name in names)
    first = config.motion_max_seq_length == VERSIONS["v1"]["motion_max_length"] and not config.use_motion_mid_block
    made = {
        "motion_num_transformer_blocks": blocks,
        "motion_num_attention_heads": heads,
        "motion_norm_num_groups": config.motion_norm_num_groups,
        "motion_max_length": config.motion_max_seq_length,
        "motion_mid_block": bool(config.use_motion_mid_block),
        "motion_resolutions": tuple(2**level for level in range(len(config.block_out_channels))),
        "motion_attention_block_types": _TWO_SELF,
        "joint_group_norm": first,
    }
    tensors = original_names({motion_name(name): tensor for name, tensor in adapter.state_dict().items()})
    return MotionFile(Path("the motion adapter"), "v1" if first else "v3", made, tensors)


def animated(unet: Any, adapter: diffusers.MotionAdapter | None = None) -> AnimateDiffUNet:
    """AnimateDiffUNet of a text-to-image UNet and a motion adapter, or of a UNetMotionModel; it shares their weights,
    and calculates as AnimateDiff was published (see `AnimateDiffUNet.use_diffusers_norms`).

    adapter: None: the UNet's own motion modules. Raises: InputError for a UNet without, CheckpointError for an adapter
    that was made for another base.
    """
    if isinstance(unet, AnimateDiffUNet) and adapter is None:
        return unet
    if isinstance(unet, UNetMotionModel):
        base, motion = _base_of(unet), None if adapter is None else _motion_of(adapter)
        own: dict[str, Any] = {} if motion is None else motion.config
        if motion is None:
            own = _motion_arguments(unet.config) | {"motion_mid_block": bool(unet.config.use_motion_mid_block)}
            first = unet.config.motion_max_seq_length == VERSIONS["v1"]["motion_max_length"]
            own["joint_group_norm"] = first and not unet.config.use_motion_mid_block
    elif adapter is None:
        raise InputError(
            "this UNet makes single pictures; give motion_adapter=MotionAdapter.from_pretrained(...), which moves "
            "them, or AnimateDiffUNet.from_unet2d(unet) to train new motion modules."
        )
    else:
        base, motion = arguments_for(UNet2DConditionModel, unet.config), _motion_of(adapter)
        own = motion.config
    given = original_names({motion_name(name): tensor for name, tensor in unet.state_dict().items()})
    made = network_of(AnimateDiffUNet, base | own, "the UNet")
    if motion is not None:
        motion.check_base(made)
        given = {name: tensor for name, tensor in given.items() if not made.is_motion(name)} | motion.tensors
    check(made.state_dict(), given, "the UNet")
    kind: Any = unet.conv_in.weight
    return fill(made, {name: tensor.to(kind.device, kind.dtype) for name, tensor in given.items()})


def _flat(blocks: Any) -> tuple[str, ...]:
    return tuple(block.replace("BlockMotion", "Block2D") for block in blocks)


def _base_of(network: Any) -> dict[str, Any]:
    """The arguments of the 2-D network in a UNetMotionModel or SparseControlNetModel."""
    kind = UNet2DConditionModel if isinstance(network, UNetMotionModel) else ControlNetModel
    base = arguments_for(kind, network.config)
    for name in ("down_block_types", "up_block_types"):
        if name in base:
            base[name] = _flat(base[name])
    # diffusers' 2-D networks know the number of heads by another name.
    heads = base.pop("num_attention_heads", None) or base.get("attention_head_dim")
    return base | {"attention_head_dim": heads}


def _motion_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the configuration of a UNetMotionModel or SparseControlNetModel."""
    names = ("temporal_transformer_layers_per_block", "motion_num_attention_heads")
    blocks, heads = (_one(config[name], name) for name in names)
    return {
        "motion_num_transformer_blocks": blocks,
        "motion_num_attention_heads": heads,
        "motion_norm_num_groups": config["norm_num_groups"],
        "motion_max_length": config["motion_max_seq_length"],
        "motion_resolutions": tuple(2**level for level in range(len(config["block_out_channels"]))),
    }


def sparse_network(network: SparseControlNetModel) -> SparseControlNet:
    """SparseControlNet of a network in diffusers' layout; it shares its weights. Raises InputError, CheckpointError."""
    config = network.config
    if config.controlnet_conditioning_channel_order != "rgb":
        raise InputError("a SparseCtrl network that reads its pictures as BGR cannot be used; take one that reads RGB.")
    own = arguments_for(SparseControlNet, config) | _motion_arguments(config)
    own["concate_conditioning_mask"] = config.concat_conditioning_mask
    made = network_of(SparseControlNet, _base_of(network) | own, "the SparseCtrl network")
    given = original_names({motion_name(name): tensor for name, tensor in network.state_dict().items()})
    check(made.state_dict(), given, "the SparseCtrl network")
    return fill(made, given)


def apart(unet: AnimateDiffUNet) -> tuple[UNet2DConditionModel, diffusers.MotionAdapter] | None:
    """A UNet as diffusers keeps it: the text-to-image UNet and a motion adapter, which share its weights; None if a
    MotionAdapter cannot hold its motion modules."""
    config = unet.config
    fields = {name: value for name, value in config.items() if name.startswith("motion_")}
    try:
        adapter = _adapter(diffusers.MotionAdapter, unet.motion_state_dict(), fields, "the UNet")
    except (CheckpointError, LookupError):
        return None
    again = _motion_of(adapter).config
    same = ("joint_group_norm", "motion_mid_block", "motion_max_length", "motion_num_transformer_blocks")
    if config.diffusers_norms or any(again[name] != config[name] for name in same):
        return None
    flat = network_of(UNet2DConditionModel, arguments_for(UNet2DConditionModel, config), "the UNet")
    return fill(flat, unet.base_state_dict()), adapter
