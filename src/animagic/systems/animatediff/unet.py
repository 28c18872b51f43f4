"""Stable Diffusion's UNet with a motion module behind every ResNet (and its attention)."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.torch_utils import apply_freeu
from torch import nn
from torch.nn import functional as F

from ...weights.fit import check
from .motion import MotionModule


class SharedTextProcessor(AttnProcessor2_0):
    """Attention of all frames of a video to one text, whose keys and values are then made once, not for every frame.

    It takes encoder hidden states with fewer rows than the hidden states: row i belongs to the i-th part of them.
    """

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states=None, **arguments):
        shape = hidden_states.shape
        if encoder_hidden_states is not None:
            hidden_states = hidden_states.reshape(len(encoder_hidden_states), -1, shape[-1])
        return super().__call__(attn, hidden_states, encoder_hidden_states, **arguments).view(shape)


class JointGroupNorm(nn.GroupNorm):
    """Group norm over all frames of a video together, as in AnimateDiff v1."""

    num_frames = 1  # set by the UNet, for the length of a call

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states: (batch * frames, channels, height, width)."""
        joint = hidden_states.unflatten(0, (-1, self.num_frames)).transpose(1, 2)
        normed = F.group_norm(joint, self.num_groups, self.weight, self.bias, self.eps)
        return normed.transpose(1, 2).flatten(0, 1)


def _join_norm(parent: nn.Module, name: str) -> None:
    old = getattr(parent, name)
    joint = JointGroupNorm(old.num_groups, old.num_channels, old.eps, old.affine)
    joint.load_state_dict(old.state_dict())
    setattr(parent, name, joint)


def add_motion_modules(
    blocks: Iterable[Any], *, resolutions: Sequence[int], levels: Sequence[int], **arguments: Any
) -> None:
    """Give every block of a 2-D network a list of motion modules, one a ResNet.

    levels: of each block, the 2-logarithm of how much smaller its feature maps are than the latents; only those whose
    factor is in `resolutions` get modules. arguments: those of `MotionModule` but `channels`.
    """
    for block, level in zip(blocks, levels, strict=True):
        count = len(block.resnets) if 2**level in resolutions else 0
        block.motion_modules = nn.ModuleList(
            MotionModule(resnet.out_channels, **arguments) for resnet in block.resnets[:count]
        )


def layers(block: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The (resnet, attention, motion module) of a down or up block in order; None where it has none."""
    return itertools.zip_longest(block.resnets, getattr(block, "attentions", ()), block.motion_modules)


def run_layer(block, resnet, attention, motion, hidden_states, emb, text, num_frames, motion_text, arguments):
    """One ResNet with what follows it; motion=None: each frame on its own."""

    def attend(x: torch.Tensor) -> torch.Tensor:
        return attention(x, encoder_hidden_states=text, cross_attention_kwargs=arguments, return_dict=False)[0]

    def call(function, *inputs):
        if torch.is_grad_enabled() and block.gradient_checkpointing:
            return block._gradient_checkpointing_func(function, *inputs)
        return function(*inputs)

    hidden_states = call(resnet, hidden_states, emb)
    if attention is not None:
        hidden_states = call(attend, hidden_states)
    if motion is not None:
        hidden_states = call(motion, hidden_states, num_frames, motion_text)
    return hidden_states


class AnimateDiffUNet(UNet2DConditionModel):
    """A text-to-image UNet whose frames see each other through motion modules (arXiv 2307.04725).

    Spatial layers have the names and the configuration of `UNet2DConditionModel`; motion modules those published:
    `down_blocks.I.motion_modules.J.temporal_transformer...`.

    Args:
        motion_attention_block_types, motion_num_attention_heads, motion_num_transformer_blocks, motion_max_length,
            motion_attention_dim_div: see MotionModule.
        motion_cross_attention_dim: channels of the motion prompt; None: those of the prompt.
        motion_resolutions: how much smaller feature maps that get motion modules may be.
        motion_mid_block: one more in the middle (v2). motion_decoder_only: none on the way down.
        joint_group_norm: the ResNets' norms take all frames together (v1).
        unet_config: those of UNet2DConditionModel.
    """

    # Where it is found by that name; diffusers takes a module called "animatediff" for its own.
    __module__ = "animagic"

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
        **unet_config: Any,
    ):
        super().__init__(**unet_config)
        self.register_to_config(
            motion_attention_block_types=tuple(motion_attention_block_types),
            motion_num_attention_heads=motion_num_attention_heads,
            motion_num_transformer_blocks=motion_num_transformer_blocks,
            motion_max_length=motion_max_length,
            motion_attention_dim_div=motion_attention_dim_div,
            motion_cross_attention_dim=motion_cross_attention_dim,
            motion_resolutions=tuple(motion_resolutions),
            motion_mid_block=motion_mid_block,
            motion_decoder_only=motion_decoder_only,
            joint_group_norm=joint_group_norm,
        )
        arguments: dict[str, Any] = {
            "num_attention_heads": motion_num_attention_heads,
            "num_transformer_blocks": motion_num_transformer_blocks,
            "attention_block_types": motion_attention_block_types,
            "max_length": motion_max_length,
            "cross_attention_dim": motion_cross_attention_dim or self.config.cross_attention_dim,
            "attention_dim_div": motion_attention_dim_div,
        }
        depth = range(len(self.down_blocks))
        down = () if motion_decoder_only else motion_resolutions
        add_motion_modules(self.down_blocks, resolutions=down, levels=depth, **arguments)
        add_motion_modules(self.up_blocks, resolutions=motion_resolutions, levels=depth[::-1], **arguments)
        self.mid_block.motion_modules = nn.ModuleList()
        if motion_mid_block:
            channels = self.config.block_out_channels[-1]
            self.mid_block.motion_modules.append(MotionModule(channels, **arguments))
        self._joint_norms: list[JointGroupNorm] = []
        if joint_group_norm:
            for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
                for resnet in block.resnets:
                    _join_norm(resnet, "norm1")
                    _join_norm(resnet, "norm2")
            _join_norm(self, "conv_norm_out")
            self._joint_norms = [module for module in self.modules() if isinstance(module, JointGroupNorm)]
        processors = self.attn_processors
        self.set_attn_processor(
            {k: SharedTextProcessor() if "attn2" in k else processor for k, processor in processors.items()}
        )

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        # diffusers takes the fields of a configuration from the constructor, which here has some of them in `**`.
        return {
            *inspect.signature(input_class).parameters,
            *inspect.signature(UNet2DConditionModel).parameters,
            "self",
        } - {"unet_config"}

    @classmethod
    def from_unet2d(cls, unet: UNet2DConditionModel, **motion_config: Any) -> AnimateDiffUNet:
        """The UNet of a text-to-image model with new motion modules, which do nothing yet; weights are copied."""
        known = inspect.signature(UNet2DConditionModel).parameters
        config = {k: v for k, v in unet.config.items() if k in known}
        made = cls(**config, **motion_config).to(unet.device)
        if made.dtype != unet.dtype:
            made.to(unet.dtype)
        made.load_base_state_dict(unet.state_dict())
        return made

    def is_motion(self, name: str) -> bool:
        """Whether a parameter or buffer of that name belongs to the motion modules."""
        return "motion_modules." in name

    def motion_state_dict(self) -> dict[str, torch.Tensor]:
        """The motion modules' tensors under their published names."""
        return {name: tensor for name, tensor in self.state_dict().items() if self.is_motion(name)}

    def base_state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors of the base model."""
        return {name: tensor for name, tensor in self.state_dict().items() if not self.is_motion(name)}

    def load_base_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Take the weights of a base model. Raises CheckpointError that names the first tensor that does not fit."""
        self._load_part(self.base_state_dict(), state_dict, "the base model")

    def load_motion_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Take motion modules. Raises CheckpointError that names the first tensor that does not fit."""
        self._load_part(self.motion_state_dict(), state_dict, "the motion module")

    def _load_part(self, ours: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], what: str) -> None:
        check(ours, given, what, hint=": is it for another base model?")
        self.load_state_dict(dict(given), strict=False)

    def freeze_base(self) -> None:
        """Only motion modules learn from now on."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_motion(name))

    @contextmanager
    def _joined(self, num_frames: int) -> Iterator[None]:
        for norm in self._joint_norms:
            norm.num_frames = num_frames
        yield

    def _text(self, text: torch.Tensor, rows: int, added_cond_kwargs: dict[str, Any]) -> Any:
        """The prompts as the attention reads them: one row a video where it can share them, else one a frame."""
        processed = self.process_encoder_hidden_states(text, added_cond_kwargs)
        shared = all(isinstance(p, SharedTextProcessor) for k, p in self.attn_processors.items() if "attn2" in k)
        if isinstance(processed, tuple):  # with the pictures of an IP-Adapter
            words, pictures = processed
            words = words.repeat_interleave(rows // len(words), dim=0)
            return words, [picture.repeat_interleave(rows // len(picture), dim=0) for picture in pictures]
        return processed if shared else processed.repeat_interleave(rows // len(processed), dim=0)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        motion_hidden_states: torch.Tensor | None = None,
        *,
        timestep_cond: torch.Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        added_cond_kwargs: dict[str, torch.Tensor] | None = None,
        down_block_additional_residuals: Sequence[torch.Tensor] | None = None,
        mid_block_additional_residual: torch.Tensor | None = None,
        use_motion: bool = True,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[torch.Tensor]:
        """Predict the noise (or velocity) in the frames of videos.

        Args:
            sample: (batch, channels, frames, height, width) noisy latents.
            timestep: one for all, or (batch,).
            encoder_hidden_states: (batch, length, cross_attention_dim), or (batch * frames, ...): a prompt a frame.
            motion_hidden_states: (batch, length, motion_cross_attention_dim), what the motion modules read; None: the
                prompt of each video's first frame.
            timestep_cond: (batch, time_cond_proj_dim), of a model distilled with guidance.
            added_cond_kwargs: as in diffusers; its tensors have `batch` rows.
            down_block_additional_residuals, mid_block_additional_residual: (batch * frames, ...) from a ControlNet.
            use_motion: False: every frame on its own, as the base model makes it.

        Returns `.sample` of the shape of `sample`. Raises: InputError for more frames than the motion modules see.
        """
        batch, _, frames = sample.shape[:3]
        if motion_hidden_states is None:
            motion_hidden_states = encoder_hidden_states[:: max(1, len(encoder_hidden_states) // batch)]
        added_cond_kwargs = added_cond_kwargs or {}
        emb = self.time_embedding(self.get_time_embed(sample, timestep), timestep_cond)
        added = self.get_aug_embed(emb, encoder_hidden_states, added_cond_kwargs)
        emb = emb if added is None else emb + added
        emb = (emb if self.time_embed_act is None else self.time_embed_act(emb)).repeat_interleave(frames, dim=0)
        text = self._text(encoder_hidden_states, batch * frames, added_cond_kwargs)
        rest = (emb, text, frames, motion_hidden_states, cross_attention_kwargs)
        # Feature maps of odd sizes are brought back to what they were on the way down.
        odd = any(side % 2**self.num_upsamplers for side in sample.shape[-2:])

        hidden = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        with self._joined(frames):
            skips = [hidden]
            for block in self.down_blocks:
                for resnet, attention, motion in layers(block):
                    hidden = run_layer(block, resnet, attention, motion if use_motion else None, hidden, *rest)
                    skips.append(hidden)
                for downsampler in block.downsamplers or ():
                    hidden = downsampler(hidden)
                    skips.append(hidden)
            if down_block_additional_residuals is not None:
                skips = [a + b for a, b in zip(skips, down_block_additional_residuals, strict=True)]

            hidden = run_middle(self.mid_block, hidden, *rest, use_motion=use_motion)
            if mid_block_additional_residual is not None:
                hidden = hidden + mid_block_additional_residual

            for block in self.up_blocks:
                free = {name: getattr(block, name, None) for name in ("s1", "s2", "b1", "b2")}
                for resnet, attention, motion in layers(block):
                    skip = skips.pop()
                    if all(free.values()):
                        hidden, skip = apply_freeu(block.resolution_idx, hidden, skip, **free)
                    hidden = torch.cat([hidden, skip], dim=1)
                    hidden = run_layer(block, resnet, attention, motion if use_motion else None, hidden, *rest)
                for upsampler in block.upsamplers or ():
                    hidden = upsampler(hidden, skips[-1].shape[-2:] if odd else None)
            hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        predicted = hidden.unflatten(0, (batch, frames)).transpose(1, 2)
        return UNet2DConditionOutput(sample=predicted) if return_dict else (predicted,)


def run_middle(block, hidden, emb, text, num_frames, motion_text, arguments, *, use_motion: bool = True):
    """The middle block: a ResNet, then attention, motion module and another ResNet."""
    first, *others = block.resnets
    hidden = run_layer(block, first, None, None, hidden, emb, text, num_frames, motion_text, arguments)
    for resnet, attention, motion in itertools.zip_longest(others, block.attentions, block.motion_modules):
        if attention is not None:
            hidden = attention(hidden, encoder_hidden_states=text, cross_attention_kwargs=arguments, return_dict=False)[
                0
            ]
        if motion is not None and use_motion:
            hidden = motion(hidden, num_frames, motion_text)
        hidden = run_layer(block, resnet, None, None, hidden, emb, text, num_frames, motion_text, arguments)
    return hidden
