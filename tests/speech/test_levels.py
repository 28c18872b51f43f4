"""Where somebody speaks, and how loud."""

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.speech import normalised, voiced
from animagic.speech.levels import frame_levels, true_peak

RATE = 16_000


def tone(seconds: float, size: float = 0.3, frequency: float = 300) -> np.ndarray:
    return (size * np.sin(2 * np.pi * frequency * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def pause(seconds: float, size: float = 0.0) -> np.ndarray:
    return (size * np.random.default_rng(0).standard_normal(int(RATE * seconds))).astype(np.float32)


@pytest.mark.parametrize("noise", [0, 1e-4, 3e-3, 0.02])
def test_a_voice_is_found_between_pauses(noise):
    sound = np.concatenate([pause(1), tone(1), pause(1)])
    found = voiced(sound + pause(3, noise), RATE)
    assert found.shape == (150,)
    assert np.flatnonzero(np.diff(found.astype(int))).tolist() == [47, 104]  # 40 ms before, 100 ms after


def test_short_gaps_belong_to_the_voice():
    assert voiced(np.concatenate([tone(0.5), pause(0.1), tone(0.5)]), RATE).all()


@pytest.mark.parametrize("sound", [pause(1), pause(1, 1e-4)])
def test_silence_is_no_voice(sound):
    assert not voiced(sound, RATE).any()


def test_a_voice_without_pauses_is_found():
    assert voiced(tone(1), RATE).all()


@pytest.mark.parametrize(("rate", "count"), [(8000, 3), (11_025, 2), (22_050, 1), (44_100, 1), (48_000, 1)])
def test_every_20_ms_has_one_at_any_rate(rate, count):
    assert voiced(np.ones(1000, np.float32), rate).shape == (-(-1000 * 50 // rate),)


def test_a_real_reader_is_heard(speech):
    found = voiced(speech("speech_real_librivox_austen_0920.wav"), RATE)
    assert 0.7 < found.mean() < 1


@pytest.mark.parametrize("size", [0.02, 0.1, 0.9])
def test_any_voice_gets_one_loudness(size):
    sound = normalised(np.concatenate([tone(1, size), pause(2)]), RATE)
    assert np.percentile(frame_levels(sound, RATE), 95) == pytest.approx(-20, abs=1)


def test_peaks_stay_below_the_highest():
    sound = tone(2, 0.05)
    sound[::4000] = 0.9
    assert true_peak(normalised(sound, RATE)) <= 10 ** (-1 / 20) + 1e-3


def test_a_peak_between_samples_is_found():
    sound = np.cos(np.pi / 2 * np.arange(400) + np.pi / 4).astype(np.float32)  # 0.707 at every sample
    assert true_peak(sound[:400]) == pytest.approx(1, abs=0.15)


def test_silence_stays_as_it_is():
    assert np.array_equal(normalised(pause(1, 1e-4), RATE), pause(1, 1e-4))


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((9, 2), np.float32), np.zeros(9, np.int16)])
def test_samples_of_another_kind_are_named(samples):
    with pytest.raises(InputError, match="samples"):
        voiced(samples, RATE)
