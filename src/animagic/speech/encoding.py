"""Sound as a network hears it: features at 50 frames a second, of sound of any length, at once or while it arrives.

Frame t stands for the samples 320 t to 320 (t + 1) of sound at 16 kHz. Sound is cut into pieces of `step` frames; each
is encoded with `before` and `after` frames around it, so that memory does not grow and all ways give the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from animagic.errors import InputError

RATE = 16_000
"""Samples per second that every encoder wants."""
FRAME = 320
"""Samples of one frame of features."""
LONG_STEP = 500
"""Frames of one piece where the whole sound is there: 10 s."""
LIVE_STEP = 10
"""Frames of one piece while sound arrives: 200 ms."""


class SpeechEncoder(Protocol):
    """A network that turns sound into `layers` features of so many `channels` for every 20 ms.

    before, after: frames of sound around a frame that it needs.
    """

    layers: int
    channels: int
    before: int
    after: int

    def encode(self, sound: Tensor, first: int) -> Tensor:
        """Sound, float32 (320 n,), that begins at frame `first` of the whole -> (n, layers, channels), all at once."""


class FeatureStream:
    """The features of sound that arrives bit by bit; joined, they are those of the whole sound (`features`).

    A frame is final `lookahead_ms` after its end, or up to a step later, when its piece is complete.

    Args:
        step: frames that are encoded at once; small ones come sooner and cost more, for what lies around each is
            encoded again.
    """

    def __init__(self, encoder: SpeechEncoder, step: int = LIVE_STEP) -> None:
        if not isinstance(step, int) or step < 1:
            raise InputError(f"step is {step!r}: give a whole number of frames, 1 or more.")
        self.encoder, self.step = encoder, step
        self._sound, self._start = np.zeros(0, np.float32), 0  # what is still needed, and the frame it begins at
        self._done = 0
        self._ended = False

    @property
    def lookahead_ms(self) -> int:
        """What must be heard after the end of a frame before it is final."""
        return 1000 * self.encoder.after * FRAME // RATE

    @property
    def longest_wait_ms(self) -> int:
        """From the end of the first frame of a piece until its features come, computing not counted."""
        return self.lookahead_ms + 1000 * (self.step - 1) * FRAME // RATE

    def push(self, samples: np.ndarray) -> Tensor:
        """More sound, float32 (n,), 16 kHz -> the features that became final, (frames, layers, channels), maybe none.

        Raises: InputError for samples of another kind, or after `finish`.
        """
        if self._ended:
            raise InputError("the sound has ended: begin another stream for more.")
        self._sound = np.concatenate([self._sound, checked_samples(samples)])
        heard = self._start + len(self._sound) // FRAME
        parts = []
        while self._done + self.step + self.encoder.after <= heard:
            parts.append(self._piece(self._done + self.step))
        return self._joined(parts)

    def finish(self) -> Tensor:
        """The features of what is left; the last frame is filled up with silence."""
        self._ended = True
        self._sound = np.pad(self._sound, (0, -len(self._sound) % FRAME))
        end, parts = self._start + len(self._sound) // FRAME, []
        while self._done < end:
            parts.append(self._piece(min(self._done + self.step, end)))
        return self._joined(parts)

    @torch.no_grad()
    def _piece(self, end: int) -> Tensor:
        """The frames from those done to `end`; forgets the sound that is not needed any more."""
        first, last = max(0, self._done - self.encoder.before), end + self.encoder.after
        sound = self._sound[(first - self._start) * FRAME : (last - self._start) * FRAME]
        sound = sound[: len(sound) // FRAME * FRAME]
        found = self.encoder.encode(torch.from_numpy(sound.copy()), first)[self._done - first : end - first]
        keep = max(0, end - self.encoder.before)
        self._sound, self._start, self._done = self._sound[(keep - self._start) * FRAME :], keep, end
        return found

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else torch.zeros(0, self.encoder.layers, self.encoder.channels)


def iter_features(encoder: SpeechEncoder, blocks: Iterable[np.ndarray], step: int = LONG_STEP) -> Iterator[Tensor]:
    """The features of sound in blocks of any length, (frames, layers, channels) each time, in constant memory.

    Raises: InputError for samples of another kind, and for sound of no samples.
    """
    stream, heard = FeatureStream(encoder, step), 0
    for block in blocks:
        heard += len(block)
        for start in range(0, len(block), step * FRAME):
            if len(found := stream.push(block[start : start + step * FRAME])):
                yield found
    if not heard:
        raise InputError("the sound holds no samples: give at least one.")
    if len(found := stream.finish()):
        yield found


def features(encoder: SpeechEncoder, samples: np.ndarray, step: int = LONG_STEP) -> Tensor:
    """The features of a whole sound, float32 (n,), 16 kHz: (ceil(n / 320), layers, channels).

    Raises: InputError for samples of another kind, or none.
    """
    return torch.cat(list(iter_features(encoder, [samples], step)))


def checked_samples(samples: np.ndarray) -> np.ndarray:
    """The samples themselves. Raises InputError unless they are float32 (n,) and finite."""
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        given = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise InputError(f"samples are {given}: give float32 of the shape (n,), one channel at {RATE} Hz.")
    if not np.isfinite(samples).all():
        raise InputError("samples hold values that are not finite: the sound was computed wrongly.")
    return samples
