"""2-D networks of diffusers inflated to videos: frames go through as pictures, and see each other in motion modules.

Source: AnimateDiff, arXiv 2307.04725, section 4.2.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .motion import MotionModule, TemporalTransformer


def arguments_for(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration that are arguments of a class."""
    return {name: value for name, value in config.items() if name in inspect.signature(cls).parameters}


class SharedTextProcessor(AttnProcessor2_0):
    """Attention of all frames of a video to one text, whose keys and values are then made once, not for every frame.

    It takes encoder hidden states with fewer rows than the hidden states: row i belongs to the i-th part of them.
    """

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states=None, **arguments):
        shape = hidden_states.shape
        if encoder_hidden_states is not None:
            hidden_states = hidden_states.reshape(len(encoder_hidden_states), -1, shape[-1])
        return super().__call__(attn, hidden_states, encoder_hidden_states, **arguments).view(shape)


@dataclass
class Clip:
    """The videos of a call, as layers need to know them. They stay those of the last call: threads that share a network
    work on the same clip."""

    num_frames: int = 1
    text: torch.Tensor | None = None
    use_motion: bool = True
    motion_scale: torch.Tensor | None = None
    """How strongly the frames move: (frames, 1, height, width) of any size; None: as trained."""
    references: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Of self-attentions that also look at a picture, by their names: its features (videos, tokens, channels)."""
    doubled: bool = False
    """Whether there are twice as many videos from the middle of the network on."""


class JointGroupNorm(nn.GroupNorm):
    """Group norm over all frames of a video together, as in the ResNets of AnimateDiff v1 (and in the motion modules of
    diffusers)."""

    clip: Clip

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """hidden_states: (batch * frames, channels, height, width)."""
        joint = hidden_states.unflatten(0, (-1, self.clip.num_frames)).transpose(1, 2)
        return super().forward(joint).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class MotionHook:
    """Passes the output of a ResNet or attention through the motion module behind it."""

    block: Any
    index: int
    clip: Clip

    def __call__(self, layer: nn.Module, inputs: Any, output: Any) -> Any:
        block, clip = self.block, self.clip
        if not clip.use_motion or self.index >= len(block.motion_modules):
            return output
        motion, is_resnet = block.motion_modules[self.index], isinstance(output, torch.Tensor)
        still = output if is_resnet else output[0]
        if not is_resnet and torch.is_grad_enabled() and block.gradient_checkpointing:  # ResNets are in a checkpoint
            made = block._gradient_checkpointing_func(motion, still, clip.num_frames, clip.text)
        else:
            made = motion(still, clip.num_frames, clip.text)
        if clip.motion_scale is not None:
            scale = F.interpolate(clip.motion_scale.to(still), still.shape[-2:], mode="bilinear", antialias=True)
            made = torch.lerp(still, made, scale.repeat(len(still) // len(scale), 1, 1, 1).expand_as(still))
        return made if is_resnet else (made,)


@dataclass(frozen=True)
class TimeHook:
    """Lets the time of a video be embedded once, not for every frame of it."""

    clip: Clip

    def __call__(self, layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if isinstance(layer, TimestepEmbedding):
            return output.repeat_interleave(self.clip.num_frames, dim=0)
        return output[:: self.clip.num_frames]


class PassesConfigOn(ModelMixin):
    """A network of diffusers whose constructor passes what it does not know on to that of its base class."""

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        return {"self"}.union(*(inspect.signature(kind).parameters for kind in input_class.__mro__))


class InflatedMixin(PassesConfigOn):
    """What a 2-D network of diffusers needs to read videos. config: the network's."""

    def __init__(self, **config: Any):
        super().__init__(**config)
        self.clip = Clip()
        self.set_default_attn_processor()
        for layer in (self.time_proj, self.time_embedding):
            layer.register_forward_hook(TimeHook(self.clip))

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func: Any = checkpoint) -> None:
        def same_clip(function: Callable[..., Any], *inputs: Any) -> Any:
            then = replace(self.clip)

            def call(*inputs: Any) -> Any:
                vars(self.clip).update(vars(then))  # another call may have come in between
                return function(*inputs)

            return gradient_checkpointing_func(call, *inputs)

        super()._set_gradient_checkpointing(enable, same_clip)

    def _add_motion(
        self, blocks: Iterable[Any], levels: Iterable[int], resolutions: Sequence[int], **arguments: Any
    ) -> None:
        """Give every block a list of motion modules, one a ResNet.

        levels: of each block, the 2-logarithm of how much smaller its feature maps are than the latents; only those
        whose factor is in `resolutions` get modules. arguments: those of `MotionModule` but `channels`.
        """
        for block, level in zip(blocks, levels, strict=True):
            block.motion_modules = nn.ModuleList()
            # After each ResNet comes its attention, if there is any; in the middle it is one ResNet more.
            for index, layer in enumerate(getattr(block, "attentions", None) or block.resnets):
                if 2**level in resolutions:
                    block.motion_modules.append(MotionModule(block.resnets[index].out_channels, **arguments))
                layer.register_forward_hook(MotionHook(block, index, self.clip))

    def _join_norms(self, norms: Iterable[nn.Module], joint: bool) -> None:
        """Let group norms take all frames of a video together, or each frame on its own."""
        for norm in norms:
            if isinstance(norm, nn.GroupNorm):
                norm.__class__ = JointGroupNorm if joint else nn.GroupNorm
                vars(norm)["clip"] = self.clip

    def _join_motion_norms(self, joint: bool) -> None:
        self._join_norms((layer.norm for layer in self.modules() if isinstance(layer, TemporalTransformer)), joint)

    def set_default_attn_processor(self) -> None:
        """Back to the attention of a new network."""
        self.set_attn_processor(
            {name: SharedTextProcessor() if "attn2" in name else AttnProcessor2_0() for name in self.attn_processors}
        )

    def _text_rows(self, text: torch.Tensor, rows: int) -> torch.Tensor:
        """A text for one row a video, where the attention can share it, else for one a frame."""
        shared = all(isinstance(p, SharedTextProcessor) for k, p in self.attn_processors.items() if "attn2" in k)
        return text if shared else text.repeat_interleave(rows // len(text), dim=0)


def by_frame(video: torch.Tensor) -> torch.Tensor:
    """(batch, channels, frames, height, width) to (batch * frames, channels, height, width)."""
    return video.transpose(1, 2).flatten(0, 1)


def timestep_by_frame(timestep: torch.Tensor | float, sample: torch.Tensor) -> torch.Tensor:
    """(batch * frames,), of one timestep or (batch,), for a sample (batch, channels, frames, ...)."""
    return torch.as_tensor(timestep, device=sample.device).expand(len(sample)).repeat_interleave(sample.shape[2])
