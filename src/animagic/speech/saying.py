"""A voice that reads text, by the speech synthesiser that is installed: espeak-ng, flite, or the flite of ffmpeg."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
import wave
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from animagic.errors import InputError, first_line
from animagic.speech.mouth import Phone

RATE = 16_000
MOST_CHARACTERS = 5_000
VOICES = {
    "slt": "a woman, US English (flite)",
    "rms": "a man, US English (flite)",
    "awb": "a man, Scottish English (flite)",
    "kal16": "a man, US English, more of a robot (flite)",
    "en": "English; so are en-us, en-gb, and with a variant en+f3 or en+m2 (espeak-ng)",
    "de": "German; likewise fr, es, it, pl, ja, cmn and about a hundred more (espeak-ng)",
}
"""Names of voices. Any language of `espeak-ng --voices` is one."""

_FLITE = ("slt", "rms", "awb", "kal16")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*(\+[a-z0-9]+)?")
_SECONDS = 300  # for a synthesiser that hangs
_GET = "install it (Debian, Ubuntu: apt install {0}; macOS: brew install {0}), or give a sound file instead"


@dataclass(frozen=True, slots=True)
class Utterance:
    """A text that was read. samples: float32 (n,), -1 to 1; rate: samples per second; phones: its sounds with their
    times, None where the synthesiser does not tell them."""

    samples: np.ndarray
    rate: int
    phones: tuple[Phone, ...] | None


def say(text: str, voice: str = "en") -> Utterance:
    """A text, read aloud: 16 kHz, one channel.

    espeak-ng and flite tell the phones' times as well. "en" is read by flite's slt where only flite is installed.

    Args:
        text: up to 5000 characters.
        voice: one of VOICES, or a language of espeak-ng ("pt-br", "en-us+f3").
    Raises: InputError for a text or voice that cannot be read, or where no synthesiser is installed.
    """
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    if not any(sign.isalnum() for sign in text) or len(text) > MOST_CHARACTERS:
        raise InputError(f"the text has {len(text)} characters: give 1 to {MOST_CHARACTERS}, with something to read.")
    if voice in _FLITE:
        return _by_flite(text, voice)
    if not _LANGUAGE.fullmatch(voice):
        raise InputError(f"the voice {voice!r} is unknown: give {', '.join(_FLITE)}, or a language such as en or de.")
    utterance = _by_espeak(text, voice)
    if utterance is None and voice.split("-")[0] == "en" and (shutil.which("flite") or shutil.which("ffmpeg")):
        return _by_flite(text, _FLITE[0])
    if utterance is None:
        raise InputError(f"the voice {voice!r} needs espeak-ng, which is not installed: {_GET.format('espeak-ng')}.")
    return utterance


def _by_espeak(text: str, voice: str) -> Utterance | None:
    """None where espeak-ng is not installed."""
    voice = re.sub(r"^en-gb(?=$|\+)", "en", voice)  # espeak-ng's own name of it
    done = _run([sys.executable, str(Path(__file__).with_name("espeak.py")), voice], text.encode())
    if done.returncode == 3:
        return _by_espeak_program(text, voice)
    if done.returncode == 4:
        raise _unknown(voice)
    if done.returncode:
        raise InputError(f"espeak-ng could not read the text with the voice {voice!r}: give another text or voice.")
    head, _, sound = done.stdout.partition(b"\n")
    facts = json.loads(head)
    samples = np.frombuffer(sound, np.int16)
    starts = [start / 1000 for _, start in facts["phones"]] + [len(samples) / facts["rate"]]
    phones = tuple(
        Phone(name or "_", start, end)
        for (name, _), start, end in zip(facts["phones"], starts, starts[1:], strict=False)
        if end > start
    )
    return Utterance(_resampled(samples, facts["rate"]), RATE, phones)


def _by_espeak_program(text: str, voice: str) -> Utterance | None:
    if not (program := shutil.which("espeak-ng")):
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "said.wav")
        done = _run([program, "-v", voice, "--stdin", "-w", str(target)], text.encode())
        if done.returncode or not target.is_file():
            raise _unknown(voice)
        return Utterance(_read_wav(target), RATE, None)


def _by_flite(text: str, voice: str) -> Utterance:
    text = _ascii(text)
    with tempfile.TemporaryDirectory() as folder:
        if program := shutil.which("flite"):
            target = Path(folder, "said.wav")
            done = _run([program, "-t", text, "-voice", voice, "-psdur", "-o", str(target)])
            if not done.returncode and target.is_file():
                return Utterance(_read_wav(target), RATE, _flite_phones(done.stdout.decode("ascii", "ignore")))
        elif program := shutil.which("ffmpeg"):
            Path(folder, "text.txt").write_text(text, "ascii")  # so that nothing in it can be read as a filter
            source = f"flite=textfile=text.txt:voice={voice}"
            command = [
                program,
                "-v",
                "error",
                "-f",
                "lavfi",
                "-i",
                source,
                "-ac",
                "1",
                "-ar",
                str(RATE),
                "-f",
                "s16le",
                "-",
            ]
            done = _run(command, folder=folder)
            if not done.returncode and done.stdout:
                return Utterance(np.frombuffer(done.stdout, np.int16).astype(np.float32) / 2**15, RATE, None)
            if b"No such filter" in done.stderr:
                raise InputError(f"the voice {voice!r} needs flite, which this ffmpeg lacks: {_GET.format('flite')}.")
        else:
            raise InputError(f"the voice {voice!r} needs flite, which is not installed: {_GET.format('flite')}.")
    why = first_line(RuntimeError(done.stderr.decode("utf-8", "replace").strip() or "it gave no sound"))
    raise InputError(f"flite could not read the text with the voice {voice!r} ({why}): give another text or voice.")


def _flite_phones(printed: str) -> tuple[Phone, ...] | None:
    """From "pau:0.164 hh:0.255 ...": names and the times at which they end. None if those are no times in order."""
    ends = [(name, float(end)) for name, end in re.findall(r"(\S+):(\d+\.\d+)", printed)]
    starts = [0.0, *(end for _, end in ends)]
    if not ends or any(start > end for start, (_, end) in zip(starts, ends, strict=False)):
        return None
    return tuple(Phone(name, start, end) for start, (name, end) in zip(starts, ends, strict=False))


def _ascii(text: str) -> str:
    """The text in ASCII, as far as it can be written so: without accents and curly quotes."""
    plain = unicodedata.normalize("NFKD", text.translate({0x2018: "'", 0x2019: "'", 0x2013: "-", 0x2014: ", "}))
    found = plain.encode("ascii", "ignore").decode()
    if not any(sign.isalnum() for sign in found):
        raise InputError("flite reads English only: give English text, or a language as the voice (espeak-ng).")
    return found


def _unknown(voice: str) -> InputError:
    return InputError(f"the voice {voice!r} is unknown to espeak-ng: `espeak-ng --voices` lists those that there are.")


def _run(command: list[str], given: bytes = b"", folder: str | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, input=given, capture_output=True, cwd=folder, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{Path(command[0]).name} did not read the text in {_SECONDS} s: give less text.") from error


def _read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return _resampled(samples, file.getframerate())


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """int16 (n,) at any rate -> float32 at 16 kHz."""
    if rate == RATE:
        return samples.astype(np.float32) / 2**15
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler("flt", "mono", RATE)
    parts = [part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)]
    return np.concatenate(parts)
