"""Voices as denoisers hear them: what is spoken around each latent frame, of whole sounds or while they arrive."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..media import iter_sound
from ..speech import FeatureStream, SpeechEncoder, iter_features
from ..speech.encoding import FRAME, LIVE_STEP, LONG_STEP, RATE, checked_samples
from ..speech.frames import CONTEXT, FEATURES_PER_SECOND, GROUP, over_frames
from ..speech.levels import frame_levels, voiced_levels
from .latency import LatencyReport

SILENCE = 1.0
"""Seconds of silence that are heard after the end of a sound; what is heard last goes on."""
LOGGED = 3600.0
"""Seconds at the beginning of live sound whose arrival is remembered."""


def _around(frames: range) -> Tensor:
    """The video frames that are heard around latent frames, as `animagic.speech.per_latent` has it: (frames, 8)."""
    near = torch.arange(1 - GROUP - CONTEXT, CONTEXT + 1)
    return (GROUP * torch.arange(frames.start, frames.stop)[:, None] + near).clamp(min=0)


class WholeSound:
    """A sound that is all there. Its length is that in video frames. What it keeps of a second are `fps` features.

    Args:
        found: its features, (n, layers, channels), 50 a second, or pieces of them; after them the last one goes on.
        fps: video frames per second.
        seconds: how long the sound lasts; None: as long as its features.
    """

    def __init__(self, found: Tensor | Iterable[Tensor], fps: float, seconds: float | None = None):
        width, done, start, means = FEATURES_PER_SECOND / fps, 0, 0, []
        kept: Tensor | None = None
        for piece in [found] if isinstance(found, Tensor) else found:
            kept = piece if kept is None else torch.cat([kept, piece])
            if (stop := math.floor((start + len(kept)) / width)) > done:
                means.append(over_frames(kept, fps, range(done, stop), start))
                drop = min(math.floor(stop * width) - start, len(kept) - 1)
                done, start, kept = stop, start + drop, kept[drop:]
        if kept is None:
            raise InputError("the sound has no features: give at least one.")
        means.append(over_frames(kept, fps, range(done, done + 2), start))  # the last one is the last feature alone
        self._means, self.fps = torch.cat(means), fps
        self.seconds = (start + len(kept)) / FEATURES_PER_SECOND if seconds is None else seconds

    @classmethod
    def of(cls, encoder: SpeechEncoder, samples: np.ndarray, fps: float, step: int = LONG_STEP) -> WholeSound:
        """Sound, float32 (n,), 16 kHz, with silence after it. Raises InputError for samples of another kind, or none.

        step: features that are encoded at once.
        """
        checked_samples(samples)
        if not len(samples):
            raise InputError("the sound holds no samples: give at least one.")
        silence = np.zeros(round(SILENCE * RATE), np.float32)
        return cls(iter_features(encoder, [samples, silence], step), fps, len(samples) / RATE)

    def __len__(self) -> int:
        return frames_of(self.seconds, self.fps)

    def speech(self, frames: range) -> Tensor:
        """What is heard around each of some latent frames, (frames, 8, layers, channels): its four video frames (the
        first latent frame: one) and two on each side."""
        return self._means[_around(frames).clamp(max=len(self._means) - 1)]


class LiveSound:
    """Sound that arrives while the video is made. One thread pushes samples, others read what is heard.

    Latent frames are to be read in order: what lies before the last ones that were read is forgotten. Sound that has
    arrived and not been read yet is kept.

    Args:
        encoder: of the model that hears it.
        fps: video frames per second.
        step: features that are encoded at once, see `FeatureStream`.
        clock: seconds, for the report; `shown` in `latency` is by the same clock.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        fps: float,
        step: int = LIVE_STEP,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.fps, self.clock = fps, clock
        self._stream = FeatureStream(encoder, step)
        self._found = torch.zeros(0, encoder.layers, encoder.channels)
        self._start, self._complete = 0, False  # the number of the first feature, and whether there will be no more
        self._reading, self._changed = threading.Lock(), threading.Condition()
        self._blocks: deque[np.ndarray] = deque()  # not encoded yet
        self._samples, self._ended = 0, False
        self._error: Exception | None = None
        self._ask: Callable[[], None] | None = None  # gets more sound, before it is waited for
        self._closed = threading.Event()
        self._arrived, self._levels, self._rest = array("d"), array("d"), np.zeros(0, np.float32)

    @classmethod
    def from_blocks(
        cls, encoder: SpeechEncoder, fps: float, blocks: Iterable[np.ndarray], **settings: Any
    ) -> LiveSound:
        """Sound in blocks, float32 (n,), 16 kHz. One is taken when it is needed, and has arrived then."""
        sound, waiting = cls(encoder, fps, **settings), iter(blocks)

        def ask() -> None:
            block = next(waiting, None)
            sound.finish() if block is None else sound.push(block)

        sound._ask = ask
        return sound

    @classmethod
    def spoken(cls, encoder: SpeechEncoder, fps: float, blocks: Iterable[np.ndarray], **settings: Any) -> LiveSound:
        """Sound in blocks, float32 (n,), 16 kHz, as if it were spoken: it begins when it is first read. `close` stops
        it; what is wrong with a block is raised when it is read."""
        sound = cls(encoder, fps, **settings)

        def play() -> None:
            try:
                due = sound.clock()
                for block in (one[i : i + FRAME] for one in blocks for i in range(0, len(one), FRAME)):
                    due += len(block) / RATE
                    if sound._closed.wait(max(0.0, due - sound.clock())):
                        break
                    sound.push(block)
                sound.finish()
            except Exception as error:  # whoever reads is told
                sound.fail(error)

        def ask() -> None:
            sound._ask = None
            threading.Thread(target=play, daemon=True).start()

        sound._ask = ask
        return sound

    @classmethod
    def from_file(
        cls, encoder: SpeechEncoder, fps: float, path: str | Path, real_time: bool = True, **settings: Any
    ) -> LiveSound:
        """The sound of a file, as `spoken` has it.

        real_time: False: it arrives as fast as it is read. Raises MediaError for a file without sound when it is read.
        """
        blocks = iter_sound(path, RATE)
        return (cls.spoken if real_time else cls.from_blocks)(encoder, fps, blocks, **settings)

    # ------------------------------------------------------------ whoever speaks

    def push(self, samples: np.ndarray) -> None:
        """More sound, float32 (n,), 16 kHz. Raises InputError for samples of another kind, or after `finish`."""
        checked_samples(samples)
        with self._changed:
            if self._ended:
                raise InputError("the sound has ended: begin another one for more.")
            self._blocks.append(samples)
            self._samples += len(samples)
            if len(self._arrived) < LOGGED * FEATURES_PER_SECOND:
                self._log(np.concatenate([self._rest, samples]))
            self._changed.notify_all()

    def _log(self, samples: np.ndarray) -> None:
        """When each 20 ms arrived, and how loud they are."""
        count = len(samples) // FRAME
        if count:
            self._arrived.extend([self.clock()] * count)
            self._levels.extend(frame_levels(samples[: count * FRAME], RATE))
        self._rest = samples[count * FRAME :].copy()

    def finish(self) -> None:
        """There is no more sound: silence follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """There is no more sound, for a reason that whoever reads is told."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the file that is played; the sound ends here."""
        self._closed.set()
        self.finish()

    # ------------------------------------------------------------ whoever listens

    def speech(self, frames: range) -> Tensor:
        """As `WholeSound.speech` has it; waits until it is heard. Raises what `fail` was given, and InputError for
        frames that have been forgotten."""
        around, width = _around(frames), FEATURES_PER_SECOND / self.fps
        shown = range(int(around[0, 0]), int(around[-1, -1]) + 1)
        found, start = self._from(math.floor(shown.start * width), math.ceil(shown.stop * width))
        return over_frames(found, self.fps, shown, start)[around - shown.start]

    def _from(self, first: int, stop: int) -> tuple[Tensor, int]:
        """The features from number `first` on that there are, at least up to `stop` or to the last, and `first` or, if
        it comes after the last, the number of that."""
        with self._reading:
            if first < self._start:
                raise InputError("live sound is heard in order; what comes before the latent frames read last is gone.")
            while not self._complete and self._start + len(self._found) < stop:
                block = self._next()
                if block is None:
                    self._complete = True
                    silence = np.zeros(round(SILENCE * RATE), np.float32)
                    more = torch.cat([self._stream.push(silence), self._stream.finish()])
                else:
                    more = self._stream.push(block)
                self._found = torch.cat([self._found, more.cpu()])
            drop = min(first - self._start, len(self._found) - 1)
            self._found, self._start = self._found[drop:].clone(), self._start + drop
            return self._found, self._start

    def _next(self) -> np.ndarray | None:
        """The next block of sound, when it is there; None: it has ended."""
        while True:
            with self._changed:
                if self._ask is None:
                    self._changed.wait_for(lambda: self._blocks or self._ended or self._error)
                if self._blocks:
                    return self._blocks.popleft()
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
            if self._ask is not None:
                self._ask()

    def ended_before(self, frame: int) -> bool:
        """Whether the sound has ended before a video frame begins."""
        with self._changed:
            return self._ended and frames_of(self._samples / RATE, self.fps) <= frame

    def latency(self, shown: Sequence[float]) -> LatencyReport:
        """The report of a video of which each frame was handed out at a time. Covers the first hour.

        Raises: InputError if no sound has arrived, or no frame was handed out.
        """
        with self._changed:
            voiced = voiced_levels(np.array(self._levels)) if self._levels else None
            return LatencyReport(self.fps, list(self._arrived), shown, voiced)


def frames_of(seconds: float, fps: float) -> int:
    """Video frames that last as long as a sound."""
    return math.ceil(seconds * fps - 1e-6)
