"""FreeInit: a clip is made several times, each time from the low frequencies of the last result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from ..errors import InputError
from .noise import Generators, randn
from .plan import Plan, Step
from .schedulers import SchedulerSolver
from .solver import Solver


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


@dataclass(frozen=True)
class Rounds(Plan):
    """Plans over the same frames, one after another; what the last one makes is final. Levels count on."""

    rounds: tuple[Plan, ...]
    num_steps: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "num_steps", sum(plan.num_steps for plan in self.rounds))

    @property
    def total_steps(self) -> int:
        return self.num_steps

    def steps(self) -> Iterator[Step]:
        before = 0
        for i, plan in enumerate(self.rounds, 1):
            for step in plan.steps():
                windows = (replace(w, levels=tuple(level + before for level in w.levels)) for w in step.windows)
                yield Step(tuple(windows), step.clean if i == len(self.rounds) else range(0))
            before += plan.num_steps


class FreeInitSolver(Solver):
    """A schedule for each round of FreeInit, and between two of them the way back to noise. For a plan of `Rounds`.

    Args:
        settings: how the noise of the next round is mixed.
        rounds: the schedule of each round.
        noise: what the first round begins with, (videos, channels, frames, height, width).
        clean: latents that every round begins from, under its noise; None: from the noise alone.
        generator: of the fresh noise, usually the one that the schedules use too.
    """

    def __init__(
        self,
        settings: FreeInit,
        rounds: Sequence[SchedulerSolver],
        noise: torch.Tensor,
        clean: torch.Tensor | None,
        generator: Generators,
    ):
        self.settings, self.rounds = settings, rounds
        self.noise, self.clean, self.generator = noise, clean, generator
        self.timesteps = torch.cat([schedule.timesteps for schedule in rounds])
        self.num_steps = len(self.timesteps)
        self._round = 0  # the one that is under way

    def _place(self, level: int) -> tuple[SchedulerSolver, int]:
        """The schedule that a level belongs to, and the level there."""
        for schedule in self.rounds:
            if level < schedule.num_steps:
                break
            level -= schedule.num_steps
        return schedule, level

    def timestep(self, level: int) -> torch.Tensor:
        return self.timesteps[level]

    def model_input(self, latents: torch.Tensor, level: int) -> torch.Tensor:
        schedule, level = self._place(level)
        if level == 0 and self.clean is not None:
            # A network's last bits depend on the order in memory: that of `begin`, which the timeline does not keep.
            latents = 0 * self.clean + latents
        return schedule.model_input(latents, level)

    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        schedule, level = self._place(levels[0])
        moved = schedule.step(latents, prediction, [level] * len(levels))
        if level + 1 < schedule.num_steps or self._round + 1 == len(self.rounds):
            return moved
        self._round += 1
        fresh = randn(self.noise.shape, self.generator, self.noise.device)
        noise = self.settings.mix(moved.contiguous(), self.noise, fresh, float(schedule.scheduler.alphas_cumprod[-1]))
        return self.rounds[self._round].begin(noise, self.clean)

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = self.rounds[self._round].state_dict()
        return state | {"round": torch.tensor(self._round), "first_noise": self.noise}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._round, self.noise = int(state["round"]), state["first_noise"].to(self.noise.device)
        self.rounds[self._round].load_state_dict(state)
