"""The one loop that makes every video: ask the plan, call the network, advance the timeline, let clean frames go."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from ..errors import CheckpointError
from .guidance import Denoiser
from .plan import Frames, Plan, Step, Window, span_of
from .solver import Solver, per_frame

Noise = Callable[[range], torch.Tensor]
Map = Callable[[Callable, list], Iterable]


class Timeline:
    """The latent frames in memory: drawn as noise when first asked for, forgotten when no longer needed.

    Args:
        noise: (batch, channels, frames, height, width) for all frames, or a function that draws it, asked in order.
        prefix: given clean latents at the front: the network reads them in place of the state.
    """

    def __init__(self, noise: Noise | torch.Tensor, prefix: torch.Tensor | None = None):
        whole = noise
        self._noise = (lambda f: whole[:, :, f.start : f.stop]) if isinstance(whole, torch.Tensor) else whole
        self.prefix = prefix
        self.start = self.stop = 0
        self._latents: torch.Tensor | None = None

    def state(self, frames: Frames) -> torch.Tensor:
        """The state of `frames`: (batch, channels, len(frames), height, width)."""
        span = span_of(frames)
        if span.stop > self.stop:
            fresh = self._noise(range(self.stop, span.stop))
            self._latents = fresh if self._latents is None else torch.cat([self._latents, fresh], dim=2)
            self.stop = span.stop
        if span.start < self.start or self._latents is None:
            raise IndexError(f"frame {span.start} is gone; the timeline holds {self.start} to {self.stop}")
        if isinstance(frames, range):
            return self._latents[:, :, span.start - self.start : span.stop - self.start]
        return self._latents[:, :, [frame - self.start for frame in frames]]

    def read(self, frames: Frames) -> torch.Tensor:
        """The input of the network for `frames`: the state, with the prefix in its place."""
        return self.with_prefix(frames, self.state(frames))

    def with_prefix(self, frames: Frames, latents: torch.Tensor) -> torch.Tensor:
        """Latents of `frames`, with the prefix in place of what is given."""
        if self.prefix is not None:
            given = [i for i, frame in enumerate(frames) if frame < self.prefix.shape[2]]
            if given:
                latents = latents.clone()
                latents[:, :, given] = self.prefix[:, :, [frames[i] for i in given]].to(latents)
        return latents

    def write(self, frames: Frames, latents: torch.Tensor) -> None:
        """Set the state of `frames`."""
        self.state(frames)  # draws what does not exist yet
        whole = self.state(range(self.start, self.stop))
        # Not in place: a saved state, or the caller's noise, must not change with the run.
        if isinstance(frames, range):
            first, last = frames.start - self.start, frames.stop - self.start
            self._latents = torch.cat([whole[:, :, :first], latents, whole[:, :, last:]], dim=2)
        else:
            self._latents = whole.clone()
            self._latents[:, :, [frame - self.start for frame in frames]] = latents.to(whole)

    def forget(self, before: int) -> None:
        """Drop the frames before `before`; later frames that do not exist yet will still be drawn in order."""
        drop = min(before, self.stop) - self.start
        if drop > 0 and self._latents is not None:
            self._latents = self._latents[:, :, drop:].clone()
            self.start += drop

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = {"span": torch.tensor([self.start, self.stop])}
        if self._latents is not None:
            state["latents"] = self._latents
        if hasattr(self._noise, "state_dict"):
            state |= {f"noise.{k}": v for k, v in self._noise.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.start, self.stop = (int(x) for x in state["span"])
        self._latents = state.get("latents")
        if hasattr(self._noise, "load_state_dict"):
            self._noise.load_state_dict(_part(state, "noise."))


def advance(timeline: Timeline, solver: Solver, step: Step, predictions: Iterable[torch.Tensor]) -> None:
    """Write the next state of every frame of a step; where windows overlap, predictions are averaged by weight."""
    if len(step.windows) == 1:
        window, (prediction,) = step.windows[0], predictions
        timeline.write(window.frames, solver.step(timeline.read(window.frames), prediction, window.levels))
        return
    frames = step.span
    latents = timeline.read(frames)
    total, share = torch.zeros_like(latents), torch.zeros(len(frames))
    levels = [solver.num_steps] * len(frames)
    for window, prediction in zip(step.windows, predictions, strict=True):
        rows = torch.tensor([frame - frames.start for frame in window.frames])
        weights = torch.tensor(window.weights or (1.0,) * len(window.frames))
        # index_add_: a strided window on a short loop may hold a frame twice.
        total.index_add_(2, rows.to(total.device), (prediction * per_frame(weights, prediction)).to(total))
        share.index_add_(0, rows, weights)
        for row, level in zip(rows.tolist(), window.levels, strict=True):
            levels[row] = level
    timeline.write(frames, solver.step(latents, total / per_frame(share.clamp_min(1e-12), total), levels))


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    """Steps done."""
    total_steps: int | None
    """None: endless."""
    clean_frames: int
    """Latent frames that are final."""
    seconds: float
    """Since this run (or its resumption) began."""
    seconds_left: float | None
    plan_step: Step


@dataclass(frozen=True, slots=True)
class Clean:
    """Frames that are final: latents (batch, channels, frames, height, width) and where they lie on the timeline."""

    frames: range
    latents: torch.Tensor


def one_by_one(function: Callable, items: list) -> Iterable:
    """The plain `parallel_map`: no device but the one, and one result in memory at a time."""
    return map(function, items)


class Sampler:
    """Runs a plan. `run` yields clean frames; between two of its steps the state can be saved and loaded again.

    Args:
        parallel_map: calls the denoiser on the windows of a step; give one that spreads them over devices.
        on_step: called after every step; an exception in it (KeyboardInterrupt too) ends the run.
    """

    def __init__(
        self,
        plan: Plan,
        denoiser: Denoiser,
        solver: Solver,
        timeline: Timeline,
        *,
        parallel_map: Map = one_by_one,
        on_step: Callable[[Progress], None] | None = None,
    ):
        self.plan, self.denoiser, self.solver, self.timeline = plan, denoiser, solver, timeline
        self.parallel_map, self.on_step = parallel_map, on_step
        self.steps_done = self.clean_frames = 0

    def run(self) -> Iterator[Clean]:
        """Yield frames as they become clean. Memory is that of the frames in flight."""
        began, first = time.monotonic(), self.steps_done
        total = self.plan.total_steps

        @torch.no_grad()  # here too: a map may call it in other threads
        def predict(window: Window) -> torch.Tensor:
            return self.denoiser(self.timeline.read(window.frames), window)

        for step in itertools.islice(self.plan.steps(), first, None):
            with torch.no_grad():
                self.timeline.forget(step.span.start)
                self.timeline.state(step.span)  # drawn at once: the order of the windows must not matter
                predictions = self.parallel_map(predict, list(step.windows))
                advance(self.timeline, self.solver, step, predictions)
            self.steps_done += 1
            self.clean_frames += len(step.clean)
            if self.on_step is not None:
                seconds = time.monotonic() - began
                left = None if total is None else seconds / (self.steps_done - first) * (total - self.steps_done)
                self.on_step(Progress(self.steps_done, total, self.clean_frames, seconds, left, step))
            if len(step.clean):
                yield Clean(step.clean, self.timeline.state(step.clean))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state to continue from: taken after a yield, or in `on_step` of a step without clean frames. The run
        does not change its tensors."""
        state = {f"timeline.{k}": v for k, v in self.timeline.state_dict().items()}
        state |= {name: torch.tensor(getattr(self, name)) for name in ("steps_done", "clean_frames")}
        for name, part in (("denoiser", self.denoiser), ("solver", self.solver)):
            if hasattr(part, "state_dict"):
                state |= {f"{name}.{k}": v for k, v in part.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from `state`, with the same numbers as a run that was never interrupted."""
        try:
            self.steps_done, self.clean_frames = int(state["steps_done"]), int(state["clean_frames"])
            self.timeline.load_state_dict(_part(state, "timeline."))
            for name, part in (("denoiser", self.denoiser), ("solver", self.solver)):
                if hasattr(part, "load_state_dict"):
                    part.load_state_dict(_part(state, f"{name}."))
        except KeyError as error:
            raise CheckpointError(f"the saved run lacks {error}; it cannot be resumed.") from error


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
