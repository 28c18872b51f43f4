"""A voice that arrives while its video is made."""

from __future__ import annotations

import time
import wave
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import InputError
from .folder import Folder

RATE = 16_000
_BLOCK = RATE  # samples that are read at once
_OFTEN = 0.02  # seconds between two looks


class VoiceFile:
    """A voice, float32 at 16 kHz, that the server writes into a file of the job's folder while the worker reads it; so
    it survives them both. It is what `requests.generate` takes as `voice`.

    Args:
        patience: seconds without a sample after which the voice counts as ended.
        check: called while samples are waited for; what it raises ends the waiting.
    """

    def __init__(self, folder: Folder, patience: float = 60.0, check: Callable[[], None] = lambda: None):
        self._folder, self._file = folder, folder.root / "voice.f32"
        self._end = folder.root / "voice.end"
        self._patience, self._check = patience, check

    def add(self, samples: np.ndarray, end: bool, most: float) -> None:
        """More of it, float32 (n,).

        most: seconds that it may have in all.
        Raises: InputError for other samples, for too many, and after its end.
        """
        if self._end.exists():
            raise InputError("the voice has ended; hand in another job for more.")
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise InputError(f"a voice is float32 samples (n,) that are finite, not {samples.shape}.")
        with self._file.open("ab") as file:
            if file.tell() / 4 + len(samples) > most * RATE:
                raise InputError(f"the voice is longer than {most:g} s, which is the most that this server takes.")
            file.write(samples.astype("<f4").tobytes())
        if end:
            self._end.touch()

    def blocks(self) -> Iterator[np.ndarray]:
        """Its samples from the beginning on; waits for those that have not arrived."""
        self._file.touch()
        with self._file.open("rb") as file:
            heard = time.monotonic()
            while True:
                ended = self._end.exists()  # before the file is read: what came until then is in it
                place, data = file.tell(), file.read(4 * _BLOCK)
                if whole := len(data) // 4 * 4:
                    file.seek(place + whole)  # a sample may be half written
                    heard = time.monotonic()
                    yield np.frombuffer(data[:whole], "<f4")
                elif ended:
                    return
                else:
                    file.seek(place)
                    self._check()
                    if time.monotonic() - heard > self._patience:
                        self._end.touch()
                    time.sleep(_OFTEN)

    @property
    def seconds(self) -> float | None:
        """How long it is; None: it has not ended."""
        return self._file.stat().st_size // 4 / RATE if self._end.exists() and self._file.exists() else None

    def keep(self) -> str:
        """Ends it, and writes it as a WAV file among the inputs of the job."""
        self._end.touch()
        self._folder.inputs.mkdir(exist_ok=True)
        path = self._folder.inputs / "voice.wav"
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, RATE, 0, "NONE", ""))
            for block in self.blocks():
                out.writeframes((np.clip(block, -1, 1) * 32767).round().astype("<i2").tobytes())
        return str(path)
