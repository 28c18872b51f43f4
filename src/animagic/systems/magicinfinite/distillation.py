"""Fewer steps and one pass for MagicInfinite, by distribution matching. Source: arXiv 2503.05978, section 3."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...timeline.guidance import branch_shares
from ...training.distribution_matching import DistributionMatching, Examples, FlowMatching
from .denoiser import MagicInfiniteSampling, shifted_times
from .objectives import Conditions, SpeakingObjective, velocity


@dataclass(kw_only=True)
class SpeakingDistillation(DistributionMatching):
    """The student's steps are those of its sampler: of one level, or those of a front.

    Args:
        speaking: how batches are read, without conditions being dropped.
        sampling: the settings of the teacher.
        front_share: share of the samples whose frames stand behind each other, as in the student's `MovingFront`.
        front: latent frames of that.
    """

    speaking: SpeakingObjective
    sampling: MagicInfiniteSampling
    sampling_steps: int = 8
    front_share: float = 0.5
    front: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self.diffusion = FlowMatching(partial(shifted_times, shift=self.sampling.shift), self.sampling.shift)

    def examples(self, batch: dict, generator: torch.Generator) -> Examples:
        device = generator.device
        latents = self.speaking.encode(batch["video"].to(device))
        size, frames = len(latents), latents.shape[2]
        given = self.speaking.conditions(batch, latents, generator)
        weights = self.speaking.weights(batch, torch.ones(size, frames, dtype=torch.bool, device=device), device)
        behind = torch.arange(frames, device=device) * self.sampling_steps // self.front
        in_front = torch.rand(size, 1, generator=generator, device=device) < self.front_share
        return Examples(latents, given, weights, torch.where(in_front, behind, 0))

    def predict(self, network: Any, noisy: Tensor, times: Tensor, conditions: Conditions) -> Tensor:
        return velocity(network, noisy, times, conditions)

    def guided(self, noisy: Tensor, times: Tensor, conditions: Conditions, attenuation: float) -> Tensor:
        settings = self.sampling
        scales = [
            1 + (s - 1) / attenuation for s in (settings.portrait_scale, settings.guidance_scale, settings.voice_scale)
        ]
        guided = torch.zeros_like(noisy)
        for count, weight in enumerate(branch_shares(scales)):
            if weight:
                guided += weight * velocity(self.teacher, noisy, times, conditions.only(count))
        return guided
