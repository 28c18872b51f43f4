"""Text is read by the program that is there. Stand-ins on PATH show what they were given; the real ones are used where
they are installed."""

import json
import shutil
import sys
from subprocess import CompletedProcess

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.speech import mouth_curve, say, saying, voiced

TONE = (8000 * np.sin(np.arange(8000) / 8)).astype(np.int16)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that only these programs are there. Returns the commands that are run, and how they answer."""

    def pretend(*names, answer):
        runs = []

        def run(command, given=b"", folder=None):
            if command[0] == sys.executable and "espeak-ng" not in names:
                return CompletedProcess(command, 3, b"", b"")
            runs.append((command, given, folder))
            return answer(command, folder)

        monkeypatch.setattr(saying.shutil, "which", lambda name: f"/bin/{name}" if name in names else None)
        monkeypatch.setattr(saying, "_run", run)
        return runs

    return pretend


def write_wav(path: str, rate: int = 16_000) -> None:
    with saying.wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(TONE.tobytes())


def test_espeak_tells_phones_and_any_rate_becomes_16_khz(installed):
    head = json.dumps({"rate": 22_050, "phones": [["h", 0], ["ə", 62], ["", 120]]}).encode()
    runs = installed("espeak-ng", answer=lambda command, _: CompletedProcess(command, 0, head + b"\n" + TONE.tobytes()))
    utterance = say("Hello", "de")
    assert runs[0][0][-1] == "de"
    assert runs[0][1] == b"Hello"
    assert utterance.rate == 16_000
    assert utterance.samples.dtype == np.float32
    assert len(utterance.samples) == pytest.approx(8000 * 16_000 / 22_050, abs=2)
    assert [phone.name for phone in utterance.phones] == ["h", "ə", "_"]
    assert utterance.phones[1].end == 0.12


def test_flite_tells_phones(installed):
    def answer(command, _):
        write_wav(command[-1])
        return CompletedProcess(command, 0, b"pau:0.164 hh:0.255 ax:0.304 \n")

    runs = installed("flite", answer=answer)
    utterance = say('-x "Hi" $(ls)', "rms")
    assert runs[0][0][:6] == ["/bin/flite", "-t", '-x "Hi" $(ls)', "-voice", "rms", "-psdur"]
    assert len(utterance.samples) == 8000
    assert [(phone.name, phone.end) for phone in utterance.phones] == [("pau", 0.164), ("hh", 0.255), ("ax", 0.304)]


def test_english_is_read_by_flite_where_espeak_is_missing(installed):
    def answer(command, _):
        write_wav(command[-1])
        return CompletedProcess(command, 0, b"")

    assert "slt" in (installed("flite", answer=answer), say("Hi"))[0][0][0]


def test_ffmpeg_reads_the_text_from_a_file_so_that_no_sign_is_a_filter(installed):
    def answer(command, folder):
        texts.append(saying.Path(folder, "text.txt").read_text())
        return CompletedProcess(command, 0, TONE.tobytes(), b"")

    texts: list[str] = []
    runs = installed("ffmpeg", answer=answer)
    utterance = say("It’s “naïve”: ':voice=x", "slt")
    assert texts == ["It's naive: ':voice=x"]
    assert "flite=textfile=text.txt:voice=slt" in runs[0][0]
    assert utterance.phones is None
    assert len(utterance.samples) == 8000


def test_an_ffmpeg_without_flite_is_named(installed):
    installed("ffmpeg", answer=lambda command, _: CompletedProcess(command, 1, b"", b"No such filter: 'flite'"))
    with pytest.raises(InputError, match="apt install flite"):
        say("Hi", "slt")


@pytest.mark.parametrize(("voice", "program"), [("en", "espeak-ng"), ("de", "espeak-ng"), ("slt", "flite")])
def test_it_says_what_to_install(installed, voice, program):
    installed(answer=None)
    with pytest.raises(InputError, match=f"apt install {program}"):
        say("Hi", voice)


@pytest.mark.parametrize("text", ["", "  \n", "?!", "a" * 5001])
def test_a_text_that_cannot_be_read_is_named(text):
    with pytest.raises(InputError, match="characters"):
        say(text)


@pytest.mark.parametrize("voice", ["", "Slt", "en;ls", "--path=/", "../en"])
def test_a_voice_that_cannot_be_is_named(voice):
    with pytest.raises(InputError, match="voice"):
        say("Hi", voice)


def test_a_voice_that_espeak_lacks_is_named(installed):
    installed("espeak-ng", answer=lambda command, _: CompletedProcess(command, 4, b"", b""))
    with pytest.raises(InputError, match="--voices"):
        say("Hi", "xx")


@pytest.mark.parametrize(
    ("program", "voice"), [("flite", "slt"), ("flite", "kal16"), ("espeak-ng", "en-us+f3"), ("espeak-ng", "de")]
)
def test_the_phones_are_where_the_sound_is(program, voice):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    utterance = say("Papa made a boat. Mama saw it.", voice)
    ends = [phone.end for phone in utterance.phones]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(len(utterance.samples) / 16_000, abs=0.15)
    opening = mouth_curve(utterance.phones, 50, len(utterance.samples) // 320)
    loud = voiced(utterance.samples, 16_000)[: len(opening)]
    assert opening[loud].mean() > opening[~loud].mean() + 0.2
