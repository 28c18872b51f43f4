"""MagicAnimate's UNet: its frames see each other, and the picture of the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


def _twice(value: Any) -> Any:
    """A tensor, or each of several, with its rows twice; what is none stays."""
    if isinstance(value, tuple):
        return tuple(map(_twice, value))
    return value.repeat(2, *[1] * (value.ndim - 1)) if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class TwiceHook:
    """Gives a block everything twice, but its hidden states if the block before has done so."""

    clip: Clip

    def __call__(self, block: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not self.clip.doubled:
            return None
        return _twice(given), {k: v if k == "hidden_states" else _twice(v) for k, v in named.items()}


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
        for block in (self.mid_block, *self.up_blocks):
            block.register_forward_pre_hook(TwiceHook(self.clip), with_kwargs=True)
        # What the two predictions for a video have in common: the way down, if nothing on it differs.
        self._shares_way_down = fusion_blocks == "midup" and "Temporal_Cross" not in (
            self.config.motion_attention_block_types
        )

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        *arguments: Any,
        references: Mapping[str, torch.Tensor] | None = None,
        also_alone: bool = False,
        mid_block_additional_residual: torch.Tensor | None = None,
        **others: Any,
    ) -> Any:
        """As MotionUNet.

        Args:
            references: what `AppearanceEncoder` says of the pictures of the last videos, one each; None: nobody looks
                at a picture.
            also_alone: predict each video without a picture, too: the result has twice as many rows, those without
                first. What comes before the first look at the picture is computed once.
        """
        self.clip.references, self.clip.doubled = references or {}, also_alone and self._shares_way_down
        if also_alone:
            mid_block_additional_residual = _twice(mid_block_additional_residual)
        if also_alone and not self.clip.doubled:
            sample, encoder_hidden_states = _twice(sample), _twice(encoder_hidden_states)
            if isinstance(timestep, torch.Tensor) and timestep.ndim:
                timestep = _twice(timestep)
            down = others.get("down_block_additional_residuals")
            others["down_block_additional_residuals"] = None if down is None else _twice(tuple(down))
        others["mid_block_additional_residual"] = mid_block_additional_residual
        return super().forward(sample, timestep, encoder_hidden_states, *arguments, **others)
