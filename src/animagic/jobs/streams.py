"""The stream of a job, as the worker writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from ..media import FragmentedMp4, Sound
from ..media.films import exact_rate
from ..media.sound import ArrivingSound, iter_channels, sound_facts
from .folder import Folder, Head, Piece


class SoundSource:
    """The sound of a video, in time with its frames; silence after its end."""

    def __init__(self, sound: Sound | ArrivingSound | str, start: float, fps: Fraction):
        self.fps = fps
        if isinstance(sound, ArrivingSound):
            self.rate, self.channels = sound.rate, sound.channels
            self._blocks: Iterator[np.ndarray] = sound.blocks()
        elif isinstance(sound, Sound):
            self.rate, self.channels = sound.rate, sound.channels
            samples = sound.samples.reshape(len(sound.samples), -1).astype(np.float32, copy=False)
            self._blocks = iter([samples[round(start * sound.rate) :]])
        else:
            facts = sound_facts(sound)
            self.rate, self.channels = facts["rate"], min(facts["channels"], 2)
            self._blocks = iter_channels(sound, self.rate, self.channels, start)
        self._held, self._done = np.zeros((0, self.channels), np.float32), 0

    def until(self, frames: int) -> np.ndarray:
        """The samples, float32 (n, channels), that are heard before frame number `frames` and were not given yet."""
        wanted = round(frames * self.rate / self.fps) - self._done
        while len(self._held) < wanted:
            block = next(self._blocks, None)
            if block is None:
                block = np.zeros((wanted - len(self._held), self.channels), np.float32)
            self._held = np.concatenate([self._held, block])
        now, self._held = self._held[:wanted], self._held[wanted:]
        self._done += wanted
        return now


class StreamWriter:
    """Writes the stream of a job, chunk after chunk. One that goes on makes the same bytes again as far as it had come:
    what there is stays, also for somebody who is just reading it.

    on_chunk: told of every chunk that can be read.
    """

    def __init__(
        self,
        folder: Folder,
        fps: float,
        height: int,
        width: int,
        sound: Sound | ArrivingSound | str | None,
        sound_start: float,
        on_chunk: Callable[[Piece], None],
    ):
        self._sound = None if sound is None else SoundSource(sound, sound_start, exact_rate(fps))
        rate, channels = (None, 1) if self._sound is None else (self._sound.rate, self._sound.channels)
        self._encoder = FragmentedMp4(fps, height, width, sound_rate=rate, sound_channels=channels)
        self._folder, self._on_chunk = folder, on_chunk
        self._most = max(1, round(fps))  # frames of a chunk: a second
        self._frames, self._offset, self._count = 0, len(self._encoder.head), 0
        self.head = Head(self._encoder.mime_type, self._offset, float(fps), height, width)
        self._known = folder.chunks if folder.head == self.head and folder.stream.exists() else []
        self._stream = folder.stream.open("r+b" if self._known else "w+b")
        if not self._known:
            self._stream.write(self._encoder.head)
            self._stream.flush()
        folder.keep_table(self.head, self._known)  # without a line that was cut off

    def close(self) -> None:
        self._stream.close()

    def write(self, pixels: np.ndarray) -> None:
        """Append frames, uint8 (F, H, W, 3)."""
        for first in range(0, len(pixels), self._most):
            part = pixels[first : first + self._most]
            sound = None if self._sound is None else self._sound.until(self._frames + len(part))
            data = self._encoder.write(part, sound)
            self._append(data[self.head.size if self._count == 0 else 0 :], len(part))

    def finish(self) -> None:
        """Append what the encoder of the sound has held back."""
        if last := self._encoder.finish():
            self._append(last, 0)

    def _append(self, data: bytes, frames: int) -> None:
        piece = Piece(self._frames, frames, self._offset, len(data))
        self._stream.seek(self._offset)
        if self._known[self._count : self._count + 1] != [piece] or self._stream.read(len(data)) != data:
            if self._known[self._count :]:  # it was made otherwise then
                self._known = self._known[: self._count]
                self._folder.keep_table(self.head, self._known)
            self._stream.seek(self._offset)
            self._stream.truncate()
            self._stream.write(data)
            self._stream.flush()
            self._folder.add_chunk(piece)
        self._frames, self._offset, self._count = piece.start + frames, self._offset + len(data), self._count + 1
        self._on_chunk(piece)
