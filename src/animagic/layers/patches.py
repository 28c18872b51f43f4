"""Video cut into patches, which become tokens, and back."""

from __future__ import annotations

from torch import Tensor

Size = tuple[int, int, int]  # frames, height, width: of a patch, a grid of patches or a tile


def patchify(video: Tensor, patch: Size) -> Tensor:
    """(batch, channels, frames, height, width) -> (batch, tokens, pixels of a patch x channels)."""
    batch, channels, *size = video.shape
    (t, h, w), (pt, ph, pw) = (length // side for length, side in zip(size, patch, strict=True)), patch
    video = video.view(batch, channels, t, pt, h, ph, w, pw)
    return video.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, t * h * w, pt * ph * pw * channels)


def unpatchify(tokens: Tensor, patch: Size, grid: Size) -> Tensor:
    """The inverse of `patchify`, for a grid of that many patches."""
    video = tokens.unflatten(1, grid).unflatten(-1, (*patch, -1))  # (batch, t, h, w, pt, ph, pw, channels)
    return video.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
