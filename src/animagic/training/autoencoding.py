"""Training of the small autoencoder that small models share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..layers.autoencoder import ConvAutoencoder
from .data import to_unit
from .people import PeopleBatches
from .portraits import CELL, PortraitBatches
from .stages import Course, Stage, average_of, save_model, with_start


@dataclass
class ReconstructionObjective:
    """Reconstruction of a video's pixels. Nothing is downloaded.

    Args:
        latent_noise: noise on the latents, so that the decoder learns to forgive a diffusion model's errors. Its
            standard deviation is anything up to that, another for every clip.
        motion: extra weight of a pixel by how much it changes between frames.
        edges: weight of the difference of spatial gradients, which keeps outlines sharp.
        kl: weight of the divergence from the unit Gaussian, for encoders that give one and learn.
        unit: weight of a pull of the latents' mean square to 1.
        equivariance: share of the batches in which a part of the latents, moved by fractions of a latent and shrunk, is
            to be decoded to that part of the picture, as much moved and shrunk. It makes latents smooth, which a
            diffusion model learns sooner (EQ-VAE, arXiv 2502.09509).
    """

    latent_noise: float = 0.0
    motion: float = 4.0
    edges: float = 0.5
    kl: float = 0.0
    unit: float = 0.0
    equivariance: float = 0.0

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        device = generator.device
        video = to_unit(batch["video"].to(device))
        posterior = model.encode(video).latent_dist
        latents = posterior.sample(generator)
        size = self.latent_noise * torch.rand(len(video), 1, 1, 1, 1, generator=generator, device=device)
        mean_square = latents.square().mean()
        if torch.rand((), generator=generator, device=device) < self.equivariance:
            latents, video = _same_part(latents, video, generator)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        whole = {"whole": True} if isinstance(model, ConvAutoencoder) else {}
        error = model.decode(latents + size * noise, **whole).sample - video
        squared = error.square()
        change = torch.zeros_like(video[:, :1])
        if video.shape[2] > 1:
            steps = video.diff(dim=2).abs().amax(1, keepdim=True)
            change[:, :, 1:], change[:, :, :-1] = steps, torch.maximum(change[:, :, :-1], steps)
        loss = ((1 + self.motion * change) * (squared + 0.1 * error.abs())).mean()
        loss = loss + 0.1 * self.edges * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        loss = loss + self.unit * (mean_square - 1).square()
        if self.kl and any(p.requires_grad for p in model.encoder.parameters()):
            loss = loss + self.kl * posterior.kl().mean()
        return loss, {"psnr": float(10 * torch.log10(4 / squared.detach().mean()))}


def _same_part(latents: torch.Tensor, video: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """The same random window of latents and of their pixels, both resampled to fewer latents: at least half as many."""

    def rand() -> float:
        return float(torch.rand((), generator=generator, device=generator.device))

    height, width = latents.shape[-2:]
    shrunk = 0.5 + 0.5 * rand()
    made = [max(1, round(shrunk * length)) for length in (height, width)]
    shown = made[0] / height + (1 - made[0] / height) * rand()  # part of the height and width in the window
    window = torch.tensor([[shown, 0, (1 - shown) * (2 * rand() - 1)], [0, shown, (1 - shown) * (2 * rand() - 1)]])

    def resampled(x: torch.Tensor, sides: list[int]) -> torch.Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        places = window.to(x).expand(len(frames), -1, -1)
        grid = nn.functional.affine_grid(places, [*frames.shape[:2], *sides], align_corners=False)
        part = nn.functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)
        return part.unflatten(0, (len(x), -1)).transpose(1, 2)

    scale = video.shape[-1] // width
    return resampled(latents, made), resampled(video, [scale * length for length in made])


@dataclass(eq=False)
class PortraitCrops(PortraitBatches):
    """Pieces of the clips of `PortraitBatches`, as {"video": uint8 (windows, 3, 4 latents, crop, crop), "index": int}.

    Args:
        crop: height and width of a piece.
        mouths: share of the pieces that hold the middle of a mouth, so that lips and teeth become sharp.
    """

    crop: int = 64
    mouths: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.crop <= min(self.height, self.width):
            raise InputError(f"crop is {self.crop}; clips are {self.width}x{self.height}.")

    def __getitem__(self, step: int) -> dict[str, Any]:
        batch, rng = super().__getitem__(step), np.random.default_rng((self.seed, step, self.crop))
        most, pieces = np.array([self.height, self.width]) - self.crop, []
        for video, mouth in zip(batch["video"], batch["mouth"].amax(1), strict=True):
            corner = rng.integers(most + 1)
            if mouth.any() and rng.random() < self.mouths:
                middle = CELL * (mouth > 0.5 * mouth.max()).nonzero().float().mean(0).numpy()
                corner = (middle - self.crop * rng.uniform(0.2, 0.8, 2)).astype(int).clip(0, most)
            pieces.append(video[..., corner[0] : corner[0] + self.crop, corner[1] : corner[1] + self.crop])
        return {"video": torch.stack(pieces), "index": step}


def _start(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """With `decoder_only` the encoder stays: latents, and what has learned from them, mean what they did."""
    torch.manual_seed(stage.section["training"].get("seed", 0))
    model = with_start(ConvAutoencoder(**stage.section["model"]), stage.section)
    model.encoder.requires_grad_(not stage.section.get("decoder_only", False))
    return model, {}


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write the autoencoder as trained so far, in float16; returns its folder."""
    model = ConvAutoencoder(**recipe["autoencoder"]["model"])
    model.load_state_dict(average_of(root / "autoencoder", "the autoencoder"))
    return save_model(model.half(), root)


_SOURCES = {"people": PeopleBatches, "portraits": PortraitCrops}
_STAGE = Stage("autoencoder", _start, ReconstructionObjective, model=ConvAutoencoder, sources=_SOURCES)
STAGES = [Course([_STAGE], export)]
