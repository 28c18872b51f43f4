"""Windows that move along the timeline: over a clip whose sound is all there, or with sound that is still arriving."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InputError
from .plan import Plan, Step, Window, check_positive
from .windows import check_windows

_GOLDEN = (math.sqrt(5) - 1) / 2


def golden_shift(hop: int) -> int:
    """The shift coprime to `hop` that is nearest to 0.618 of it.

    Coprime: all `hop` offsets are visited before one comes again. The golden section: those of any few steps in a row
    are spread almost evenly, so that eight steps already move a border far, whatever the hop.
    """
    return min((s for s in range(1, hop + 1) if math.gcd(s, hop) == 1), key=lambda s: abs(s - _GOLDEN * hop))


@dataclass(frozen=True)
class ShiftingWindow(Plan):
    """Every step runs all windows of the clip at one level; from step to step they move on by `shift` frames, so that
    no border stays in one place. Where windows overlap, predictions are averaged with pyramid weights.

    A window that would stand out at an end of the clip is moved in, for the network sees `size` frames or the whole
    clip; its weights stay where they were, so that its inner border moves like the others.

    Args:
        num_frames, num_steps: up to `size` frames are one window, as in `WholeClip`.
        size: latent frames of a window, as many as the network was trained on.
        overlap: frames that neighbours share.
        shift: frames by which the windows move at each step, modulo `size - overlap`, their distance. None:
            `golden_shift` of the distance. 0: they stay.

    Raises: InputError for sizes that leave no window or no progress.
    """

    num_frames: int
    num_steps: int
    size: int = 16
    overlap: int = 4
    shift: int | None = None

    def __post_init__(self):
        check_positive(num_steps=self.num_steps)
        check_windows(self.num_frames, self.size, 1, self.overlap)
        if self.shift is not None and self.shift < 0:
            raise InputError(f"the shift must be 0 or more frames a step, not {self.shift}.")

    @property
    def total_steps(self) -> int:
        return self.num_steps

    @property
    def hop(self) -> int:
        """Frames from one window to the next."""
        return self.size - self.overlap

    def offset(self, step: int) -> int:
        """Where the windows of a step begin, 0 to hop - 1."""
        return step * (golden_shift(self.hop) if self.shift is None else self.shift) % self.hop

    def starts_at(self, step: int) -> range:
        """The first frame of each window of a step; the outer ones may lie before the clip, or end after it."""
        if self.num_frames <= self.size:
            return range(1)
        offset = self.offset(step)
        return range(offset - self.hop if offset else 0, self.num_frames - self.overlap, self.hop)

    def steps(self) -> Iterator[Step]:
        count = min(self.size, self.num_frames)
        for level in range(self.num_steps):
            windows = []
            for start in self.starts_at(level):
                seen = min(max(start, 0), self.num_frames - count)
                frames = range(seen, seen + count)
                weights = tuple(float(max(0, min(f - start + 1, start + count - f))) for f in frames)
                windows.append(Window(frames, (level,) * count, weights=weights))
            last = level == self.num_steps - 1
            yield Step(tuple(windows), clean=range(self.num_frames) if last else range(0))


@dataclass(frozen=True)
class MovingFront(Plan):
    """A front of frames in flight that moves along the timeline: at every call all of them take a step, clean ones
    leave at its start and noise enters at its end. One window a step; delay and memory do not grow.

    With N steps, a front of F frames and k frames that enter and leave together, group g (frames g k to g k + k - 1)
    enters at call floor(g N k / F), the first call being 0, and is clean after N calls; F need not divide N, nor be
    smaller. The first windows are short, for frames enter one after the other from the beginning on.

    Args:
        num_frames: None: endless.
        num_steps: denoising steps of a frame, N.
        front: latent frames in flight, F; the delay in frames.
        context: clean frames before the front that the network reads too. They stand at level N, and stay as they are.
        frames_per_exit: k, a divisor of the front.

    Raises: InputError for numbers that cannot be.
    """

    num_frames: int | None
    num_steps: int
    front: int = 8
    context: int = 4
    frames_per_exit: int = 1

    def __post_init__(self):
        check_positive(num_steps=self.num_steps, front=self.front, frames_per_exit=self.frames_per_exit)
        if self.num_frames is not None:
            check_positive(num_frames=self.num_frames)
        if self.context < 0:
            raise InputError(f"the context cannot have {self.context} frames; it is 0 or more.")
        if self.front % self.frames_per_exit:
            raise InputError(
                f"{self.frames_per_exit} frames cannot leave together from a front of {self.front}: "
                "the front must be a multiple of them."
            )

    @property
    def size(self) -> int:
        """The most latent frames that a window holds."""
        return self.context + self.front

    @property
    def total_steps(self) -> int | None:
        return None if self.num_frames is None else self.calls_before(self.num_frames - 1)

    def enters_at(self, frame: int) -> int:
        """The call, counted from 0, that sees a frame as noise: its sound must have been heard by then."""
        return frame // self.frames_per_exit * self.frames_per_exit * self.num_steps // self.front

    def calls_before(self, frame: int) -> int:
        """The calls after which a frame is clean."""
        return self.enters_at(frame) + self.num_steps

    def _in_flight(self, call: int) -> range:
        """Groups that have entered at or before a call, and are not clean before it, as if there were no end."""
        groups = self.front // self.frames_per_exit
        stop = -(-(call + 1) * groups // self.num_steps)
        return range(max(0, stop - groups), stop)

    def steps(self) -> Iterator[Step]:
        k, end = self.frames_per_exit, self.num_frames
        for call in itertools.count() if end is None else range(self.total_steps or 0):
            groups, next_groups = self._in_flight(call), self._in_flight(call + 1)
            first, stop, clean_stop = groups.start * k, groups.stop * k, next_groups.start * k
            if end is not None:
                stop, clean_stop = min(stop, end), min(clean_stop, end)
            frames = range(max(0, first - self.context), stop)
            levels = (min(call - self.enters_at(frame), self.num_steps) for frame in frames)
            yield Step((Window(frames, tuple(levels)),), clean=range(first, clean_stop))
