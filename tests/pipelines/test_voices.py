"""Voices of every kind become one: 16 kHz, one channel, one loudness; silence stays silent."""

from __future__ import annotations

import wave
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from animagic.errors import AnimagicError, InputError
from animagic.media import Sound, VideoWriter
from animagic.pipelines import voices
from animagic.pipelines.voices import (
    RATE,
    SILENCE,
    Say,
    hushed,
    mixed,
    read_voice,
    soundtrack,
)


def spoken(seconds: float = 1.0, rate: int = RATE, level: float = 0.02, pitch: float = 220) -> np.ndarray:
    """A tone that fades in and out three times a second, as syllables do."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * 3 * time) ** 2).astype(np.float32)


@pytest.fixture
def wav(tmp_path):
    def wav(samples: np.ndarray, rate: int = RATE, name: str = "voice.wav"):
        samples = samples[:, None] if samples.ndim == 1 else samples
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(samples.shape[1])
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((samples * 2**15).astype("<i2").tobytes())
        return tmp_path / name

    return wav


def loudness(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(samples**2))


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 1), (44_100, 2), (RATE, 2)])
def test_any_sound_becomes_one_channel_at_one_rate_and_loudness(wav, rate, channels):
    samples = np.stack([spoken(rate=rate)] * channels, 1)
    reference = read_voice(Sound(spoken(), RATE))
    for voice in (wav(samples, rate), Sound(samples, rate)):
        read = read_voice(voice)
        assert read.dtype == np.float32
        assert read.shape == pytest.approx((RATE,), abs=1)
        assert loudness(read) == pytest.approx(loudness(reference), abs=0.3)
        assert np.corrcoef(read[100:-100], reference[100 : len(read) - 100])[0, 1] > 0.99
    assert loudness(reference) == pytest.approx(-20, abs=1.5)


def test_the_sound_of_a_film_is_a_voice(tmp_path):
    with VideoWriter(tmp_path / "film.mp4", 25, sound=Sound(spoken(), RATE)) as writer:
        writer.write(np.zeros((25, 32, 32, 3), np.uint8))
    assert len(read_voice(tmp_path / "film.mp4")) == pytest.approx(RATE, rel=0.03)


def test_silence_stays_silent(wav):
    assert not read_voice(wav(np.zeros(RATE))).any()
    assert len(read_voice(SILENCE)) == 0


def test_a_text_is_read_aloud(monkeypatch):
    from animagic.speech import saying

    def say(text, voice):
        assert (text, voice) == ("Hello.", "de")
        return SimpleNamespace(samples=spoken(), rate=RATE)

    monkeypatch.setattr(saying, "say", say)
    assert read_voice(Say("Hello.", "de")) == pytest.approx(read_voice(Sound(spoken(), RATE)))
    assert len(read_voice(Say("Hello.", "de"), 48_000)) == pytest.approx(48_000, abs=2)


def test_what_is_no_voice_is_named(wav, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "face.png")
    (tmp_path / "text.wav").write_text("Hello.")
    (tmp_path / "nothing.wav").touch()
    with VideoWriter(tmp_path / "mute.mp4", 25) as writer:
        writer.write(np.zeros((5, 32, 32, 3), np.uint8))
    cases = {
        wav(np.zeros(0), name="empty.wav"): "empty.wav holds no samples",
        tmp_path / "nothing.wav": "nothing.wav is damaged or of an unknown kind",
        tmp_path / "text.wav": "text.wav is damaged or of an unknown kind",
        tmp_path / "face.png": "face.png is a picture: give a sound or a video file as a voice",
        tmp_path / "mute.mp4": "mute.mp4 holds no sound",
        tmp_path / "missing.wav": "missing.wav does not exist",
    }
    for path, sentence in cases.items():
        with pytest.raises(AnimagicError, match=sentence):
            read_voice(path)
    with pytest.raises(InputError, match="samples must have the shape"):
        read_voice(Sound(np.zeros(0, np.float32), RATE))


def test_voices_are_mixed_at_the_highest_rate_as_long_as_the_longest(wav):
    low, high = wav(spoken(2.0, 8_000), 8_000, "low.wav"), Sound(spoken(1.0, 44_100, pitch=700), 44_100)
    both = mixed([low, SILENCE, high])
    assert (both.rate, both.channels) == (44_100, 1)
    assert both.seconds == pytest.approx(2, abs=0.001)
    parts = [read_voice(voice, 44_100) for voice in (low, high)]
    assert both.samples[44_200:] == pytest.approx(parts[0][44_200:], abs=1e-6)
    assert both.samples[:44_000] == pytest.approx(parts[0][:44_000] + parts[1][:44_000], abs=1e-6)


def test_a_mix_does_not_clip():
    voice = Sound(spoken(), RATE)
    one, many = mixed([voice]), mixed([voice] * 12)
    assert np.abs(one.samples).max() < 0.5
    assert 0.85 < np.abs(many.samples).max() < 0.9  # -1 dB


def test_the_only_voice_keeps_its_file(wav):
    path = wav(spoken())
    assert soundtrack([SILENCE, path]) == str(path)
    assert isinstance(soundtrack([path, path]), Sound)
    with pytest.raises(InputError, match="every voice is silence"):
        soundtrack([SILENCE, SILENCE])


def test_breath_is_not_heard_and_speech_is_as_it_was():
    breath = np.random.default_rng(0).normal(0, 2e-4, 3 * RATE).astype(np.float32)
    speech = spoken(1.0, level=0.1)
    samples = breath.copy()
    samples[RATE : 2 * RATE] += speech
    heard = hushed(samples)
    assert heard.dtype == np.float32
    assert not heard[: RATE * 9 // 10].any()
    assert not heard[RATE * 23 // 10 :].any()
    np.testing.assert_array_equal(heard[RATE : 2 * RATE], samples[RATE : 2 * RATE])
    assert np.abs(np.diff(heard)).max() <= np.abs(np.diff(samples)).max() * 1.01  # no click
    assert not len(hushed(samples[:0]))


def test_the_mix_is_of_no_higher_rate_than_films_have(wav):
    assert mixed([wav(spoken(0.3, 96_000), 96_000)]).rate == voices._HIGHEST_RATE == 48_000
