"""Voices: read from files or said, at one loudness, mixed for the film, and what is heard of them where they rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np

from ..errors import InputError, MediaError
from ..media.reading import probe
from ..media.sound import Sound, check_sound, read_sound, sound_facts
from ..speech.levels import HIGHEST_PEAK, normalised, true_peak, voiced

RATE = 16_000
SILENCE = "silence"
"""The voice of somebody who says nothing."""
LIVE = "live"
"""A voice that arrives while the video is made (`requests.generate`)."""

_HIGHEST_RATE = 48_000  # of a mix


@dataclass(frozen=True, slots=True)
class Say:
    """A text to be read aloud; see `animagic.speech.say`."""

    text: str
    voice: str = "en"


Voice: TypeAlias = str | Path | Sound | Say
"""A film or sound file, sound in memory, a text to be read aloud, or SILENCE."""


def read_voice(voice: Voice, rate: int = RATE) -> np.ndarray:
    """A voice at one loudness, float32 (n,), -1 to 1; silence has no samples.

    Raises: MediaError for a file without sound that can be read; InputError for samples that cannot be, or a text that
        cannot be read aloud.
    """
    if voice == SILENCE:
        return np.zeros(0, np.float32)
    if isinstance(voice, Say):
        from ..speech.saying import say

        said = say(voice.text, voice.voice)
        samples = _resampled(said.samples, said.rate, rate)
    elif isinstance(voice, Sound):
        check_sound(voice)
        one = voice.samples.reshape(len(voice.samples), -1).mean(1, dtype=np.float32)
        samples = _resampled(one, voice.rate, rate)
    else:
        try:
            samples = read_sound(voice, rate).samples
        except MediaError as error:
            if _is_picture(voice):
                raise MediaError(f"{voice} is a picture: give a sound or a video file as a voice.") from error
            raise
    return normalised(samples, rate)


def _is_picture(path: str | Path) -> bool:
    try:
        return probe(path)["fps"] is None
    except MediaError:
        return False


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples (n,) at another rate."""
    if rate == wanted:
        return samples
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), "flt", "mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler("flt", "mono", wanted)
    return np.concatenate([part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)])


def mixed(voices: Sequence[Voice]) -> Sound:
    """All voices at once, one channel, at the highest of their rates, up to 48 kHz; as long as the longest.

    Raises: as `read_voice`; InputError if all are silent.
    """
    heard = [voice for voice in voices if voice != SILENCE]
    if not heard:
        raise InputError("every voice is silence: give at least one sound, or a text to say.")
    rate = min(_HIGHEST_RATE, max(map(_rate_of, heard)))
    tracks = [read_voice(voice, rate) for voice in heard]
    samples = np.zeros(max(map(len, tracks)), np.float32)
    for track in tracks:
        samples[: len(track)] += track
    most = 10 ** (HIGHEST_PEAK / 20)
    return Sound(samples * min(1.0, most / max(true_peak(samples), most)), rate)


def soundtrack(voices: Sequence[Voice]) -> Sound | str:
    """What is heard in the film: the file of the only voice, as it is, or all of them mixed. Raises: as `mixed`."""
    heard = [voice for voice in voices if voice != SILENCE]
    return str(heard[0]) if len(heard) == 1 and isinstance(heard[0], str | Path) else mixed(voices)


def _rate_of(voice: Voice) -> int:
    if isinstance(voice, Say):
        return RATE
    return voice.rate if isinstance(voice, Sound) else sound_facts(voice)["rate"]


def hushed(samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    """Sound (n,) without what is heard where nobody speaks, so that breath and noise do not open a mouth; what is left
    begins and ends within 20 ms."""
    if not len(samples):
        return samples
    spoken = voiced(samples, rate).astype(np.float32)
    middles = (np.arange(len(spoken)) + 0.5) * rate / 50
    return samples * np.interp(np.arange(len(samples)), middles, spoken).astype(np.float32)
