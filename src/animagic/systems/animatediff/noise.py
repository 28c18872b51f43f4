"""The noise a clip begins with: FreeNoise for clips longer than a window, FreeInit against flicker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.utils.torch_utils import randn_tensor

from ...errors import InputError

Generators = torch.Generator | list[torch.Generator] | None


def free_noise(
    shape: tuple[int, int, int, int, int], generator: Generators = None, size: int = 16, stride: int = 4
) -> torch.Tensor:
    """Noise whose frames come back, locally shuffled, one window later: far windows then show the same scene.

    The first `size` frames are fresh. Every further group of `stride` frames is the group that lies `size` frames
    before it, in another order. Up to `size` frames it is plain noise; from there on, a longer clip begins like a
    shorter one.

    Args:
        shape: (batch, channels, frames, height, width).
        generator: one, or one for each video; all videos share the order that the first one draws.
        size, stride: frames of a window, and from one window to the next.
    Returns: `shape`, float32 on the CPU, each frame of variance 1.
    Raises: InputError for a stride that is not 1 to `size`.
    Source: FreeNoise (arXiv 2310.15169), section 3.2, "local noise shuffle".
    """
    if not 1 <= stride <= size:
        raise InputError(f"the stride of the noise must be 1 to {size}, the frames of a window, not {stride}.")
    batch, channels, frames, height, width = shape
    fresh = randn_tensor((batch, channels, min(size, frames), height, width), generator=generator, dtype=torch.float32)
    first = generator[0] if isinstance(generator, list) else generator
    order = list(range(min(size, frames)))
    for start in range(size, frames, stride):
        group = order[start - size : start - size + stride]
        order += [group[i] for i in torch.randperm(len(group), generator=first).tolist()]
    return fresh[:, :, order[:frames]]


@dataclass(frozen=True, slots=True)
class FreeInit:
    """Sample several times; each time begin with the low frequencies of the last result, noised again, and fresh high
    ones. Noise in training still carries the video's slow part, pure noise does not: this closes the gap.

    Args:
        iterations: samplings in all.
        method: the low-pass filter: "butterworth", "gaussian", "ideal" (a ball) or "box".
        order: of the Butterworth filter; higher is steeper.
        spatial_stop, temporal_stop: frequencies that are cut, as shares of the highest, in (0, 1].
        fast: fewer steps in the first iterations ("coarse to fine").

    Raises: InputError for a value outside its range.
    Source: FreeInit (arXiv 2312.07537), section 4 and its appendix on filters.
    """

    iterations: int = 3
    method: Literal["butterworth", "gaussian", "ideal", "box"] = "butterworth"
    order: int = 4
    spatial_stop: float = 0.25
    temporal_stop: float = 0.25
    fast: bool = False

    def __post_init__(self):
        if self.iterations < 1 or self.order < 1:
            raise InputError(f"iterations ({self.iterations}) and order ({self.order}) must be at least 1.")
        if self.method not in ("butterworth", "gaussian", "ideal", "box"):
            raise InputError(f"filter {self.method!r} is unknown; choose butterworth, gaussian, ideal or box.")
        if not (0 < self.spatial_stop <= 1 and 0 < self.temporal_stop <= 1):
            raise InputError(
                f"stop frequencies must be above 0 and at most 1, not {self.spatial_stop} and {self.temporal_stop}."
            )

    def steps(self, num_inference_steps: int, iteration: int) -> int:
        """Inference steps of an iteration (from 0)."""
        if not self.fast:
            return num_inference_steps
        return max(1, num_inference_steps * (iteration + 1) // self.iterations)

    def low_pass(self, frames: int, height: int, width: int) -> torch.Tensor:
        """How much of each frequency is kept: (frames, height, width) in [0, 1], frequency 0 in the middle, where
        `torch.fft.fftshift` puts it."""
        t, y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in (frames, height, width))
        stretched = self.spatial_stop / self.temporal_stop * t
        if self.method == "box":
            time, tall, wide = (
                axis.abs() < stop
                for axis, stop in ((t, self.temporal_stop), (y, self.spatial_stop), (x, self.spatial_stop))
            )
            return (time[:, None, None] & tall[:, None] & wide).float()
        squared = stretched[:, None, None] ** 2 + y[:, None] ** 2 + x**2
        if self.method == "ideal":
            return (squared <= 2 * self.spatial_stop).float()
        if self.method == "gaussian":
            return torch.exp(-squared / (2 * self.spatial_stop**2)).float()
        return (1 / (1 + (squared / self.spatial_stop**2) ** self.order)).float()

    def mix(self, clean: torch.Tensor, noise: torch.Tensor, fresh: torch.Tensor, alpha: float) -> torch.Tensor:
        """The noise of the next iteration.

        Args: all (batch, channels, frames, height, width):
            clean: latents that the last iteration made.
            noise: what the FIRST iteration began with.
            fresh: new noise.
            alpha: cumulative product at the noisiest training step, `scheduler.alphas_cumprod[-1]`.
        Returns: float32, of `clean`'s shape.
        """
        noised = alpha**0.5 * clean.float() + (1 - alpha) ** 0.5 * noise.float()
        axes = (-3, -2, -1)
        kept = torch.fft.ifftshift(self.low_pass(*clean.shape[2:]).to(clean.device))
        # low(noised) + high(fresh) = fresh + low(noised - fresh)
        fresh = fresh.float()
        return fresh + torch.fft.ifftn(torch.fft.fftn(noised - fresh, dim=axes) * kept, dim=axes).real
