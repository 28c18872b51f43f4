"""Guidance: a denoiser that wraps a denoiser."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from ..errors import InputError
from .plan import Window
from .solver import per_frame


class Denoiser(Protocol):
    """Predicts noise or velocity for the frames of a window. latents: (batch, channels, frames, height, width)."""

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor: ...


class ConditionalDenoiser(Protocol):
    """A denoiser whose conditions can be taken away.

    text: whether it reads the prompt; history: whether chunks see each other and the cache (without, every chunk is
    on its own and nothing is committed); commit: whether the window's commit frames enter the cache.
    """

    def __call__(
        self, latents: torch.Tensor, window: Window, *, text: bool = True, history: bool = True, commit: bool = True
    ) -> torch.Tensor: ...


class _Guidance:
    """A wrapper whose only state is that of the denoiser inside (a cache)."""

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.denoiser.state_dict() if hasattr(self.denoiser, "state_dict") else {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if hasattr(self.denoiser, "load_state_dict"):
            self.denoiser.load_state_dict(state)


class PairedDenoiser(Protocol):
    """A denoiser that predicts without and with the prompt in one call of the network."""

    def pair(self, latents: torch.Tensor, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        """The predictions (unprompted, prompted)."""
        ...


class TextGuidance(_Guidance):
    """Classifier-free guidance (arXiv 2207.12598): unprompted + scale (prompted - unprompted)."""

    def __init__(self, denoiser: PairedDenoiser, scale: float):
        super().__init__(denoiser)
        self.scale = scale

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        unprompted, prompted = self.denoiser.pair(latents, window)
        return unprompted + self.scale * (prompted - unprompted)


def branch_weights(
    times: torch.Tensor, ranges: Sequence[float], history_scales: Sequence[float], text_scales: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weights of v(alone), v(history) and v(history, text) at each time; see `ChunkGuidance`."""
    starts = torch.tensor(ranges, device=times.device)
    index = (starts <= times[..., None] + 1e-7).sum(-1) - 1
    history, text = (torch.tensor(scales, device=times.device)[index] for scales in (history_scales, text_scales))
    return 1 - history, history - text, text


class ChunkGuidance(_Guidance):
    """MAGI-1's guidance by the text and by the chunks before:
    (1 - p) v(alone) + (p - s) v(history) + s v(history, text), with p and s chosen by each frame's time.

    Args:
        times: the schedule, (num_steps + 1,); a clean frame counts as 1.
        ranges: increasing times at which the next pair of scales begins.
        history_scales, text_scales: p and s of each range.

    A branch whose factor is zero is not run; the alone branch runs for the chunks that need it only. The history
    branch is what fills the cache. Source: MAGI-1, arXiv 2505.13211, section 2; `cfg_t_range` of its configurations.
    """

    def __init__(
        self,
        denoiser: ConditionalDenoiser,
        times: torch.Tensor,
        ranges: Sequence[float],
        history_scales: Sequence[float],
        text_scales: Sequence[float],
    ):
        super().__init__(denoiser)
        self.times = times
        self.ranges, self.history_scales, self.text_scales = ranges, history_scales, text_scales

    @property
    def scale(self) -> float:
        """The strongest text scale; the others keep their proportion to it when it is set."""
        return max(self.text_scales)

    @scale.setter
    def scale(self, value: float) -> None:
        strongest = max(self.scale, 1e-9)
        self.text_scales = [scale * value / strongest for scale in self.text_scales]

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        times = self.times[torch.tensor(window.levels)]
        alone, history, text = branch_weights(times, self.ranges, self.history_scales, self.text_scales)
        denoised = torch.tensor([level < len(self.times) - 1 for level in window.levels])

        def wanted(weight: torch.Tensor) -> torch.Tensor:
            return (weight != 0) & denoised

        def spread(weight: torch.Tensor) -> torch.Tensor:
            return weight.to(latents.device, latents.dtype)[:, None, None]

        result = torch.zeros_like(latents)
        if wanted(text).any():
            # First: it must see the cache as it was before the history branch commits.
            result = result + spread(text) * self.denoiser(latents, window, commit=False)
        if wanted(history).any() or len(window.commit):
            result = result + spread(history) * self.denoiser(latents, window, text=False)
        rows = wanted(alone)
        if rows.any():
            levels = tuple(level for level, yes in zip(window.levels, rows.tolist(), strict=True) if yes)
            part = replace(window, levels=levels, context=range(0), commit=range(0))
            here = rows.to(latents.device)
            velocity = self.denoiser(latents[:, :, here], part, text=False, history=False, commit=False)
            result[:, :, here] += spread(alone[rows]) * velocity
        return result


class NestedDenoiser(Protocol):
    """A denoiser whose conditions have an order, and can be taken away from the last one on."""

    def branches(self, latents: torch.Tensor, window: Window, counts: Sequence[int]) -> Sequence[torch.Tensor]:
        """The predictions with the first `count` conditions alone, for each of `counts`."""
        ...


def branch_shares(scales: Sequence[float]) -> list[float]:
    """The weight of each branch of nested guidance: v(), v(1), v(1, 2), ...; their sum is 1."""
    return [here - after for here, after in itertools.pairwise([1.0, *scales, 0.0])]


class NestedGuidance(_Guidance):
    """Guidance by conditions in a fixed order, such as portrait, text and voice, each on top of those before it:
    v() + s_1 (v(1) - v()) + s_2 (v(1, 2) - v(1)) + ... A scale of 1 everywhere is the network as it is; 0 leaves a
    condition out.

    Args:
        scales: s_1, s_2, ..., one for each condition.
        interval: times, 0 (noise) to 1 (clean), from the first of which on, and before the second, a frame is guided;
            outside it has all conditions, as with scales of 1. None: always guided.
        times: the schedule, (num_steps + 1,); needed for the interval.

    All branches are asked for at once, so that the network can run them as one batch; one whose weight is 0 at every
    frame is not. Sources: instruction and picture guidance, arXiv 2211.09800, equation 3, for any number of conditions;
    the interval: arXiv 2404.07724.
    Raises: InputError for an interval that is empty, or without times.
    """

    def __init__(
        self,
        denoiser: NestedDenoiser,
        scales: Sequence[float],
        interval: tuple[float, float] | None = None,
        times: torch.Tensor | None = None,
    ):
        super().__init__(denoiser)
        if interval is not None and (times is None or not interval[0] < interval[1]):
            raise InputError(f"guidance within the times {interval} needs a schedule, and a first time below the last.")
        self.scales, self.interval, self.times = tuple(scales), interval, times

    def weights(self, levels: Sequence[int]) -> torch.Tensor:
        """The weight of each branch at each frame: (conditions + 1, frames); the sum over the branches is 1."""
        weights = torch.tensor(branch_shares(self.scales))[:, None].repeat(1, len(levels))
        if self.interval is not None and self.times is not None:
            times = self.times[torch.tensor(levels)]
            weights[:, (times < self.interval[0]) | (times >= self.interval[1])] = torch.eye(len(weights))[:, -1:]
        return weights

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        weights = self.weights(window.levels)
        counts = weights.any(1).nonzero().flatten().tolist()
        result = torch.zeros_like(latents)
        for count, branch in zip(counts, self.denoiser.branches(latents, window, counts), strict=True):
            result += per_frame(weights[count], branch) * branch
        return result
