"""Rotary position embedding over a (time, height, width) grid with learned frequency bands."""

from __future__ import annotations

import math

import torch


def rotary_angles(bands: torch.Tensor, frames: range | torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Angles of every token of a grid, in (time, height, width) order.

    Height and width (in tokens) are centred and rescaled, endpoint to endpoint, to a reference shape of 256 tokens with
    the same aspect, so that one set of bands (n,), shared by the three axes, serves every resolution. `frames` are
    those of the timeline. Returns (len(frames) * height * width, 3 n) radians, float32. Source: MAGI-1, section 2.
    """
    bands = bands.float()
    if isinstance(frames, range):
        frames = torch.arange(frames.start, frames.stop, device=bands.device, dtype=torch.float32)
    scale = math.sqrt(height * width / 256)

    def centred(n: int) -> torch.Tensor:
        position = torch.arange(n, device=bands.device, dtype=torch.float32) - (n - 1) / 2
        return position if n == 1 else position / (n - 1) * (n / scale - 1)

    shape = (len(frames), height, width, bands.numel())
    axes = (
        (frames[:, None] * bands)[:, None, None],
        (centred(height)[:, None] * bands)[None, :, None],
        (centred(width)[:, None] * bands)[None, None],
    )
    return torch.cat([axis.expand(shape) for axis in axes], dim=-1).flatten(0, 2)


def apply_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first 2 n dims of `x` (..., dim), halves paired; the rest passes through.

    cos, sin: of the angles of `rotary_angles`, (tokens, n), or a shape that broadcasts to (..., n).
    """
    n = cos.shape[-1]
    # Not slices: each would be padded with zeros to the whole on the way back.
    first, second, rest = x.split((n, n, x.shape[-1] - 2 * n), dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
