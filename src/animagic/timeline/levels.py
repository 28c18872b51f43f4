"""Noise levels: the time points of flow matching."""

from __future__ import annotations

import torch

from ..errors import InputError

_QUARTERS = {"8,16,16": ((0.0, 0.5, 0.75), (2, 1, 1)), "16,16,8": ((0.0, 0.25, 0.5), (1, 1, 2))}


def flow_times(positions: torch.Tensor, shift: float = 3.0) -> torch.Tensor:
    """Evenly spaced positions (0: noise, 1: clean) -> times: squared, then shifted towards noise."""
    t = positions**2
    return (t / shift) / (1 + (1 / shift - 1) * t)


def flow_levels(num_steps: int, shortcut: str = "8,16,16", shift: float = 3.0) -> torch.Tensor:
    """Time points of flow matching from 0 (noise) to 1 (clean), spaced by `flow_times`: (num_steps + 1,) float32.

    12 steps are special: each quarter is divided as `shortcut` says ("8,16,16" or "16,16,8").
    Raises: InputError for no steps or an unknown shortcut mode. Source: MAGI-1; goldens/magi1/schedules.
    """
    if num_steps < 1:
        raise InputError(f"the number of steps must be at least 1, not {num_steps}.")
    t = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    if num_steps == 12:
        within = torch.tensor(_quarter(shortcut)[0], dtype=torch.float64)
        t = torch.cat([((torch.arange(4)[:, None] + within) / 4).flatten(), torch.ones(1, dtype=torch.float64)])
    return flow_times(t, shift).float()


def shortcut_intervals(num_steps: int, shortcut: str = "8,16,16") -> torch.Tensor:
    """How many base steps each step takes at once: (num_steps,) float32; ones except in the 12-step mode."""
    if num_steps == 12:
        return torch.tensor(_quarter(shortcut)[1] * 4, dtype=torch.float32)
    return torch.ones(num_steps)


def _quarter(shortcut: str) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if shortcut not in _QUARTERS:
        raise InputError(f"shortcut mode {shortcut!r} is unknown; choose one of {', '.join(_QUARTERS)}.")
    return _QUARTERS[shortcut]
