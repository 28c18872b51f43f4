"""Normalisation layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LayerNorm1p(nn.Module):
    """LayerNorm over the last dimension whose stored weight is the factor minus one; computed in float32.

    Source: MAGI-1 (arXiv 2505.13211), `apply_layernorm_1p` of its configurations.
    """

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.float(), x.shape[-1:], self.weight.float() + 1, self.bias.float(), self.eps)
