"""Noise levels: the time points of flow matching, the betas of DDPM."""

from __future__ import annotations

from typing import Literal

import torch

from ..errors import InputError

_QUARTERS = {"8,16,16": ((0.0, 0.5, 0.75), (2, 1, 1)), "16,16,8": ((0.0, 0.25, 0.5), (1, 1, 2))}


def flow_levels(num_steps: int, shortcut: str = "8,16,16", shift: float = 3.0) -> torch.Tensor:
    """Time points of flow matching from 0 (noise) to 1 (clean): squared, then shifted towards noise.

    Args:
        num_steps: steps; 12 is special: each quarter is cut as `shortcut` says ("8,16,16" or "16,16,8").
        shift: of the resolution; 3 in MAGI-1.
    Returns: (num_steps + 1,) float32.
    Raises: InputError for no steps or an unknown shortcut mode.
    Source: MAGI-1; goldens/magi1/schedules.
    """
    if num_steps < 1:
        raise InputError(f"the number of steps must be at least 1, not {num_steps}.")
    t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    if num_steps == 12:
        within = torch.tensor(_quarter(shortcut)[0], dtype=torch.float64)
        t = torch.cat([((torch.arange(4)[:, None] + within) / 4).flatten(), torch.ones(1, dtype=torch.float64)])
    t = t**2
    t = (t / shift) / (1 + (1 / shift - 1) * t)
    return t.float()


def shortcut_intervals(num_steps: int, shortcut: str = "8,16,16") -> torch.Tensor:
    """How many base steps each step takes at once: (num_steps,) float32; ones except in the 12-step mode."""
    if num_steps == 12:
        return torch.tensor(_quarter(shortcut)[1] * 4, dtype=torch.float32)
    return torch.ones(num_steps)


def _quarter(shortcut: str) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if shortcut not in _QUARTERS:
        raise InputError(f"shortcut mode {shortcut!r} is unknown; choose one of {', '.join(_QUARTERS)}.")
    return _QUARTERS[shortcut]


def ddpm_alphas(
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    schedule: Literal["linear", "scaled_linear"] = "linear",
    num_train_steps: int = 1000,
) -> torch.Tensor:
    """Cumulative products of 1 - beta: (num_train_steps,) float64, from nearly 1 (clean) to nearly 0 (noise).

    Source: DDPM (arXiv 2006.11239); "scaled_linear" is Stable Diffusion's, "linear" is AnimateDiff's.
    """
    if schedule == "linear":
        betas = torch.linspace(beta_start, beta_end, num_train_steps, dtype=torch.float64)
    elif schedule == "scaled_linear":
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=torch.float64) ** 2
    else:
        raise InputError(f"beta schedule {schedule!r} is unknown; choose linear or scaled_linear.")
    return torch.cumprod(1 - betas, dim=0)
