"""Long clips in windows: every step sees the whole clip, a window at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from .plan import Frames, Plan, Step, Window, check_positive


def _halving(step: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, ...: the binary digits of `step` mirrored at the point, so that any few steps in a row
    spread evenly over [0, 1) (the van der Corput sequence)."""
    return int(f"{step:b}"[::-1], 2) / 2 ** step.bit_length()


def check_windows(num_frames: int, size: int, stride: int, overlap: int) -> None:
    check_positive(num_frames=num_frames, size=size, stride=stride)
    if not 0 <= overlap < size:
        raise InputError(f"the overlap must be 0 to {size - 1}, less than the window's {size} frames, not {overlap}.")


def _spacings(num_frames: int, size: int, stride: int) -> list[int]:
    """1, 2, 4, ...: `stride` of them, but none much wider than the clip."""
    return [1 << i for i in range(min(stride, math.ceil(math.log2(num_frames / size)) + 1))]


def uniform_windows(
    num_frames: int, size: int, stride: int, overlap: int, closed_loop: bool = True, step: int = 0
) -> list[list[int]]:
    """The windows of one step as AnimateDiff's "uniform" scheduler lays them: frame indices, round the end of the clip.

    The arguments are those of `OverlappingWindows`; the windows lie differently at each `step`.
    Source: goldens/magicanimate/windows_uniform.json.
    """
    check_windows(num_frames, size, stride, overlap)
    if num_frames <= size:
        return [list(range(num_frames))]
    phase, windows = _halving(step), []
    shift = round(num_frames * phase)
    for spacing in _spacings(num_frames, size, stride):
        stop = shift + num_frames - (0 if closed_loop else overlap)
        for start in range(shift + int(phase * spacing), stop, size * spacing - overlap):
            windows.append([(start + i * spacing) % num_frames for i in range(size)])
    return windows


def moving_windows(
    num_frames: int, size: int, stride: int, overlap: int, closed_loop: bool = True, step: int = 0
) -> list[list[int]]:
    """The windows of one step, moved from step to step by a part of the distance between two windows.

    `uniform_windows` moves them by a part of the clip: where that is a whole number of distances (in a clip of 96
    frames at each of the first 8 steps), their borders stay. It also runs round the end of a clip that is no loop;
    here, windows that would stand out at an end are moved in. At step 0 a loop has the same windows in both.
    """
    check_windows(num_frames, size, stride, overlap)
    phase, windows = _halving(step), []
    if num_frames <= size:
        shift = round(num_frames * phase) if closed_loop else 0
        return [[(shift + i) % num_frames for i in range(num_frames)]]
    for spacing in _spacings(num_frames, size, stride):
        hop = size * spacing - overlap
        shift = int(hop * phase)
        last = num_frames - (size - 1) * spacing - 1  # the last start that leaves no frame outside
        if closed_loop:
            starts = list(range(shift, shift + num_frames, hop))
        elif last >= 0:
            first = shift - hop if shift else 0
            starts = sorted({min(max(start, 0), last) for start in range(first, last + hop, hop)})
        else:
            break
        windows += [[(start + i * spacing) % num_frames for i in range(size)] for start in starts]
    return windows


def _frames(indices: list[int]) -> Frames:
    neighbours = range(indices[0], indices[0] + len(indices))
    return neighbours if indices == list(neighbours) else tuple(indices)


@dataclass(frozen=True)
class OverlappingWindows(Plan):
    """Every step runs all windows of the clip at one level; where they overlap, predictions are averaged. Time grows
    linearly with the clip, and besides one window only latents are held.

    Args:
        num_frames, num_steps: up to `size` frames are one window, as in `WholeClip` (in a loop, one that begins at
            another frame at every step).
        size: frames of a window, as many as the motion module was trained on.
        overlap: frames that neighbours share at least.
        stride: above 1, further windows see every 2nd, 4th, ... frame, `stride` spacings in all: far frames become
            more alike and neighbours less, for more calls.
        closed_loop: windows run on from the last frame to the first: the clip repeats without a jump.
        weights: "pyramid" (1, 2, 3, ... up to the middle of the window and down again: no seam), "flat" (all 1), or
            "delayed_reverse_sawtooth" of FreeNoise (next to nothing up to the middle, then falling to 1).
        moving: lay the windows differently at every step, so that no border stays; without, always as at step 0.

    Raises: InputError for sizes that leave no window or no progress, and for unknown weights.
    """

    num_frames: int
    num_steps: int
    size: int = 16
    overlap: int = 4
    stride: int = 1
    closed_loop: bool = False
    weights: Literal["pyramid", "flat", "delayed_reverse_sawtooth"] = "pyramid"
    moving: bool = True

    def __post_init__(self):
        check_positive(num_steps=self.num_steps)
        check_windows(self.num_frames, self.size, self.stride, self.overlap)
        if self.weights not in ("pyramid", "flat", "delayed_reverse_sawtooth"):
            raise InputError(f"weights {self.weights!r} are unknown; choose pyramid, flat or delayed_reverse_sawtooth.")

    @property
    def total_steps(self) -> int:
        return self.num_steps

    def windows_at(self, step: int) -> list[list[int]]:
        """The frames of every window of a step."""
        step = step if self.moving else 0
        return moving_windows(self.num_frames, self.size, self.stride, self.overlap, self.closed_loop, step)

    def steps(self) -> Iterator[Step]:
        count = min(self.size, self.num_frames)
        pyramid = tuple(float(min(i + 1, count - i)) for i in range(count))
        weights = pyramid if self.weights == "pyramid" else ()
        if self.weights == "delayed_reverse_sawtooth":
            weights = (*(0.01 for _ in pyramid[: (count - 1) // 2]), *pyramid[(count - 1) // 2 :])
        for level in range(self.num_steps):
            laid = self.windows_at(level)
            windows = (Window(_frames(indices), (level,) * count, weights=weights) for indices in laid)
            last = level == self.num_steps - 1
            yield Step(tuple(windows), clean=range(self.num_frames) if last else range(0))
