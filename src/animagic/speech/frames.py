"""Features of sound in time with pictures: for every video frame, and for every latent frame, which is four of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from animagic.errors import InputError
from animagic.speech.encoding import FRAME, RATE

FEATURES_PER_SECOND = RATE / FRAME
GROUP = 4
"""Video frames of a latent frame; the first latent frame stands for one."""
CONTEXT = 2
"""Video frames on each side that are heard too."""


def at_frames(features: Tensor, fps: float, frames: int) -> Tensor:
    """The mean of the features over the time that each video frame is shown, i / fps to (i + 1) / fps.

    Args:
        features: (n, layers, channels), 50 a second.
    Returns: (frames, layers, channels).
    Raises: InputError for a rate or number that cannot be, and for features that end before the last frame begins.
    """
    if not (1 <= fps <= 240 and frames >= 1):
        raise InputError(f"fps is {fps} and frames {frames}: give 1 to 240 frames a second, and at least one.")
    if (frames - 1) * FEATURES_PER_SECOND / fps >= len(features):
        raise InputError(
            f"the sound lasts {len(features) / FEATURES_PER_SECOND:.2f} s, {frames} frames {frames / fps:.2f} s: "
            "add silence to the sound, or ask for fewer frames."
        )
    return over_frames(features, fps, range(frames))


def over_frames(features: Tensor, fps: float, frames: range, start: int = 0) -> Tensor:
    """The mean of the features over some video frames; `features` begin at number `start` of the whole sound. After
    their end the last one goes on. (n, layers, channels) -> (frames, layers, channels)."""
    width = FEATURES_PER_SECOND / fps
    edges = torch.arange(frames.start, frames.stop + 1, dtype=torch.float64) * width
    slots = edges[:-1].floor().long()[:, None] + torch.arange(math.ceil(width) + 1)
    starts, ends = (edges[side, None] for side in (slice(None, -1), slice(1, None)))
    shares = (torch.minimum(ends, slots + 1) - torch.maximum(starts, slots)).clamp(min=0) / width
    taken = features[(slots - start).clamp(max=len(features) - 1)]
    return torch.einsum("fk,fklc->flc", shares.to(features), taken)


def per_frame(features: Tensor, fps: float, frames: int, context: int = CONTEXT) -> Tensor:
    """What is heard around each video frame: it and `context` frames on each side; at the ends the last is repeated.

    Arguments and errors are those of `at_frames`. Returns: (frames, 2 context + 1, layers, channels).
    """
    around = torch.arange(frames)[:, None] + torch.arange(-context, context + 1)
    return at_frames(features, fps, frames)[around.clamp(0, frames - 1)]


def per_latent(features: Tensor, fps: float, latents: int, context: int = CONTEXT) -> Tensor:
    """What is heard around each latent frame: its four video frames and `context` on each side.

    Latent frame 0 is video frame 0, which stands there as if it had been shown for all four; latent frame k is video
    frames 4 k - 3 to 4 k, so that `latents` of them are 1 + 4 (latents - 1) video frames.
    Returns: (latents, 4 + 2 context, layers, channels). Raises: as `at_frames`.
    """
    frames = 1 + GROUP * (latents - 1)
    around = GROUP * torch.arange(latents)[:, None] + torch.arange(1 - GROUP - context, context + 1)
    return at_frames(features, fps, frames)[around.clamp(0, frames - 1)]
