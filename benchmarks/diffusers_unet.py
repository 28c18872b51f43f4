"""diffusers' UNetMotionModel on the weights of an AnimateDiffUNet: what the side-by-side measurements compare with."""

from __future__ import annotations

import re

import torch
from diffusers import UNetMotionModel
from torch import nn

from animagic.systems.animatediff.unet import AnimateDiffUNet

SHARED = (
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "cross_attention_dim",
    "use_linear_projection",
    "transformer_layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)


def diffusers_motion_name(name: str) -> str:
    """The name that diffusers has for a tensor of a motion module with at most two attentions; others stay."""
    if "motion_modules." not in name:
        return name
    name = name.replace(".temporal_transformer.", ".").replace(".ff_norm.", ".norm3.")
    name = re.sub(r"\.norms\.(\d)\.", lambda m: f".norm{int(m[1]) + 1}.", name)
    return re.sub(r"\.attention_blocks\.(\d)\.", lambda m: f".attn{int(m[1]) + 1}.", name)


class PerFrameGroupNorm(nn.GroupNorm):
    """Over each frame, as in the original, where diffusers' motion module takes all frames together."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states: (batch, channels, frames, height, width)."""
        frames = super().forward(hidden_states.transpose(1, 2).flatten(0, 1))
        return frames.unflatten(0, (len(hidden_states), -1)).transpose(1, 2)


def diffusers_unet(unet: AnimateDiffUNet, as_original: bool = True) -> UNetMotionModel:
    """diffusers' UNet with the weights of ours, for v2, v3 and SDXL: v1's ResNets it cannot do.

    It reads a prompt for every frame: (batch * frames, length, channels).

    as_original: mend the norms of its motion modules, so that it computes what the original does; False: as it comes.
    """
    config = unet.config
    if config.joint_group_norm:
        raise ValueError("diffusers has no ResNets with norms over all frames (v1).")
    if tuple(config.motion_attention_block_types) != ("Temporal_Self", "Temporal_Self"):
        raise ValueError("diffusers has motion modules of two self-attentions only.")
    model = UNetMotionModel(
        **{name: config[name] for name in SHARED},
        down_block_types=[kind.replace("2D", "Motion") for kind in config.down_block_types],
        up_block_types=[kind.replace("2D", "Motion") for kind in config.up_block_types],
        num_attention_heads=config.attention_head_dim,  # in diffusers, too, it is the number of heads
        motion_num_attention_heads=config.motion_num_attention_heads,
        motion_max_seq_length=config.motion_max_length,
        use_motion_mid_block=config.motion_mid_block,
        time_cond_proj_dim=config.time_cond_proj_dim,
    )
    tensors = {diffusers_motion_name(name): tensor for name, tensor in unet.state_dict().items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    wrong = [*(name for name in missing if not name.endswith("pos_embed.pe")), *unexpected]
    if wrong:
        raise ValueError(f"the tensor {wrong[0]} has no partner.")
    for name, module in model.named_modules() if as_original else ():
        if "motion_modules" in name and isinstance(module, nn.GroupNorm):
            module.num_groups = 32  # diffusers takes the UNet's number, which is 32, too, at the published sizes
            module.__class__ = PerFrameGroupNorm
    return model.to(unet.device, unet.dtype).eval()
