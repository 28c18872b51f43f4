"""MagicAnimate's UNet: its frames see each other, and the picture of the person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional as F

from ...errors import InputError
from ...layers.inflation import Clip
from ...weights.motion_module import MotionParts
from .appearance import transformer_blocks


class ReferenceProcessor(AttnProcessor2_0):
    """Self-attention of frames that also look at a picture, which is the same for all frames of a video.

    Of the videos of a call the last ones look, as many as have features of a picture; the others do without.
    """

    def __init__(self, name: str, clip: Clip):
        super().__init__()
        self.name, self.clip = name, clip

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *arguments: Any, **others: Any) -> torch.Tensor:
        """hidden_states: (batch * frames, tokens, channels)."""
        features = self.clip.references.get(self.name)
        if features is None:
            return super().__call__(attn, hidden_states, *arguments, **others)
        frames = self.clip.num_frames
        alone = len(hidden_states) - len(features) * frames
        own = hidden_states[alone:]

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        def with_picture(project: Any) -> torch.Tensor:
            # Projected once for a video, not for every frame.
            return heads(torch.cat([project(own), project(features).repeat_interleave(frames, dim=0)], dim=1))

        seen = F.scaled_dot_product_attention(heads(attn.to_q(own)), with_picture(attn.to_k), with_picture(attn.to_v))
        seen = attn.to_out[1](attn.to_out[0](seen.transpose(1, 2).flatten(2)))
        if not alone:
            return seen
        return torch.cat([super().__call__(attn, hidden_states[:alone], *arguments, **others), seen])


class MagicAnimateUNet(MotionParts):
    """A text-to-image UNet with motion modules, whose self-attentions also look at a picture; see MotionUNet.

    Args:
        fusion_blocks: where they look at it: "midup" (in the middle and on the way up) or "full".
        unet_config: those of MotionUNet; the published ones are the defaults.
    Source: MagicAnimate, arXiv 2311.16498, section 3.
    """

    __module__ = "animagic"
    ignore_for_config = ["unet_config"]

    @register_to_config
    def __init__(self, fusion_blocks: Literal["midup", "full"] = "midup", **unet_config: Any):
        super().__init__(**{"motion_max_length": 24, "joint_group_norm": True} | unet_config)
        if fusion_blocks not in ("midup", "full"):
            raise InputError(f"fusion_blocks is {fusion_blocks!r}; choose midup or full.")
        processors = dict(self.attn_processors)
        for name in transformer_blocks(self, fusion_blocks):
            processors[f"{name}.attn1.processor"] = ReferenceProcessor(name, self.clip)
        self.set_attn_processor(processors)

    def forward(self, *arguments: Any, references: Mapping[str, torch.Tensor] | None = None, **others: Any) -> Any:
        """As MotionUNet. references: what `AppearanceEncoder` says of the pictures of the last videos, one each; None:
        nobody looks at a picture."""
        self.clip.references = references or {}
        return super().forward(*arguments, **others)
