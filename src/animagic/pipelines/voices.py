"""Voices: read from files or said, at one loudness, mixed for the film, and what is heard of them where they rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import av
import numpy as np

from ..errors import InputError, MediaError
from ..media.reading import probe
from ..media.sound import Sound, check_sound, read_sound, sound_facts
from ..speech.levels import HIGHEST_PEAK, normalised, true_peak, voiced

if TYPE_CHECKING:
    from torch import Tensor

    from ..speech import SpeechEncoder

RATE = 16_000
SILENCE = "silence"
"""The voice of somebody who says nothing."""

_HIGHEST_RATE = 48_000  # of a mix
_EDGE = 4  # features, 80 ms, in which silence begins and ends


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


def speech_gate(samples: np.ndarray, fps: float, latents: int) -> np.ndarray:
    """float32 (latents,), 0 to 1: how much of the time of each latent frame somebody speaks; latent frame 0 is video
    frame 0, latent frame k the video frames 4 k - 3 to 4 k. samples: 16 kHz; after their end it is silent."""
    import torch

    from ..speech.frames import GROUP, at_frames

    frames = 1 + GROUP * (latents - 1)
    there = np.zeros(int(np.ceil(50 * frames / fps)), np.float32)
    if len(samples):
        spoken = voiced(samples, RATE)[: len(there)]
        there[: len(spoken)] = spoken
    shares = at_frames(torch.from_numpy(there)[:, None, None], fps, frames)[:, 0, 0].numpy()
    return np.concatenate([shares[:1], shares[1:].reshape(-1, GROUP).mean(1)])


def silence_of(encoder: SpeechEncoder) -> Tensor:
    """(layers, channels): what an encoder hears where there is no sound at all."""
    from ..speech.encoding import features

    return features(encoder, np.zeros(2 * RATE, np.float32))[25:75].mean(0)  # away from the ends


def quiet(features: Tensor, spoken: np.ndarray, silence: Tensor) -> Tensor:
    """Features (n, layers, channels), with those of true silence, (layers, channels), where nobody speaks, so that
    breath and noise do not open a mouth. They change over 80 ms, outside of the speech.

    spoken: bool (n,), as `animagic.speech.voiced` gives it.
    """
    import torch

    gate = spoken.astype(np.float32)
    for away in range(1, _EDGE):
        near = np.pad(spoken, away)
        share = np.float32(1 - away / _EDGE)
        gate = np.maximum(gate, share * (near[2 * away :] | near[: -2 * away]))
    return silence + torch.from_numpy(gate)[:, None, None].to(features) * (features - silence)
