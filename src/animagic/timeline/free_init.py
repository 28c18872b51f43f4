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
    """Settings of FreeInit (arXiv 2312.07537, section 4 and its appendix on filters), which samples several times.

    Every time begins with the low frequencies of the last result, noised again, and fresh high ones: noise in training
    still carries the slow part of a video, pure noise does not.

    Args:
        iterations: samplings in all.
        method: the low-pass filter; "ideal" is a ball, and `order` is that of "butterworth" (higher is steeper).
        spatial_stop, temporal_stop: frequencies that are cut, as shares of the highest, in (0, 1].
        fast: fewer steps in the first iterations ("coarse to fine").

    Raises: InputError for a value outside its range.
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
        t, y, stop = t[:, None, None], y[:, None], self.spatial_stop
        if self.method == "box":
            return ((t.abs() < self.temporal_stop) & (y.abs() < stop) & (x.abs() < stop)).float()
        squared = (stop / self.temporal_stop * t) ** 2 + y**2 + x**2
        if self.method == "ideal":
            return (squared <= 2 * stop).float()
        if self.method == "gaussian":
            return torch.exp(-squared / (2 * stop**2)).float()
        return (1 / (1 + (squared / stop**2) ** self.order)).float()

    def mix(self, clean: torch.Tensor, noise: torch.Tensor, fresh: torch.Tensor, alpha: float) -> torch.Tensor:
        """The noise of the next iteration, float32.

        clean: the result of the last one. noise: of the FIRST one. alpha: `scheduler.alphas_cumprod[-1]`.
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

    noise: of the first round. clean: latents that every round begins from, under its noise; None: from noise alone.
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
        self._round = 0

    def _place(self, level: int) -> tuple[SchedulerSolver, int]:
        """The schedule that a level belongs to, and the level there."""
        for schedule in self.rounds:
            if level < schedule.num_steps:
                break
            level -= schedule.num_steps
        return schedule, level

    def share(self, level: int) -> tuple[float, float]:
        """Which part of the steps of its round a level is: (from, to) in 0..1."""
        schedule, level = self._place(level)
        return schedule.share(level)

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
