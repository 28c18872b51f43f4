"""The loss of diffusion training: the error of the predicted noise or velocity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn

from ..errors import InputError
from .data import to_unit


class DenoisingError:
    """The error of a network that predicts the noise in latents, or their velocity, by what the schedule says.

    Args:
        scheduler_config: fields of the noise schedule.
        max_snr_weight: a level's error counts SNR^-1/2 times, at most this often; 1: all count alike, as published.
            Where things stand is decided where noise prevails; a small model learns it sooner so.
        min_snr_weight: and at least so often.
    """

    def __init__(self, scheduler_config: dict[str, Any], max_snr_weight: float = 1.0, min_snr_weight: float = 0.0):
        self.scheduler = DDIMScheduler.from_config(scheduler_config)
        kind = self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise InputError(f"networks that predict {kind} cannot be trained here; epsilon or v_prediction can.")
        self.velocity, self.levels = kind == "v_prediction", self.scheduler.config.num_train_timesteps
        self.weights = (min_snr_weight, max_snr_weight)

    def __call__(
        self,
        predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        latents: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | float]:
        """The mean squared error of every sample, (size,), and how much it counts.

        predict: (noisy latents, timesteps) -> prediction; latents, noise: (size, ...); timesteps: (size,).
        """
        noisy: Any = self.scheduler.add_noise(latents, noise, timesteps)
        target: Any = self.scheduler.get_velocity(latents, noise, timesteps) if self.velocity else noise
        error = (predict(noisy, timesteps).float() - target).square().mean(tuple(range(1, latents.ndim)))
        least, most = self.weights
        if most <= 1:
            return error, 1.0
        kept = self.scheduler.alphas_cumprod.to(error.device)[timesteps]
        return error, ((1 - kept) / kept).sqrt().clamp(least, most)


@dataclass
class NoiseObjective:
    """Predict the noise in the latents of clips or images (arXiv 2006.11239; of clips 2307.04725, equation 3).

    Args:
        autoencoder: frozen.
        scheduler_config: see DenoisingError, as max_snr_weight.
        text_encoder: frozen; None: it is `model.text_encoder`, and learns, too.
        drop_text: share of samples without a caption, for guidance.
        noises: how often every sample is used in a batch, with other noise at other levels; it is encoded once.

    Batches: {"video": uint8 (clips, 3, frames, height, width), "captions": list[str]}, with "motions" for motion
    modules that read a prompt of their own (else they read the caption).
    """

    autoencoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    text_encoder: Any = None
    drop_text: float = 0.1
    noises: int = 1
    max_snr_weight: float = 1.0

    def __post_init__(self) -> None:
        self.error = DenoisingError(self.scheduler_config, self.max_snr_weight)

    def predict(self, model: Any, noisy, timesteps, text: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        """The prediction of the network; motion: embeddings of the motion prompts, for those that read them."""
        return model(noisy, timesteps, text)

    def encode(self, video: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents (clips, channels, frames, height, width), scaled, each frame for itself."""
        pixels = to_unit(video.to(generator.device)).transpose(1, 2).flatten(0, 1)
        latents = self.autoencoder.to(generator.device).encode(pixels).latent_dist.sample(generator)
        return latents.unflatten(0, (len(video), -1)).transpose(1, 2) * self.autoencoder.config.scaling_factor

    def embed(self, model: nn.Module, texts: Sequence[str], dropped: Sequence[bool], device) -> torch.Tensor:
        """(texts, tokens, channels); those that are dropped are empty."""
        encoder: Any = model.text_encoder if self.text_encoder is None else self.text_encoder.to(device)
        texts = ["" if drop else text for text, drop in zip(texts, dropped, strict=True)]
        with torch.set_grad_enabled(self.text_encoder is None):
            return encoder(tokenize(self.tokenizer, texts).to(device))[0]

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        device = generator.device
        with torch.no_grad():
            latents = self.encode(batch["video"], generator)
        dropped = (torch.rand(len(latents), generator=generator, device=device) < self.drop_text).tolist()
        text = self.embed(model, batch["captions"], dropped, device)
        motion = self.embed(model, batch["motions"], dropped, device) if "motions" in batch else text
        latents = latents.repeat(self.noises, 1, 1, 1, 1)
        text, motion = (x.repeat(self.noises, 1, 1) for x in (text, motion))
        size = len(latents)
        # One level from each of `size` equal ranges, so that every batch has seen the whole schedule.
        place = torch.randperm(size, generator=generator, device=device)
        u = (place + torch.rand(size, generator=generator, device=device)) / size
        timesteps = (u * self.error.levels).long()
        noise = torch.randn(latents.shape, generator=generator, device=device)
        error, weight = self.error(lambda x, t: self.predict(model, x, t, text, motion), latents, noise, timesteps)
        late = error.detach()[timesteps >= self.error.levels // 2].mean()  # nan where a batch has none: not logged
        return (weight * error).mean(), {"error": float(error.detach().mean()), "late_error": float(late)}


def tokenize(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Token ids (texts, model_max_length), as Stable Diffusion's pipelines make them."""
    return tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
