"""Stable Diffusion's UNet with a motion module behind every ResNet (and its attention)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from .inflation import InflatedMixin, by_frame, timestep_by_frame


class MotionUNet(InflatedMixin, UNet2DConditionModel):
    """A text-to-image UNet whose frames see each other through motion modules (arXiv 2307.04725).

    Spatial layers have the names and the configuration of `UNet2DConditionModel`; motion modules those published:
    `down_blocks.I.motion_modules.J.temporal_transformer...`.

    Args:
        motion_attention_block_types, motion_num_attention_heads, motion_num_transformer_blocks, motion_max_length,
            motion_attention_dim_div: see MotionModule.
        motion_cross_attention_dim: channels of the motion prompt; None: those of the prompt.
        motion_resolutions: how much smaller feature maps that get motion modules may be.
        motion_mid_block: one more in the middle (v2). motion_decoder_only: none on the way down.
        motion_norm_num_groups: of the motion modules' norms.
        joint_group_norm: the ResNets' norms take all frames together (v1).
        diffusers_norms: see `use_diffusers_norms`.
        unet_config: those of UNet2DConditionModel.
    """

    ignore_for_config = ["unet_config"]

    @register_to_config
    def __init__(
        self,
        motion_attention_block_types: Sequence[str] = ("Temporal_Self", "Temporal_Self"),
        motion_num_attention_heads: int = 8,
        motion_num_transformer_blocks: int = 1,
        motion_max_length: int = 32,
        motion_attention_dim_div: int = 1,
        motion_cross_attention_dim: int | None = None,
        motion_resolutions: Sequence[int] = (1, 2, 4, 8),
        motion_mid_block: bool = False,
        motion_decoder_only: bool = False,
        joint_group_norm: bool = False,
        motion_norm_num_groups: int = 32,
        diffusers_norms: bool = False,
        **unet_config: Any,
    ):
        super().__init__(**unet_config)
        arguments: dict[str, Any] = {
            "num_attention_heads": motion_num_attention_heads,
            "num_transformer_blocks": motion_num_transformer_blocks,
            "attention_block_types": motion_attention_block_types,
            "max_length": motion_max_length,
            "cross_attention_dim": motion_cross_attention_dim or self.config.cross_attention_dim,
            "attention_dim_div": motion_attention_dim_div,
            "norm_num_groups": motion_norm_num_groups,
        }
        depth = range(len(self.down_blocks))
        self._add_motion(self.down_blocks, depth, () if motion_decoder_only else motion_resolutions, **arguments)
        self._add_motion(self.up_blocks, depth[::-1], motion_resolutions, **arguments)
        self._add_motion([self.mid_block], [0], (1,) if motion_mid_block else (), **arguments)
        self.use_diffusers_norms(diffusers_norms)

    def use_diffusers_norms(self, on: bool = True) -> None:
        """Calculate as diffusers' UNetMotionModel does, or (False) as AnimateDiff was trained and published: then a
        motion module's group norm takes each frame on its own, and a ResNet's in v1 all together; in diffusers it is
        the other way round."""
        blocks = (*self.down_blocks, self.mid_block, *self.up_blocks)
        norms = [norm for block in blocks for resnet in block.resnets for norm in (resnet.norm1, resnet.norm2)]
        self._join_norms((*norms, self.conv_norm_out), self.config.joint_group_norm and not on)
        self._join_motion_norms(on)
        self.register_to_config(diffusers_norms=on)

    def is_motion(self, name: str) -> bool:
        """Whether a parameter or buffer of that name belongs to the motion modules."""
        return "motion_modules." in name

    def motion_state_dict(self) -> dict[str, torch.Tensor]:
        """The motion modules' tensors under their published names."""
        return {name: tensor for name, tensor in self.state_dict().items() if self.is_motion(name)}

    def base_state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors of the base model."""
        return {name: tensor for name, tensor in self.state_dict().items() if not self.is_motion(name)}

    def freeze_base(self) -> None:
        """Only motion modules learn from now on."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_motion(name))

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        motion_hidden_states: torch.Tensor | None = None,
        *,
        timestep_cond: torch.Tensor | None = None,
        added_cond_kwargs: dict[str, Any] | None = None,
        use_motion: bool = True,
        motion_scale: torch.Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> UNet2DConditionOutput | tuple[torch.Tensor]:
        """Predict the noise (or velocity) in the frames of videos.

        Args:
            sample: (batch, channels, frames, height, width) noisy latents.
            timestep: one for all, or (batch,).
            encoder_hidden_states: (batch, length, cross_attention_dim), or (batch * frames, ...): a prompt a frame.
            motion_hidden_states: (batch, length, motion_cross_attention_dim), what the motion modules read; None: the
                prompt of each video's first frame.
            timestep_cond: (batch, time_cond_proj_dim), of a model distilled with guidance.
            added_cond_kwargs: as in diffusers; its tensors have `batch` rows, or one for each frame.
            use_motion: False: every frame on its own, as the base model makes it.
            motion_scale: (frames, 1, height, width) of any size: how strongly each frame moves, and where; 0: not at
                all, 1 or None: as trained.
            others: as in diffusers, with `batch * frames` rows: `down_block_additional_residuals` and
                `mid_block_additional_residual` of a ControlNet, `cross_attention_kwargs`, ...

        Returns `.sample` of the shape of `sample`. Raises: InputError for more frames than the motion modules see.
        """
        batch, _, frames = sample.shape[:3]
        if motion_hidden_states is None:
            motion_hidden_states = encoder_hidden_states[:: max(1, len(encoder_hidden_states) // batch)]
        self.clip.num_frames, self.clip.text, self.clip.use_motion = frames, motion_hidden_states, use_motion
        self.clip.motion_scale = motion_scale

        def each_frame(value: Any) -> Any:
            if isinstance(value, list):  # of the pictures of IP-Adapters
                return [each_frame(one) for one in value]
            own = value is None or len(value) == batch * frames > batch
            return value if own else value.repeat_interleave(frames, dim=0)

        (predicted,) = super().forward(
            by_frame(sample),
            timestep_by_frame(timestep, sample),
            self._text_rows(encoder_hidden_states, batch * frames),
            timestep_cond=timestep_cond,
            added_cond_kwargs={name: each_frame(value) for name, value in (added_cond_kwargs or {}).items()},
            return_dict=False,
            **others,
        )
        predicted = predicted.unflatten(0, (-1, frames)).transpose(1, 2)
        return UNet2DConditionOutput(sample=predicted) if return_dict else (predicted,)
