"""Embeddings of scalars."""

from __future__ import annotations

import math

import torch


def sinusoid(x: torch.Tensor, dim: int, max_period: float = 10000.0) -> torch.Tensor:
    """Cosines, then sines, of `x` at `dim / 2` frequencies from 1 down to 1 / max_period. (...,) -> (..., dim)."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(max_period) / half))
    angles = x.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
