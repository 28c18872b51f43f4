"""AnimateDiff's motion module: a transformer over time at every pixel. Names of parameters are the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers.models.attention import FeedForward
from torch import nn
from torch.nn import functional as F

from ..errors import InputError

BLOCK_TYPES = ("Temporal_Self", "Temporal_Cross")


def position_table(length: int, channels: int) -> torch.Tensor:
    """(length, channels): sin at even and cos at odd channels, angle = frame * 10000^(-2i / channels)."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TemporalAttention(nn.Module):
    """Attention over the frames of each pixel, or of each pixel and frame to a text.

    max_length: rows of the table of positions, 0: none. text_channels: of the text; None: attention over frames.
    """

    def __init__(self, channels: int, num_heads: int, max_length: int, text_channels: int | None):
        super().__init__()
        self.num_heads = num_heads
        self.is_cross_attention = text_channels is not None
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(text_channels or channels, channels, bias=False)
        self.to_v = nn.Linear(text_channels or channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Dropout(0.0)])
        table = position_table(max_length, channels) if max_length else None
        self.register_buffer("positions", table, persistent=False)
        self.positions: torch.Tensor | None

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (rows, heads, length, head dim)

    def forward(self, hidden_states: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """hidden_states: (batch * pixels, frames, channels); text: (batch, length, text channels) or None."""
        shape = hidden_states.shape
        if self.positions is not None:
            hidden_states = hidden_states + self.positions[: shape[1]].to(hidden_states.dtype)
        source: Any = text if self.is_cross_attention else hidden_states
        if self.is_cross_attention:
            # Every pixel and frame of a video asks the same text: one row a video, so that it is read once.
            hidden_states = hidden_states.reshape(len(source), -1, shape[2])
        query, key, value = (self._heads(x) for x in (self.to_q(hidden_states), self.to_k(source), self.to_v(source)))
        out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.to_out[0](out).view(shape)


class TemporalBlock(nn.Module):
    """Attentions one after another, then a gated feed-forward; each normed before, and added to its input."""

    def __init__(self, channels: int, attentions: Iterable[TemporalAttention]):
        super().__init__()
        self.attention_blocks = nn.ModuleList(attentions)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.attention_blocks)
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, hidden_states: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            hidden_states = hidden_states + attention(norm(hidden_states), text)
        return hidden_states + self.ff(self.ff_norm(hidden_states))


class TemporalTransformer(nn.Module):
    """Blocks of `inner` channels between feature maps of `channels`; its output is added to its input."""

    def __init__(self, channels: int, inner: int, blocks: Iterable[TemporalBlock], norm_num_groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = nn.Linear(inner, channels)

    def forward(self, hidden_states: torch.Tensor, num_frames: int, text: torch.Tensor | None) -> torch.Tensor:
        size = hidden_states.shape[2:]
        # PyTorch's CPU kernel dies in the backward pass of a group norm of channels-last input that needs no gradient.
        x = (
            self.norm(hidden_states.contiguous()).unflatten(0, (-1, num_frames)).flatten(3)
        )  # (batch, frames, channels, pixels)
        x = x.permute(0, 3, 1, 2).flatten(0, 1)  # (batch * pixels, frames, channels)
        x = self.proj_in(x)
        for block in self.transformer_blocks:
            x = block(x, text)
        x = self.proj_out(x).unflatten(0, (-1, math.prod(size)))  # (batch, pixels, frames, channels)
        return hidden_states + x.permute(0, 2, 3, 1).reshape(hidden_states.shape)


class MotionModule(nn.Module):
    """Lets the frames of a video see each other, pixel by pixel. Does nothing until it is trained.

    Args:
        channels: of the feature maps it stands between, a multiple of `norm_num_groups`, which is 32 in all that are
            published, whatever the UNet has.
        num_attention_heads, num_transformer_blocks: of the transformer.
        attention_block_types: of each transformer block: "Temporal_Self" (over frames) or "Temporal_Cross" (to the
            motion prompt).
        max_length: the most frames it can tell apart; 0: no positions.
        cross_attention_dim: channels of the motion prompt.
        attention_dim_div: the transformer is this many times narrower than the feature maps.
        zero_initialize: its output is zero before training.

    Source: AnimateDiff, arXiv 2307.04725, section 4.2.
    """

    def __init__(
        self,
        channels: int,
        num_attention_heads: int = 8,
        num_transformer_blocks: int = 1,
        attention_block_types: Sequence[str] = ("Temporal_Self", "Temporal_Self"),
        max_length: int = 32,
        cross_attention_dim: int | None = None,
        attention_dim_div: int = 1,
        norm_num_groups: int = 32,
        zero_initialize: bool = True,
    ):
        super().__init__()
        if unknown := set(attention_block_types) - set(BLOCK_TYPES):
            raise InputError(
                f"the attention block type {min(unknown)!r} is unknown; choose {' or '.join(BLOCK_TYPES)}."
            )
        self.max_length, heads = max_length, num_attention_heads
        inner = channels // heads // attention_dim_div * heads
        texts = [cross_attention_dim if kind == "Temporal_Cross" else None for kind in attention_block_types]
        blocks = (
            TemporalBlock(inner, (TemporalAttention(inner, heads, max_length, text) for text in texts))
            for _ in range(num_transformer_blocks)
        )
        self.temporal_transformer = TemporalTransformer(channels, inner, blocks, norm_num_groups)
        if zero_initialize:
            nn.init.zeros_(self.temporal_transformer.proj_out.weight)
            nn.init.zeros_(self.temporal_transformer.proj_out.bias)

    def forward(self, hidden_states: torch.Tensor, num_frames: int, text: torch.Tensor | None = None) -> torch.Tensor:
        """hidden_states: (batch * frames, channels, height, width); text: (batch, length, cross_attention_dim).

        Raises: InputError for more frames than there are positions.
        """
        if self.max_length and num_frames > self.max_length:
            raise InputError(
                f"the motion module sees at most {self.max_length} frames together, not {num_frames}; "
                f"use windows of at most {self.max_length} frames."
            )
        return self.temporal_transformer(hidden_states, num_frames, text)
