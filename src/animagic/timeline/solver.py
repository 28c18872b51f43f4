"""Solvers carry every frame from its noise level to the next. Levels are per frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch


def per_frame(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(frames,) -> broadcastable to latents (batch, channels, frames, height, width)."""
    return values.to(like.device, like.dtype)[:, None, None]


class Solver(ABC):
    """Knows the schedule. Our own hold no state, so that windows, resumes and devices cannot disturb them."""

    num_steps: int
    timesteps: torch.Tensor
    """The time of each level, in the network's own units."""

    @abstractmethod
    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        """One step for each frame of `latents` (batch, channels, frames, h, w) from levels[f] to levels[f] + 1.
        Clean frames (level = num_steps) stay as they are."""


class FlowEuler(Solver):
    """Euler steps of flow matching: x + v (t_next - t). times: (num_steps + 1,), such as `flow_levels(64)`."""

    def __init__(self, times: torch.Tensor):
        self.times, self.timesteps = times, times * 1000
        self.num_steps = len(times) - 1

    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        level = torch.tensor(levels)
        delta = self.times[(level + 1).clamp(max=self.num_steps)] - self.times[level]
        return latents + prediction * per_frame(delta, latents)
