"""Solvers carry every frame from its noise level to the next. Levels are per frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from .plan import Step

if TYPE_CHECKING:
    from .engine import Timeline


def _per_frame(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(frames,) -> broadcastable to latents (batch, channels, frames, height, width)."""
    return values.to(like.device, like.dtype)[:, None, None]


class Solver(ABC):
    """Knows the schedule. Our own hold no state, so that windows, resumes and devices cannot disturb them."""

    num_steps: int

    @abstractmethod
    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        """One step for each frame of `latents` (batch, channels, frames, h, w) from levels[f] to levels[f] + 1.
        Clean frames (level = num_steps) stay as they are."""

    def advance(self, timeline: Timeline, step: Step, predictions: Sequence[torch.Tensor]) -> None:
        """Write the next state of every frame of the step; where windows overlap, predictions are averaged."""
        if len(step.windows) == 1:
            window, prediction = step.windows[0], predictions[0]
            timeline.write(window.frames, self.step(timeline.read(window.frames), prediction, window.levels))
            return
        frames = step.span
        latents = timeline.read(frames)
        total, share = torch.zeros_like(latents), torch.zeros(len(frames))
        levels = [self.num_steps] * len(frames)
        for window, prediction in zip(step.windows, predictions, strict=True):
            rows = torch.tensor([frame - frames.start for frame in window.frames])
            weights = torch.tensor(window.weights or (1.0,) * len(window.frames))
            # index_add_: a strided window on a short loop may hold a frame twice.
            total.index_add_(2, rows.to(total.device), (prediction * _per_frame(weights, prediction)).to(total))
            share.index_add_(0, rows, weights)
            for row, level in zip(rows.tolist(), window.levels, strict=True):
                levels[row] = level
        timeline.write(frames, self.step(latents, total / _per_frame(share.clamp_min(1e-12), total), levels))


class FlowEuler(Solver):
    """Euler steps of flow matching: x + v (t_next - t).

    Args: times: (num_steps + 1,) from 0 (noise) to 1 (clean), e.g. `flow_levels(64)`.
    """

    def __init__(self, times: torch.Tensor):
        self.times = times
        self.num_steps = len(times) - 1

    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        level = torch.tensor(levels)
        delta = self.times[(level + 1).clamp(max=self.num_steps)] - self.times[level]
        return latents + prediction * _per_frame(delta, latents)


class Ddim(Solver):
    """Deterministic DDIM steps (arXiv 2010.02502, eta = 0).

    Args:
        alphas: cumulative products, as from `ddpm_alphas`.
        timesteps: (num_steps,) indices into `alphas` from noisy to clean.
        prediction_type: what the network predicts: "epsilon" or "v_prediction".
        clip_sample: clip the predicted clean latents to [-1, 1].
    """

    def __init__(
        self,
        alphas: torch.Tensor,
        timesteps: torch.Tensor,
        prediction_type: str = "epsilon",
        clip_sample: bool = False,
    ):
        if prediction_type not in ("epsilon", "v_prediction"):
            raise InputError(f"prediction_type {prediction_type!r} is unknown; choose epsilon or v_prediction.")
        # One entry a level; past the last step the latents are as clean as the first training step.
        self.alphas = torch.cat([alphas[timesteps], alphas[:1], alphas[:1]])
        self.num_steps = len(timesteps)
        self.prediction_type, self.clip_sample = prediction_type, clip_sample

    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        level = torch.tensor(levels)
        # In float32: half precision would round the cleanest alphas to 1.
        alpha, following = (_per_frame(self.alphas[x], latents.float()) for x in (level, level + 1))
        sigma = (1 - alpha).sqrt()
        if self.prediction_type == "epsilon":
            clean, noise = (latents - sigma * prediction) / alpha.sqrt(), prediction
        else:
            clean = alpha.sqrt() * latents - sigma * prediction
            noise = alpha.sqrt() * prediction + sigma * latents
        if self.clip_sample:
            clean = clean.clamp(-1, 1)
            noise = (latents - alpha.sqrt() * clean) / sigma
        moved = following.sqrt() * clean + (1 - following).sqrt() * noise
        still = _per_frame((level >= self.num_steps).float(), latents) > 0
        return torch.where(still, latents, moved.to(latents.dtype))
