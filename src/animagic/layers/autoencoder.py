"""A small convolutional autoencoder for small models: 8 x 8 pixels of one frame, or of four, to one latent."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from ..errors import InputError
from .patches import Size
from .video_autoencoder import VideoAutoencoderMixin

SIDE = 8
"""Pixels of a latent's height and width."""


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(8, channels) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Mean:
    """The distribution of latents that are certain."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean


class ConvAutoencoder(VideoAutoencoderMixin, ModelMixin, ConfigMixin):
    """An autoencoder of `patch_length` x 8 x 8 pixels. Its latents have a mean square of about 1.

    Each latent frame is decoded for itself, so that a video can be decoded as it is made, in pieces of any length. A
    decoder that is trained on noisy latents draws smooth things from a diffusion model's errors.

    Args:
        patch_length: frames of a latent frame. 1: for pictures, (batch, 3, height, width) in [-1, 1]; else for video,
            (batch, 3, frames, height, width).
        latent_channels: of the latents.
        widths: channels at 1/8, 1/4 and 1/2 of the picture's size; multiples of 8.
        scaling_factor: what a pipeline multiplies latents by.
        patch_size: pixels of a latent's height and width.

    Raises: InputError for another patch_size or width.
    """

    __module__ = "animagic"  # where diffusers looks for it when it loads a pipeline

    @register_to_config
    def __init__(
        self,
        patch_length: int = 4,
        latent_channels: int = 10,
        widths: tuple[int, int, int] = (128, 64, 48),
        scaling_factor: float = 1.0,
        patch_size: int = SIDE,
    ):
        super().__init__()
        if patch_size != SIDE:
            raise InputError(f"patch_size is {patch_size}; it can only be {SIDE}.")
        if any(width < 8 or width % 8 for width in widths):
            raise InputError(f"the widths are {', '.join(map(str, widths))}; give multiples of 8.")
        wide, middle, narrow = widths
        pixels = 3 * patch_length
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(SIDE),
            nn.Conv2d(pixels * SIDE**2, wide, 1),
            ResidualBlock(wide),
            ResidualBlock(wide),
            nn.Conv2d(wide, latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, wide, 3, padding=1),
            ResidualBlock(wide),
            ResidualBlock(wide),
            nn.Conv2d(wide, 4 * middle, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(middle),
            nn.Conv2d(middle, 4 * narrow, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(narrow),
            nn.Conv2d(narrow, 4 * pixels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.patch: Size = (patch_length, SIDE, SIDE)

    @apply_forward_hook  # so that offloading brings the weights in for this call too
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Video (batch, 3, T, H, W) -> `latent_dist` over latents (batch, channels, T / 4, H / 8, W / 8); of pictures
        without T.

        T is 1 (an image: one latent frame) or a multiple of 4, H and W are multiples of 8, else InputError.
        """
        length = self.config["patch_length"]
        video = x[:, :, None] if length == 1 and x.ndim == 4 else x
        self.check_video(video)
        if video.shape[2] == 1:
            video = video.expand(-1, -1, length, -1, -1)
        latents = self.run(self._encode, video, encoding=True)
        distribution: Any = Mean(latents[:, :, 0] if x.ndim == 4 else latents)
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True, whole: bool = False) -> DecoderOutput | tuple:
        """Latents (batch, channels, t, h, w) -> `sample`, video (batch, 3, 4 t, 8 h, 8 w) in about [-1, 1]; of pictures
        without t.

        One latent frame of a video gives ONE frame, or all that it holds if `whole`. Raises InputError for another
        shape.
        """
        latents = z[:, :, None] if self.config["patch_length"] == 1 and z.ndim == 4 else z
        self.check_latents(latents, self.config["latent_channels"])
        video = self.run(self._decode, latents, encoding=False)
        if latents.shape[2] == 1 and not whole:
            video = video[:, :, :1]
        if z.ndim == 4:
            video = video[:, :, 0]
        return DecoderOutput(sample=video) if return_dict else (video,)

    def _encode(self, video: Tensor) -> Tensor:
        cells = video.unflatten(2, (-1, self.patch[0])).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return self.encoder(cells).unflatten(0, (len(video), -1)).transpose(1, 2)

    def _decode(self, latents: Tensor) -> Tensor:
        cells = self.decoder(latents.transpose(1, 2).flatten(0, 1)).unflatten(1, (3, -1))
        return cells.unflatten(0, (len(latents), -1)).transpose(1, 2).flatten(2, 3)
