"""What autoencoders of video have in common: the shapes that they take, slices, tiles, and coding there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.vae import AutoencoderMixin
from torch import Tensor

from ..errors import InputError
from .patches import Size
from .tiling import tiled


class VideoAutoencoderMixin(AutoencoderMixin):
    """Of a video autoencoder: what it takes, slices and tiles; `patch` has frames, height and width of one latent."""

    patch: Size
    tile_latents: ClassVar[int] = 1
    """Latent frames of a tile where nothing else is said."""
    least_tile_latents: ClassVar[int] = 1
    use_slicing = use_tiling = False

    def enable_tiling(
        self, tile_height: int = 256, tile_width: int = 256, tile_frames: int | None = None, overlap: float = 0.25
    ) -> None:
        """Encode and decode in tiles: less memory, and the size that weights were trained on.

        Sizes are pixels and frames (None: the autoencoder's own); `overlap` is the share (0 to 0.5) of a tile's height
        and width that fades into the next tile. Raises InputError.
        """
        tile_frames = self.tile_latents * self.patch[0] if tile_frames is None else tile_frames
        sizes = {"tile_frames": tile_frames, "tile_height": tile_height, "tile_width": tile_width}
        for (name, size), side in zip(sizes.items(), self.patch, strict=True):
            if size < 1 or size % side:
                raise InputError(f"{name} is {size}; give a multiple of {side}.")
        if tile_frames < (least := self.least_tile_latents * self.patch[0]):
            raise InputError(f"tile_frames is {tile_frames}; give at least {least}.")
        if not 0 <= overlap <= 0.5:
            raise InputError(f"overlap is {overlap}; give a share between 0 and 0.5.")
        frames, height, width = (size // side for size, side in zip(sizes.values(), self.patch, strict=True))
        self.tile: Size = (frames, height, width)
        self.tile_overlap: Size = (0, int(height * overlap), int(width * overlap))
        self.use_tiling = True

    def run(self, network: Callable[[Tensor], Tensor], x: Tensor, encoding: bool) -> Tensor:
        """The encoder or decoder on all of its input, in slices and tiles if they are enabled."""
        unit, out_unit = (self.patch, (1, 1, 1)) if encoding else ((1, 1, 1), self.patch)

        def one(part: Tensor) -> Tensor:
            if not self.use_tiling:
                return network(part)
            least = 1 if encoding else self.least_tile_latents
            return tiled(network, part, self.tile, self.tile_overlap, unit, out_unit, encoding, least)

        return torch.cat([one(part) for part in x.split(1)]) if self.use_slicing else one(x)

    def check_video(self, video: Tensor, channels: int = 3) -> None:
        """Raises InputError unless it is (batch, channels, frames, height, width), of one frame or whole latents."""
        _check_shape("video's", video, channels)
        (frames, height, width), (length, side, _) = video.shape[2:], self.patch
        if height % side or width % side:
            raise InputError(f"the video is {width} x {height} pixels; give multiples of {side}.")
        if frames != 1 and frames % length:
            raise InputError(f"the video has {frames} frames; give 1 or a multiple of {length}.")

    def check_latents(self, latents: Tensor, channels: int) -> None:
        """Raises InputError unless they are (batch, channels, frames, height, width)."""
        _check_shape("latents'", latents, channels)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Encode and decode."""
        coder: Any = self
        posterior = coder.encode(sample, return_dict=False)[0]
        return coder.decode(posterior.sample(generator) if sample_posterior else posterior.mode(), return_dict)


def _check_shape(whose: str, x: Tensor, channels: int) -> None:
    if x.ndim != 5 or x.shape[1] != channels:
        raise InputError(f"the {whose} shape is {tuple(x.shape)}; give (batch, {channels}, frames, height, width).")
