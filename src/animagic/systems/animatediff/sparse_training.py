"""Training SparseCtrl: a network that keeps some frames to pictures, on a frozen AnimateDiff (arXiv 2311.16933)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from ...training.data import to_unit
from .sparse import SparseControlNet
from .training import ClipObjective
from .unet import AnimateDiffUNet


def outlines(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (pictures, 3, height, width) in 0..1 to light lines on black, where the brightness changes; the sharpest
    change of each is white."""
    grey = pixels.mean(1, keepdim=True)
    steps = F.pad(grey.diff(dim=3).abs(), (0, 1)) + F.pad(grey.diff(dim=2).abs(), (0, 0, 0, 1))
    return (steps / steps.amax((1, 2, 3), keepdim=True).clamp_min(1 / 255)).expand(-1, 3, -1, -1)


@dataclass(kw_only=True)
class SparseControlObjective(ClipObjective):
    """Predict the noise in the latents of clips of which some frames are visible. The model is a SparseControlNet.

    Visible are the first frame (which begins to move), all frames, or else some at random, any number of them
    (interpolation, prediction, key frames).

    Args:
        unet: what is steered; frozen here.
        first_share, all_share: shares of the clips of which the first frame or all frames are visible.
        sketch: pixels (pictures, 3, height, width) in 0..1 to what a network that reads pixels sees of them, of
            the same shape. A network that reads latents sees the picture itself.
        The others are those of ClipObjective, and so are the batches.
    """

    unet: AnimateDiffUNet
    first_share: float = 0.4
    all_share: float = 0.1
    sketch: Callable[[torch.Tensor], torch.Tensor] = outlines

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unet.eval().requires_grad_(False)

    def choose(self, clips: int, frames: int, generator: torch.Generator) -> torch.Tensor:
        """(clips, frames), True where a frame is visible; at least one of every clip."""
        device = generator.device
        kind = torch.rand(clips, 1, generator=generator, device=device)
        count = torch.randint(1, frames + 1, (clips, 1), generator=generator, device=device)
        rank = torch.rand(clips, frames, generator=generator, device=device).argsort(1).argsort(1)
        first = torch.arange(frames, device=device) == 0
        return torch.where(kind < self.first_share, first, (rank < count) | (kind >= 1 - self.all_share))

    @torch.no_grad()
    def conditions(
        self, network: SparseControlNet, video: torch.Tensor, visible: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The condition and its mask, as SparseControlNet takes them; video: uint8 (clips, 3, frames, height, width),
        visible: (clips, frames)."""
        pixels = video.transpose(1, 2)[visible]
        if network.config.use_simplified_condition_embedding:
            encoded = self.autoencoder.encode(to_unit(pixels)).latent_dist.mode()
            pictures = encoded * self.autoencoder.config.scaling_factor
        else:
            pictures = self.sketch(pixels.float() / 255)
        channels, *size = pictures.shape[1:]
        condition, mask = (pictures.new_zeros(*visible.shape, c, *size) for c in (channels, 1))
        condition[visible], mask[visible] = pictures, 1.0
        return condition.transpose(1, 2), mask.transpose(1, 2)

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        self.unet.to(generator.device)
        video = batch["video"].to(generator.device)
        visible = self.choose(len(video), video.shape[2], generator)
        condition, mask = self.conditions(model, video, visible)

        def controlled(noisy, timesteps, text, motion, *, use_motion):
            again = len(noisy) // len(condition)
            given = (x.repeat(again, 1, 1, 1, 1) for x in (condition, mask))
            down, middle = model(noisy, timesteps, text, *given)
            return self.unet(
                noisy,
                timesteps,
                text,
                motion,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                use_motion=use_motion,
            )

        return super().__call__(controlled, batch, generator)
