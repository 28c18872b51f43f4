"""A motion module that needs few steps and one pass: distribution matching on a frozen text-to-image model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ...training.distribution_matching import Discrete, DistributionMatching, Examples
from ...training.objectives import NoiseObjective
from .denoiser import AnimateDiffSampling


class Texts(NamedTuple):
    """What the UNet reads, and what it reads without a prompt: (size, length, channels) each."""

    text: torch.Tensor
    motion: torch.Tensor
    empty: torch.Tensor


@dataclass(kw_only=True)
class MotionDistillation(DistributionMatching):
    """DistributionMatching of a UNet with motion modules; batches are those of NoiseObjective.

    Args:
        autoencoder, text_encoder, tokenizer, scheduler_config: see NoiseObjective.
        sampling: how the teacher is guided.
    """

    autoencoder: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    sampling: AnimateDiffSampling

    def __post_init__(self) -> None:
        super().__post_init__()
        self.diffusion = Discrete(self.scheduler_config)
        self.clips = NoiseObjective(self.autoencoder, self.tokenizer, self.scheduler_config, self.text_encoder)

    def examples(self, batch: dict, generator: torch.Generator) -> Examples:
        def read(texts: list[str]) -> torch.Tensor:
            return self.clips.embed(self.teacher, texts, [False] * len(texts), generator.device)

        text = read(batch["captions"])
        motion = read(batch["motions"]) if "motions" in batch else text
        conditions = Texts(text, motion, read([""] * len(text)))
        return Examples(self.clips.encode(batch["video"], generator), conditions)

    def predict(self, network: Any, noisy: torch.Tensor, times: torch.Tensor, conditions: Texts) -> torch.Tensor:
        return network(noisy, times, conditions.text, conditions.motion).sample

    def guided(self, noisy: torch.Tensor, times: torch.Tensor, conditions: Texts, attenuation: float) -> torch.Tensor:
        scale = max(1.0, self.sampling.guidance_scale / attenuation)
        prompted = self.predict(self.teacher, noisy, times, conditions)
        if scale == 1:
            return prompted
        unprompted = self.teacher(noisy, times, conditions.empty, conditions.empty).sample
        return torch.lerp(unprompted, prompted, scale)
