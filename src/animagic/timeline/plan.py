"""Plans: which latent frames are denoised together, at which noise level, in which order. No network in sight."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InputError

Frames = range | tuple[int, ...]
"""Frames on the timeline: neighbours as a range of step 1, others (every second one, round the end of a loop) listed in
the order in which the network sees them."""
CHUNK_WIDTH = 6
"""Latent frames of a chunk in the published models."""


def span_of(frames: Frames) -> range:
    """The stretch of the timeline from the first to the last of some frames."""
    return frames if isinstance(frames, range) else range(min(frames), max(frames) + 1)


@dataclass(frozen=True, slots=True)
class Window:
    """Latent frames that one call of the network sees together."""

    frames: Frames
    levels: tuple[int, ...]
    """Per frame: its index in the noise schedule (0 = pure noise, the number of steps = clean)."""
    context: range = range(0)
    """Clean frames before it that must still be in the cache."""
    weights: tuple[float, ...] = ()
    """Per frame: its share where windows overlap; empty: 1 everywhere."""
    commit: range = range(0)
    """Frames whose clean keys and values enter the cache at this call."""

    @property
    def span(self) -> range:
        """The stretch of the timeline that holds its frames."""
        return span_of(self.frames)


@dataclass(frozen=True, slots=True)
class Step:
    windows: tuple[Window, ...]
    """Independent of each other: any split over devices gives the same numbers."""
    clean: range = range(0)
    """Frames that are final after this step, and may be decoded."""

    @property
    def span(self) -> range:
        """The stretch of the timeline that holds the frames of its windows."""
        spans = [window.span for window in self.windows]
        return range(min(r.start for r in spans), max(r.stop for r in spans))


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """The costs of a plan, in calls of the (guided) network and latent frames."""

    steps: int
    network_calls: int
    calls_to_first_frame: int
    peak_frames: int
    """The most latent frames that are held at once: being denoised or waiting to be."""
    frames: int
    """Clean latent frames that come out."""


class Plan(ABC):
    """An ordered list of steps, possibly endless."""

    num_steps: int

    @abstractmethod
    def steps(self) -> Iterator[Step]:
        """The steps in order; a fresh iterator at each call."""

    @property
    @abstractmethod
    def total_steps(self) -> int | None:
        """How many steps there are; None: endless."""

    def describe(self) -> PlanSummary:
        """Count calls and frames. Raises InputError for an endless plan."""
        if self.total_steps is None:
            raise InputError("an endless plan has no totals; give it a number of frames.")
        steps = calls = first = peak = frames = 0
        for step in self.steps():
            steps += 1
            calls += len(step.windows)
            peak = max(peak, len(step.span))
            if len(step.clean):
                first = first or calls
                frames += len(step.clean)
        return PlanSummary(steps, calls, first, peak, frames)


def check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}.")


@dataclass(frozen=True)
class WholeClip(Plan):
    """Every frame in one window, all at one level: the classic way, and the naive one for a long clip."""

    num_frames: int
    num_steps: int

    def __post_init__(self):
        check_positive(num_frames=self.num_frames, num_steps=self.num_steps)

    @property
    def total_steps(self) -> int:
        return self.num_steps

    def steps(self) -> Iterator[Step]:
        frames = range(self.num_frames)
        for level in range(self.num_steps):
            window = Window(frames, (level,) * self.num_frames)
            yield Step((window,), clean=frames if level == self.num_steps - 1 else range(0))


@dataclass(frozen=True)
class Staircase(Plan):
    """Chunk after chunk, up to `window_size` in flight, each one stage noisier than the chunk before it.

    Args:
        num_chunks: chunks of the timeline, the prefix included; None: endless.
        num_steps: denoising steps of a chunk, at least `window_size`. Where `window_size` does not divide them, stages
            differ by a step.
        window_size: chunks in flight, and stages a chunk goes through.
        prefix_frames: given latent frames at the front. Whole chunks of them are read once, clean; the rest lies in
            the first chunk that is made. One frame (an image) is output again, more are not.
        look_back: chunks (itself included) that a chunk sees, split evenly over its steps; empty: all of them.
        clean_look_back: the same for a clean chunk; -1: the last entry of `look_back`.

    Source: MAGI-1, arXiv 2505.13211, section 2; the layout of goldens/magi1/staircase.json.
    """

    num_chunks: int | None
    num_steps: int
    window_size: int = 4
    chunk_width: int = CHUNK_WIDTH
    prefix_frames: int = 0
    look_back: tuple[int, ...] = (5, 4, 3, 2)
    clean_look_back: int = 1

    def __post_init__(self):
        check_positive(num_steps=self.num_steps, window_size=self.window_size, chunk_width=self.chunk_width)
        if self.num_steps < self.window_size:
            raise InputError(
                f"the number of steps must be at least {self.window_size}, the chunks in flight, not {self.num_steps}."
            )
        if self.prefix_frames < 0:
            raise InputError(f"the prefix cannot have {self.prefix_frames} frames.")
        if any(reach < 1 for reach in self.look_back) or self.clean_look_back == 0:
            raise InputError("a chunk must at least see itself: look_back entries and clean_look_back are 1 or more.")
        if self.num_chunks is not None and self.num_chunks <= self.whole_prefix_chunks:
            raise InputError(f"{self.num_chunks} chunks leave nothing to make after {self.prefix_frames} given frames.")

    @property
    def whole_prefix_chunks(self) -> int:
        return self.prefix_frames // self.chunk_width

    @property
    def total_steps(self) -> int | None:
        return None if self.num_chunks is None else self.whole_prefix_chunks + self._steps_before(self._stages)

    @property
    def _stages(self) -> int:
        return (self.num_chunks or 0) - self.whole_prefix_chunks + self.window_size - 1

    def _steps_before(self, stage: int) -> int:
        """Denoising steps before a stage begins."""
        return stage * self.num_steps // self.window_size

    def look_back_at(self, level: int) -> int | None:
        """Chunks that a chunk at `level` sees, itself included; None: all."""
        if not self.look_back:
            return None
        if level >= self.num_steps:
            return self.look_back[-1] if self.clean_look_back < 0 else self.clean_look_back
        return self.look_back[level * len(self.look_back) // self.num_steps]

    def seen_by(self, chunk: int, level: int) -> range:
        """The chunks that `chunk` at `level` attends to."""
        reach = self.look_back_at(level)
        return range(0 if reach is None else max(0, chunk + 1 - reach), chunk + 1)

    def _context_start(self, oldest: int, levels: list[int]) -> int:
        """The first chunk that this or any later call still reads."""
        if not self.look_back:
            return 0
        starts = []
        for chunk, level in enumerate([*levels, 0], start=oldest):  # and the chunk that comes next
            later = [self.look_back_at(x) or 1 for x in range(level, self.num_steps + 1)]
            starts.append(chunk + 1 - max(later))
        return max(0, min(starts))

    def steps(self) -> Iterator[Step]:
        width, offset = self.chunk_width, self.whole_prefix_chunks

        def frames(first: int, last: int) -> range:
            return range(first * width, last * width)

        for chunk in range(offset):
            context = frames(self._context_start(chunk, [self.num_steps]), chunk)
            own = frames(chunk, chunk + 1)
            yield Step((Window(own, (self.num_steps,) * width, context, commit=own),))

        skipped = self.prefix_frames if self.prefix_frames > 1 else 0
        for stage in itertools.count() if self.num_chunks is None else range(self._stages):
            newest = offset + stage if self.num_chunks is None else min(offset + stage, self.num_chunks - 1)
            oldest = max(offset, offset + stage - self.window_size + 1)
            begin, end = self._steps_before(stage), self._steps_before(stage + 1)
            for step in range(begin, end):
                first = oldest
                levels = [step - self._steps_before(c - offset) for c in range(oldest, newest + 1)]
                commit = range(0)
                if step == begin and oldest > offset:
                    # The chunk that has just become clean goes along once more, to leave its clean keys and values.
                    first, levels, commit = oldest - 1, [self.num_steps, *levels], frames(oldest - 1, oldest)
                context = frames(self._context_start(first, levels), first)
                each = tuple(x for x in levels for _ in range(width))
                window = Window(frames(first, newest + 1), each, context, commit=commit)
                done = stage >= self.window_size - 1 and step == end - 1
                clean = range(max(oldest * width, skipped), (oldest + 1) * width) if done else range(0)
                yield Step((window,), clean)
