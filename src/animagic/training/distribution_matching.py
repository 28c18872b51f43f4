"""Fewer steps and one pass by distribution matching: a frozen teacher says where a student's samples are unlikely.

Sources: DMD2, arXiv 2405.14867 (a critic that learns more often, the student's own states); DMD, 2311.18828 (the
gradient); MagicInfinite, 2503.05978 (falling base loss, attenuated guidance). DMD2's adversarial loss is left out.
"""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..timeline.levels import flow_levels
from .objectives import DenoisingError
from .trainer import processes

Pair = tuple[torch.Tensor, torch.Tensor]
"""Clean latents and noise, or how much there is of each."""


class Distillation(nn.Module):
    """A student and its critic, which one trainer trains together; only `student` is of use afterwards.

    Args:
        teacher: the critic begins as a copy of it, and all of it learns; None: no critic (see matching_weight).
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None):
        super().__init__()
        self.student = student
        self.critic = None if teacher is None else copy.deepcopy(teacher).requires_grad_(True)


class Diffusion(ABC):
    """How clean latents and noise are mixed, and which mixture of the two a network predicts.

    Times are (size,), or (size, frames) where each frame has its own, for latents (size, channels, frames, ...).
    """

    @abstractmethod
    def noisy(self, times: torch.Tensor) -> Pair:
        """How much of the clean latents, and of the noise, there is in noisy ones; shaped as times."""

    @abstractmethod
    def predicted(self, times: torch.Tensor) -> Pair:
        """The same of what a network predicts."""

    @abstractmethod
    def schedule(self, steps: int) -> torch.Tensor:
        """The times of a sampler of so many steps, from noise to clean: (steps + 1,)."""

    @abstractmethod
    def sample_times(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """Times at which samples are judged, (size,)."""

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Noisy latents."""
        return _mix(clean, noise, self.noisy(times))

    def target(self, clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What a network should predict."""
        return _mix(clean, noise, self.predicted(times))

    def split(self, prediction: torch.Tensor, noisy: torch.Tensor, times: torch.Tensor) -> Pair:
        """The clean latents and the noise that a prediction stands for."""
        return _unmix(noisy, prediction, self.noisy(times), self.predicted(times))

    def between(self, begin: torch.Tensor, end: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor) -> Pair:
        """The clean latents and the noise of which both states are mixtures, at times `begins` and `ends`; finite but
        of no meaning where these are the same."""
        return _unmix(begin, end, self.noisy(begins), self.noisy(ends))


class FlowMatching(Diffusion):
    """t clean + (1 - t) noise, of which the velocity, clean - noise, is predicted.

    Args:
        levels: steps -> the times of a sampler, see `schedule`; those of more steps contain those of fewer.
        shift: of the times at which samples are judged; above 1: more of them near noise.
    """

    def __init__(self, levels: Callable[[int], torch.Tensor] = flow_levels, shift: float = 1.0):
        self.levels, self.shift = levels, shift

    def noisy(self, times: torch.Tensor) -> Pair:
        return times, 1 - times

    def predicted(self, times: torch.Tensor) -> Pair:
        return torch.ones_like(times), -torch.ones_like(times)

    def schedule(self, steps: int) -> torch.Tensor:
        return self.levels(steps)

    def sample_times(self, size: int, generator: torch.Generator) -> torch.Tensor:
        u = 0.02 + 0.96 * torch.rand(size, generator=generator, device=generator.device)
        return u / (u + self.shift * (1 - u))


class Discrete(Diffusion):
    """The noise schedule of Stable Diffusion, in whole timesteps; -1 stands for clean. A sampler's steps are those of
    DDIM with `student_scheduler`.

    Args:
        scheduler_config: fields of the noise schedule.

    Raises: InputError for networks that predict neither noise nor velocity.
    """

    student_scheduler = {"timestep_spacing": "trailing", "set_alpha_to_one": True}

    def __init__(self, scheduler_config: dict[str, Any]):
        error = DenoisingError(scheduler_config)
        scheduler, self.velocity = error.scheduler, error.velocity
        self.kept = torch.cat([scheduler.alphas_cumprod, torch.ones(1)])  # the last is that of timestep -1

    def noisy(self, times: torch.Tensor) -> Pair:
        kept = self.kept.to(times.device)[times]
        return kept.sqrt(), (1 - kept).sqrt()

    def predicted(self, times: torch.Tensor) -> Pair:
        clean, noise = self.noisy(times)
        return (-noise, clean) if self.velocity else (torch.zeros_like(clean), torch.ones_like(clean))

    def schedule(self, steps: int) -> torch.Tensor:
        count = len(self.kept) - 1
        return torch.arange(steps, -1, -1).mul(count / steps).round().long() - 1

    def sample_times(self, size: int, generator: torch.Generator) -> torch.Tensor:
        u = 0.02 + 0.96 * torch.rand(size, generator=generator, device=generator.device)
        return (u * (len(self.kept) - 1)).long()


@dataclass(frozen=True)
class Examples:
    """A batch as student and critic meet it.

    clean: real latents (size, channels, ...); conditions: what the networks read beside the latents.
    weights: how much the error of each latent counts, broadcastable to clean; None: all alike.
    delays: whole numbers, (size, frames): by how many steps each frame stands behind, as in videos that are made while
        sound arrives; zeros: frames are at the same level, but times are by frame. None: times are by sample.
    """

    clean: torch.Tensor
    conditions: Any
    weights: torch.Tensor | None = None
    delays: torch.Tensor | None = None


@dataclass(kw_only=True)
class DistributionMatching(ABC):
    """The objective of a `Distillation`: the student's samples become as likely for the guided teacher as for a critic
    that knows only them; and, at first, its predictions become right on real data or those of the teacher.

    A system says how latents and noise are mixed (`diffusion`, set in __post_init__), what its batches are
    (`examples`), how a network is called (`predict`) and how the teacher is guided (`guided`). Batches: {"index": int,
    ...}.

    Args:
        teacher: frozen, in the way the student's network is called.
        sampling_steps: the student's steps.
        student_every: the student learns once in so many steps, the critic in every one.
        attenuation: how many times weaker the guidance of the teacher is when it judges samples; 2 to 3 as published.
        base: what the base loss pulls towards: "data", or "teacher", with its full guidance.
        teacher_steps: of the latter: steps of its own that make one of the student's.
        base_weight: what the weight of the base loss falls to, from 1.
        matching_weight: what the weight of the matching rises to, from 0. 0: there is neither matching nor a critic,
            and the student learns in every step (a first stage: with "teacher" progressive distillation).
        ramp: steps over which both change.
        last_share: share of the batches whose samples come from the last step; in the others from a random one (0: as
            published). The critic sees all alike: what the first steps blur, the last ones make too narrow.
    """

    teacher: Any
    sampling_steps: int = 4
    student_every: int = 5
    attenuation: float = 2.5
    base: str = "data"
    teacher_steps: int = 1
    base_weight: float = 0.1
    matching_weight: float = 1.0
    ramp: int = 1000
    last_share: float = 0.5
    diffusion: Diffusion = field(init=False)

    def __post_init__(self) -> None:
        for name in ("sampling_steps", "student_every", "teacher_steps", "ramp"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.attenuation < 1:
            raise InputError(f"attenuation must be at least 1, not {self.attenuation}.")
        if self.base not in ("data", "teacher"):
            raise InputError(f"base {self.base!r} is unknown; choose data or teacher.")
        if not 0 <= self.last_share <= 1:
            raise InputError(f"last_share must be from 0 to 1, not {self.last_share}.")
        if min(self.base_weight, self.matching_weight) < 0 or not self.base_weight + self.matching_weight:
            raise InputError("base_weight and matching_weight must not be negative, and not both 0.")

    @abstractmethod
    def examples(self, batch: dict, generator: torch.Generator) -> Examples:
        """A batch as the networks meet it."""

    @abstractmethod
    def predict(self, network: Any, noisy: torch.Tensor, times: torch.Tensor, conditions: Any) -> torch.Tensor:
        """The prediction of the student or the critic in one pass, with all conditions."""

    @abstractmethod
    def guided(self, noisy: torch.Tensor, times: torch.Tensor, conditions: Any, attenuation: float) -> torch.Tensor:
        """The teacher's prediction, its guidance so many times weaker than when sampling."""

    def weights_at(self, step: int) -> tuple[float, float]:
        """The weights of the base loss and of the matching."""
        done = min(1.0, step / self.ramp)
        return 1 + done * (self.base_weight - 1), done * self.matching_weight

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        self.teacher.to(generator.device)
        # Told by the batch, so that a run that is resumed, and every process, knows it.
        step = batch["index"] // processes().num_processes
        base, matching = self.weights_at(step)
        critic = self.matching_weight > 0
        # In the other steps its gradients are None, not zero: optimisers pass over it, moments and decay too.
        learns = not critic or step % self.student_every == self.student_every - 1
        with _no_grad():
            examples = self.examples(batch, generator)
        loss, values = examples.clean.new_zeros(()), dict[str, Any]()
        if critic:
            with contextlib.nullcontext() if learns else _no_grad():
                sample, made = self.sample(model.student, examples, generator)
            error = self._critic_error(model.critic, sample.detach(), made, examples, generator)
            loss, values["critic"] = loss + error, error.detach()
            if learns:
                error, gap = self._mismatch(model.critic, sample, made, examples, generator)
                loss, values["matching"] = loss + matching * error, gap
        if learns and base > 0:
            error = self._base_error(model.student, examples, generator)
            loss, values["base"] = loss + base * error, error.detach()
        return loss, values

    def sample(self, student: Any, examples: Examples, generator: torch.Generator) -> Pair:
        """Clean latents as the student predicts them after a random number of its own steps (Euler's or DDIM's), which
        have no gradient; and where they are predicted: not in frames that were finished before."""
        u, last = torch.rand(2, generator=generator, device=generator.device).tolist()
        most = int(self._rounds(examples).max())
        rounds = most - 1 if last < self.last_share else int(u * most)
        state = _noise_like(examples.clean, generator)
        with _no_grad():
            for i in range(rounds):
                now, then = self._levels(i, examples), self._levels(i + 1, examples)
                clean, noise = self._split(student, state, self._times(now), examples)
                moved = self.diffusion.add_noise(clean, noise, self._times(then))
                state = torch.where(_spread(now == then, state), state, moved)
        now = self._levels(rounds, examples)
        made = _spread(now < self.sampling_steps, state)
        clean, _ = self._split(student, state, self._times(now), examples)
        return torch.where(made, clean, state), made

    def _mismatch(
        self, critic: Any, sample: torch.Tensor, made: torch.Tensor, examples: Examples, generator: torch.Generator
    ) -> Pair:
        """The loss whose gradient moves samples to where the teacher finds them likelier than the critic does; and how
        far apart the two are, in units of the teacher's error."""
        with _no_grad():
            times, noise = self._judged(examples, generator), _noise_like(sample, generator)
            noisy = self.diffusion.add_noise(sample, noise, times)
            prediction = self.guided(noisy, times, examples.conditions, self.attenuation).float()
            real, _ = self.diffusion.split(prediction, noisy, times)
            fake, _ = self._split(critic, noisy, times, examples)
            scale = (sample - real).abs().mean(tuple(range(1, sample.ndim)), keepdim=True)
            away = (fake - real) / scale.clamp_min(1e-6)
            aim = sample - away
        return 0.5 * _mean((sample - aim).square(), made, examples), away.abs().mean()

    def _critic_error(
        self, critic: Any, sample: torch.Tensor, made: torch.Tensor, examples: Examples, generator: torch.Generator
    ) -> torch.Tensor:
        """How wrong the critic is about samples under noise."""
        times, noise = self._judged(examples, generator), _noise_like(sample, generator)
        noisy = self.diffusion.add_noise(sample, noise, times)
        prediction = self.predict(critic, noisy, times, examples.conditions).float()
        return _mean((prediction - self.diffusion.target(sample, noise, times)).square(), made, examples)

    def _base_error(self, student: Any, examples: Examples, generator: torch.Generator) -> torch.Tensor:
        """How wrong the student is about real data at the levels of its own steps."""
        u = torch.rand(len(examples.clean), generator=generator, device=generator.device)
        rounds = (u * self._rounds(examples)).long()
        level = self._levels(rounds if examples.delays is None else rounds[:, None], examples)
        clean, noise, times = examples.clean, _noise_like(examples.clean, generator), self._times(level)
        noisy = self.diffusion.add_noise(clean, noise, times)
        if self.base == "teacher":
            clean, noise = self._taught(noisy, level, examples)
        prediction = self.predict(student, noisy, times, examples.conditions).float()
        error = (prediction - self.diffusion.target(clean, noise, times)).square()
        return _mean(error, _spread(level < self.sampling_steps, error), examples)

    def _taught(self, noisy: torch.Tensor, level: torch.Tensor, examples: Examples) -> Pair:
        """The clean latents and the noise that lead at once where the teacher's steps lead."""
        fine = level * self.teacher_steps
        state, last = noisy, self.sampling_steps * self.teacher_steps
        with _no_grad():
            for i in range(self.teacher_steps):
                now, then = (self._times((fine + j).clamp(max=last), last) for j in (i, i + 1))
                prediction = self.guided(state, now, examples.conditions, 1.0).float()
                state = self.diffusion.add_noise(*self.diffusion.split(prediction, state, now), then)
            return self.diffusion.between(noisy, state, self._times(level), then)

    def _split(self, network: Any, noisy: torch.Tensor, times: torch.Tensor, examples: Examples) -> Pair:
        return self.diffusion.split(self.predict(network, noisy, times, examples.conditions).float(), noisy, times)

    def _rounds(self, examples: Examples) -> torch.Tensor:
        """How many steps it takes until all frames of each sample are finished, (size,)."""
        latest = 0 if examples.delays is None else examples.delays.amax(1)
        return torch.full((len(examples.clean),), self.sampling_steps, device=examples.clean.device) + latest

    def _levels(self, rounds: int | torch.Tensor, examples: Examples) -> torch.Tensor:
        """The level of every sample or frame after so many steps; sampling_steps: finished."""
        delays = examples.delays
        if delays is None:
            delays = torch.zeros(len(examples.clean), dtype=torch.long, device=examples.clean.device)
        return (rounds - delays).clamp(0, self.sampling_steps)

    def _times(self, level: torch.Tensor, steps: int | None = None) -> torch.Tensor:
        return self.diffusion.schedule(steps or self.sampling_steps).to(level.device)[level]

    def _judged(self, examples: Examples, generator: torch.Generator) -> torch.Tensor:
        times = self.diffusion.sample_times(len(examples.clean), generator)
        return times if examples.delays is None else times[:, None].expand(examples.delays.shape)


@contextlib.contextmanager
def _no_grad() -> Iterator[None]:
    """Without gradients."""
    with torch.no_grad():
        yield
    # Older versions of PyTorch would go on with the weights that they have cast here, which have no gradient
    # (github.com/pytorch/pytorch/issues/112583).
    torch.clear_autocast_cache()


def _noise_like(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(latents.shape, generator=generator, device=latents.device)


def _spread(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(size,) or (size, frames) -> broadcastable to (size, channels, frames, ...)."""
    values = values if values.ndim == 1 else values[:, None]
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))


def _mean(error: torch.Tensor, made: torch.Tensor, examples: Examples) -> torch.Tensor:
    """The mean of what is made, as each latent counts."""
    weights = made.float() if examples.weights is None else made * examples.weights
    weights = weights.expand(error.shape)
    return (weights * error).sum() / weights.sum().clamp_min(1e-6)


def _mix(clean: torch.Tensor, noise: torch.Tensor, shares: Pair) -> torch.Tensor:
    of_clean, of_noise = (_spread(share, clean) for share in shares)
    return of_clean * clean + of_noise * noise


def _unmix(one: torch.Tensor, other: torch.Tensor, ones: Pair, others: Pair) -> Pair:
    """Clean latents and noise, from two mixtures of them and the shares in these."""
    a, b = (_spread(share, one) for share in ones)
    c, d = (_spread(share, one) for share in others)
    determinant = a * d - b * c
    determinant = torch.where(determinant == 0, torch.ones_like(determinant), determinant)
    return (d * one - b * other) / determinant, (a * other - c * one) / determinant
