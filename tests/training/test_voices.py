"""Recordings of speech as training data: composed sentences, voices, pauses, and what is kept."""

import re
import shutil

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.speech import Phone
from animagic.speech.mouth import SILENCE, visemes_of
from animagic.speech.saying import Utterance
from animagic.training import voices
from animagic.training.sentences import LANGUAGES, sentence
from animagic.training.voices import RATE, SECONDS, SPEAKERS, Recording, VoiceBank, VoiceBatches, spoken


class Loudness:
    """In place of an encoder: how loud each frame is, in two layers of three channels."""

    layers, channels, before, after = 2, 3, 0, 0

    def encode(self, sound: torch.Tensor, first: int) -> torch.Tensor:
        return sound.reshape(-1, 320).abs().mean(1)[:, None, None].expand(-1, 2, 3)


def hum(text: str, voice: str) -> Utterance:
    """In place of a synthesiser: each word is a tone of 0.3 s, a vowel, and the voice its pitch."""
    count = len(text.split())
    time = np.arange(int(0.3 * count * RATE)) / RATE
    samples = 0.2 * np.sin(2 * np.pi * (150 + 10 * len(voice)) * time)
    phones = tuple(Phone("AA1", 0.3 * i, 0.3 * (i + 1)) for i in range(count))
    return Utterance(samples.astype(np.float32), RATE, phones)


@pytest.fixture(autouse=True)
def synthesiser(monkeypatch):
    monkeypatch.setattr(voices, "say", hum)


def bank(folder=None, count: int = 4, **settings) -> VoiceBank:
    return VoiceBank(folder, count, encoder=Loudness(), **settings)


def same(a: Recording, b: Recording) -> bool:
    if (a.text, a.voice, a.phones, len(a.samples)) != (b.text, b.voice, b.phones, len(b.samples)):
        return False
    return np.allclose(a.samples, b.samples, atol=1e-4) and torch.allclose(a.features, b.features, atol=1e-3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_sentences_are_others(language):
    rng = np.random.default_rng(0)
    seen, held = ({sentence(rng, language, out) for _ in range(500)} for out in (False, True))
    assert not seen & held
    assert min(len(seen), len(held)) > 20


def test_sentences_are_whole():
    rng = np.random.default_rng(1)
    for _ in range(300):
        text = sentence(rng)
        assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,:'-]*[.!?]", text), text


def test_held_out_voices_are_others():
    seen, held = ({voice for _, group in SPEAKERS[out] for voice in group} for out in (False, True))
    assert not seen & held
    assert all(sum(share for share, _ in groups) == pytest.approx(1) for groups in SPEAKERS.values())


def test_a_recording_depends_on_seed_and_number_alone():
    first = bank()[1]
    assert same(bank(count=9)[1], first)
    assert not same(bank(seed=1)[1], first)
    assert not same(bank()[2], first)
    assert not same(bank(held_out=True)[1], first)


def test_phones_tell_when_there_is_sound():
    for number in range(6):
        recording = bank(count=6)[number]
        assert SECONDS[0] <= recording.seconds <= SECONDS[1]
        mouth = recording.mouth(25)
        assert mouth.shape == (int(25 * recording.seconds), 3)
        loud = np.abs(recording.samples[: len(mouth) * 640]).reshape(-1, 640).mean(1)
        assert loud[mouth[:, 0] > 0.9].min(initial=1) > 5 * loud[mouth[:, 0] < 0.01].max(initial=0)
        assert recording.features.shape == (-(-len(recording.samples) // 320), 2, 3)


def test_a_quarter_of_the_time_is_silence():
    drawn = [spoken(np.random.default_rng(i)) for i in range(100)]
    heard = sum(p.end - p.start for *_, phones in drawn for p in phones if visemes_of(p.name) != (SILENCE,))
    assert 0.15 < 1 - heard / sum(len(samples) / RATE for _, _, samples, _ in drawn) < 0.35
    silent = [not text for text, *_ in drawn]
    assert 0 < sum(silent) < 15
    assert all(not samples.any() for text, _, samples, _ in drawn if not text)


def test_phones_are_in_order_even_if_they_outlast_the_sound(monkeypatch):
    def longer(text: str, voice: str) -> Utterance:
        made = hum(text, voice)
        end = len(made.samples) / RATE
        return Utterance(made.samples, RATE, (*(made.phones or ()), Phone("pau", end, end + 2.0)))

    monkeypatch.setattr(voices, "say", longer)
    for number in range(4):
        recording = bank()[number]
        recording.mouth(25)  # refuses phones that overlap
        assert all(phone.end <= recording.seconds + 1e-6 for phone in recording.phones)


def test_a_folder_keeps_recordings(tmp_path, monkeypatch):
    first = bank(tmp_path)[2]
    monkeypatch.setattr(voices, "say", None)
    kept = bank(tmp_path)[2]
    assert same(kept, first)
    assert kept.features.dtype == torch.float32
    with pytest.raises(TypeError):
        bank(tmp_path, seed=1)[2]


def test_batches_of_voices_hold_what_is_heard_and_what_the_mouth_does(tmp_path, monkeypatch):
    batches = VoiceBatches(1, 5, batch_size=200, recordings=4)
    batches.bank = bank(count=4)
    batch = batches[3]
    assert batch["speech"].shape == (200, 8, 2, 3)
    assert batch["mouth"].shape == (200, 4, 3)
    assert torch.equal(batches[3]["speech"], batch["speech"])
    # A vowel sounds as long as the tone of a word: where all of it is loud, the mouth is open, and where nothing, shut.
    loud, opening = batch["speech"][:, :, 0, 0], batch["mouth"][:, :, 0]
    assert opening[loud.amin(1) > 0.05].min() > 0.2
    assert opening[loud.amax(1) < 0.01].max() < 0.2
    with pytest.raises(InputError, match="batch_size must be at least 1, not 0"):
        VoiceBatches(1, 5, batch_size=0)


def test_silence_is_as_long_as_any_recording():
    silence = bank().silence
    assert silence.shape == (50 * SECONDS[1], 2, 3)
    assert not silence.any()


def test_a_voice_without_times_is_refused(monkeypatch):
    monkeypatch.setattr(voices, "say", lambda text, voice: Utterance(np.ones(RATE, np.float32), RATE, None))
    with pytest.raises(InputError, match="does not tell the times of its phones: install flite and espeak-ng"):
        bank()[1]


def test_a_bank_has_an_end():
    assert len(list(bank(count=2))) == 2
    with pytest.raises(InputError, match="a bank of 0 recordings cannot be"):
        bank(count=0)


@pytest.mark.skipif(not (shutil.which("flite") and shutil.which("espeak-ng")), reason="no synthesiser is installed")
def test_real_voices_open_the_mouth(monkeypatch):
    monkeypatch.undo()
    recording = bank(count=40)[2]
    mouth = recording.mouth(50)[:, 0]
    loud = np.abs(recording.samples[: len(mouth) * 320]).reshape(-1, 320).mean(1)
    assert np.corrcoef(mouth, loud)[0, 1] > 0.3
