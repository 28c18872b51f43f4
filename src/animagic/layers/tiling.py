"""Coding a video tile by tile: less memory, and tiles of the size that the weights know."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from .patches import Size


def fade(before: Tensor, tile: Tensor, overlap: int, dim: int) -> Tensor:
    """A tile whose beginning is blended linearly with the end of the tile before. dim: -1 or -2."""
    overlap = min(overlap, tile.shape[dim])
    share = torch.arange(overlap, device=tile.device, dtype=tile.dtype) / overlap
    begin, rest = tile.split((overlap, tile.shape[dim] - overlap), dim)
    end = before.narrow(dim, before.shape[dim] - overlap, overlap)
    faded = torch.lerp(end, begin, share if dim == -1 else share[:, None])
    return torch.cat((faded, rest), dim)


def tiled(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: Size,
    overlap: Size,
    unit: Size,
    out_unit: Size,
    chained: bool,
    least: int = 1,
) -> Tensor:
    """Run a network on tiles of its input and join what it makes of them.

    Args:
        tile, overlap: frames, height and width of a tile and of its overlap with the next, in latents; frames do
            not overlap.
        unit, out_unit: size of a latent in `x`, and in the result.
        least: frames that the last tile may not be shorter than; what is left over belongs to the one before.
        chained: fade a tile into neighbours that are faded already (MAGI-1's encoder), not into raw ones (its decoder).
    """
    spans = []  # where tiles start, along frames, height and width
    for length, size, shared, per_latent in zip(x.shape[2:], tile, overlap, unit, strict=True):
        latents = -(-length // per_latent)
        spans.append(range(0, latents, size - shared if latents > size else latents))
    frames = -(-x.shape[2] // unit[0])
    if len(spans[0]) > 1 and frames - spans[0][-1] < least:
        spans[0] = spans[0][:-1]
    slices = [
        [slice(start * u, (start + size) * u) for start in span]
        for span, size, u in zip(spans, tile, unit, strict=True)
    ]
    slices[0][-1] = slice(slices[0][-1].start, None)
    pieces = [x[:, :, frames, rows, columns] for frames, rows, columns in product(*slices)]
    results = iter([network(piece) for piece in pieces])  # independent of each other: any device may do any

    height, width = spans[1].step * out_unit[1], spans[2].step * out_unit[2]  # what a tile adds to the video
    clips = []
    for _ in spans[0]:
        raw = [[next(results) for _ in spans[2]] for _ in spans[1]]
        faded: list[list[Tensor]] = []
        neighbours = faded if chained else raw
        for i, row in enumerate(raw):
            faded.append([])
            for j, piece in enumerate(row):
                if i:
                    piece = fade(neighbours[i - 1][j], piece, overlap[1] * out_unit[1], dim=-2)
                if j:
                    piece = fade(neighbours[i][j - 1], piece, overlap[2] * out_unit[2], dim=-1)
                faded[i].append(piece)
        rows = [torch.cat([piece[..., :height, :width] for piece in row], dim=-1) for row in faded]
        clips.append(torch.cat(rows, dim=-2))
    return torch.cat(clips, dim=2)
