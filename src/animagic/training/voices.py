"""Recordings of speech as training data: sentences that synthetic voices read, and what an encoder hears in them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..media import atomic_path
from ..speech import (
    Phone,
    SpeechEncoder,
    Wav2VecEncoder,
    WhisperEncoder,
    at_frames,
    features,
    mouth_shapes,
    normalised,
    say,
)
from ..speech.frames import CONTEXT, GROUP
from .sentences import LANGUAGES, sentence

RATE = 16_000
SECONDS = 6.0, 10.0
"""The shortest and the longest recording."""

_VARIANTS = ("", "+f1", "+f2", "+f3", "+f5", "+m1", "+m2", "+m3", "+m4", "+m6", "+m7")
SPEAKERS: dict[bool, tuple[tuple[float, tuple[str, ...]], ...]] = {
    False: (
        (0.5, ("slt", "rms", "kal16")),
        (0.38, tuple(dialect + variant for dialect in ("en", "en-us") for variant in _VARIANTS)),
        (0.12, tuple(language + variant for language in LANGUAGES[1:] for variant in ("", "+f2", "+m3"))),
    ),
    True: ((0.5, ("awb",)), (0.4, ("en+f4", "en-us+f4", "en+m5", "en-us+m5")), (0.1, ("es+f4", "de+m5"))),
}
"""Held out or not -> groups of voices, as `animagic.speech.say` knows them, each after its share of the recordings."""

_SILENT = 0.04  # of the recordings: nobody speaks
_NOISY = 0.4  # of the recordings
_SHORT_PAUSE, _LONG_PAUSE, _LONG = 0.2, 1.2, 0.2  # mean seconds, and how many are long ones


@dataclass(frozen=True)
class Recording:
    """Somebody speaks, and pauses.

    samples: float32 (n,), -1 to 1, 16 kHz, at the loudness of `animagic.speech.normalised`. phones: in order; silence
    elsewhere. features: what the encoder hears, float32 (n / 320, layers, channels). text, voice: "" in a silent one.
    """

    samples: np.ndarray
    phones: tuple[Phone, ...]
    features: Tensor
    text: str
    voice: str

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    def mouth(self, fps: float) -> np.ndarray:
        """Opening, width and rounding of the mouth in every video frame that begins in it, float32 (frames, 3)."""
        return mouth_shapes(self.phones, fps, int(self.seconds * fps))


class VoiceBank:
    """Recordings of 6 to 10 s, each made when it is first asked for, and then kept in a folder.

    A quarter of the time is silence: before, between and after sentences; in some nobody speaks at all. Voices are
    faster or slower and coloured as by other microphones, and there may be some noise.

    Args:
        folder: where they are kept; None: nowhere.
        count: how many there are.
        held_out: sentences and voices that are never heard in training.
        encoder: None: the embedded one.

    Raises: InputError where a voice is not installed (flite, espeak-ng).
    """

    def __init__(
        self,
        folder: str | Path | None,
        count: int,
        held_out: bool = False,
        seed: int = 0,
        encoder: SpeechEncoder | None = None,
    ) -> None:
        if count < 1:
            raise InputError(f"a bank of {count} recordings cannot be; give 1 or more.")
        self.folder, self.count, self.held_out, self.seed = folder, count, held_out, seed
        self._encoder = encoder

    @cached_property
    def encoder(self) -> SpeechEncoder:
        return self._encoder or WhisperEncoder()

    @cached_property
    def silence(self) -> Tensor:
        """What the encoder hears when there is no sound, float32 (features of the longest recording, layers,
        channels)."""
        return features(self.encoder, np.zeros(int(SECONDS[1] * RATE), np.float32))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Recording:
        if not 0 <= number < self.count:
            raise IndexError(number)
        if self.folder is None:
            return self._made(number)
        name = f"{self.encoder.layers}x{self.encoder.channels}-{self.seed}{'-held-out' if self.held_out else ''}"
        path = Path(self.folder) / name / f"{number}.npz"
        if not path.is_file():
            made = self._made(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(_packed(made))
            return made
        return _unpacked(path)

    def _made(self, number: int) -> Recording:
        rng = np.random.default_rng((self.seed, number, self.held_out))
        text, voice, samples, phones = spoken(rng, self.held_out)
        samples = _as_recorded(samples, rng)
        return Recording(samples, phones, features(self.encoder, samples), text, voice)


class VoicedBatches(Dataset):
    """Batches with speech from a `VoiceBank`, which their fields describe; item `step` is a whole batch."""

    steps: int
    held_out: bool
    voices: str | None
    recordings: int
    encoder: str | None

    @cached_property
    def bank(self) -> VoiceBank:
        """Where the speech comes from."""
        return VoiceBank(self.voices, self.recordings, self.held_out, encoder=speech_encoder(self.encoder))

    def __len__(self) -> int:
        return self.steps


@dataclass(eq=False)
class VoiceBatches(VoicedBatches):
    """What is heard around latent frames, and what the mouth does in them; item `step` is a whole batch.

    Args:
        batch_size: latent frames.
        voices: the folder of a `VoiceBank`. recordings: how many there are in it.
        encoder: see `speech_encoder`.

    Items: {"speech": float32 (batch_size, 8, layers, channels), "mouth": float32 (batch_size, 4, 3), see
    `Recording.mouth`, "index": int}.
    """

    seed: int
    steps: int
    batch_size: int = 128
    fps: float = 25
    held_out: bool = False
    voices: str | None = None
    recordings: int = 300
    encoder: str | None = None

    def __post_init__(self):
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        self._heard = lru_cache(None)(self._hear)

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, step))
        speech, mouths = [], []
        for number in rng.integers(len(self.bank), size=self.batch_size).tolist():
            heard, mouth = self._heard(number)
            start = int(rng.integers(CONTEXT, len(mouth) - GROUP - CONTEXT + 1))
            speech.append(heard[start - CONTEXT : start + GROUP + CONTEXT])
            mouths.append(mouth[start : start + GROUP])
        return {"speech": torch.stack(speech).float(), "mouth": torch.from_numpy(np.stack(mouths)), "index": step}

    def _hear(self, number: int) -> tuple[Tensor, np.ndarray]:
        recording = self.bank[number]
        mouth = recording.mouth(self.fps)
        return at_frames(recording.features, self.fps, len(mouth)).half(), mouth


def spoken(rng: np.random.Generator, held_out: bool = False) -> tuple[str, str, np.ndarray, tuple[Phone, ...]]:
    """Text, voice, samples at 16 kHz and phones of a recording: sentences and pauses, cut off at its end."""
    length = int(rng.uniform(*SECONDS) * RATE)
    shares, groups = zip(*SPEAKERS[held_out], strict=True)
    group = groups[int(rng.choice(len(groups), p=shares))]
    voice = group[int(rng.integers(len(group)))]
    language = next((one for one in LANGUAGES if voice.split("+")[0] == one), "en")
    sound, texts, phones = np.zeros(length, np.float32), [], []
    silent = rng.random() < _SILENT
    at = length if silent else _pause(rng)
    pace = rng.uniform(0.88, 1.14)  # the voice is higher as well
    while at < length:
        said = say(text := sentence(rng, language, held_out), voice)
        if said.phones is None:
            raise InputError(f"the voice {voice!r} does not tell the times of its phones: install flite and espeak-ng.")
        samples = normalised(said.samples, said.rate)
        places = np.arange(0, len(samples) - 1, pace)
        samples = np.interp(places, np.arange(len(samples)), samples)[: length - at]
        sound[at : at + len(samples)] = samples
        texts.append(text)
        end = at / RATE + len(samples) / RATE
        times = [(at / RATE + phone.start / pace, min(at / RATE + phone.end / pace, end)) for phone in said.phones]
        phones += [
            Phone(phone.name, *time) for phone, time in zip(said.phones, times, strict=True) if time[0] < time[1]
        ]
        at += len(samples) + _pause(rng)
    return " ".join(texts), "" if silent else voice, sound, tuple(phones)


def speech_encoder(folder: str | None) -> SpeechEncoder:
    """The embedded encoder of speech, or the wav2vec 2.0 model in a folder. Raises CheckpointError."""
    return WhisperEncoder() if folder is None else Wav2VecEncoder.from_pretrained(folder)


def _pause(rng: np.random.Generator) -> int:
    return int(rng.exponential(_LONG_PAUSE if rng.random() < _LONG else _SHORT_PAUSE) * RATE)


def _as_recorded(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sound with other highs and lows, and maybe noise, at the loudness that encoders want."""
    spectrum, frequencies = np.fft.rfft(sound), np.fft.rfftfreq(len(sound), 1 / RATE)
    places = np.linspace(0, RATE / 2, 6)
    spectrum *= 10 ** (np.interp(frequencies, places, rng.normal(0, 3, 6)) / 20)
    sound = normalised(np.fft.irfft(spectrum, len(sound)).astype(np.float32), RATE)
    if rng.random() < _NOISY:
        noise = np.fft.rfft(rng.standard_normal(len(sound))) / np.maximum(frequencies, 50) ** rng.uniform(0, 1)
        noise = np.fft.irfft(noise, len(sound))
        sound = sound + noise / noise.std() * 10 ** (rng.uniform(-65, -35) / 20)
    return sound.astype(np.float32)


def _packed(recording: Recording) -> bytes:
    into = io.BytesIO()
    np.savez(
        into,
        samples=(recording.samples.clip(-1, 1) * 32767).astype(np.int16),
        names=np.array([phone.name for phone in recording.phones], dtype=str),
        times=np.array([(phone.start, phone.end) for phone in recording.phones]).reshape(-1, 2),
        features=recording.features.half().numpy(),
        said=np.array([recording.text, recording.voice]),
    )
    return into.getvalue()


def _unpacked(path: Path) -> Recording:
    with np.load(path) as kept:
        samples, times, (text, voice) = kept["samples"].astype(np.float32) / 32767, kept["times"], kept["said"].tolist()
        phones = tuple(Phone(name, *time) for name, time in zip(kept["names"].tolist(), times.tolist(), strict=True))
        return Recording(samples, phones, torch.from_numpy(kept["features"]).float(), text, voice)
