"""A voice that arrives while its video is made."""

import threading
import time
import wave

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.jobs.folder import Folder
from animagic.jobs.service import Service
from animagic.jobs.settings import Limits, Settings
from animagic.jobs.voices import VoiceFile
from animagic.media import probe, read_metadata, read_sound, write_image
from animagic.requests import build_request, from_metadata


def hum(seconds: float, start: float = 0.0) -> np.ndarray:
    t = start + np.arange(round(16_000 * seconds)) / 16_000
    return (0.3 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def test_what_is_written_is_read_while_it_arrives(tmp_path):
    voice, heard = VoiceFile(Folder(tmp_path)), []
    listener = threading.Thread(target=lambda: heard.extend(VoiceFile(Folder(tmp_path)).blocks()))
    listener.start()
    for i in range(3):
        voice.add(hum(0.1, 0.1 * i), False, 10)
    voice.add(hum(0.1, 0.3), True, 10)
    listener.join(10)
    assert np.allclose(np.concatenate(heard), hum(0.4), atol=1e-6)
    with pytest.raises(InputError, match="has ended"):
        voice.add(hum(0.1), False, 10)
    with wave.open(voice.keep()) as kept:
        assert (kept.getframerate(), kept.getnframes()) == (16_000, 6400)


def test_nobody_waits_for_ever(tmp_path):
    assert list(VoiceFile(Folder(tmp_path), patience=0.05).blocks()) == []

    def check() -> None:
        raise KeyboardInterrupt

    (tmp_path / "other").mkdir()
    with pytest.raises(KeyboardInterrupt):
        next(VoiceFile(Folder(tmp_path / "other"), check=check).blocks())


def test_wrong_samples_are_refused(tmp_path):
    voice = VoiceFile(Folder(tmp_path))
    with pytest.raises(InputError, match="finite"):
        voice.add(np.array([np.nan]), False, 10)
    with pytest.raises(InputError, match=r"\(n,\)"):
        voice.add(np.zeros((2, 2)), False, 10)
    with pytest.raises(InputError, match="longer than 1 s"):
        voice.add(hum(1.1), False, 1)


@pytest.mark.integration
def test_a_portrait_says_what_is_said_meanwhile(tmp_path):
    picture = tmp_path / "portrait.png"
    write_image(picture, np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    options = {"image": str(picture), "face": ("16,16,32,32",), "steps": 2, "height": 64, "width": 64, "seed": 1}
    request = build_request("", "magicinfinite-tiny", audio=("live",), **options)
    with Service(Settings(tmp_path / "server", threads=1, limits=Limits(seconds=60))) as service:
        job = service.submit(request)
        for part in range(4):
            service.sound(job.id, hum(0.5, 0.5 * part))
        end, folder = time.monotonic() + 300, service.folder(job.id)
        while not folder.chunks:  # frames come before the voice has ended
            assert time.monotonic() < end
            assert not service.get(job.id).finished, service.get(job.id).error
            time.sleep(0.05)
        service.sound(job.id, hum(0.3, 2.0), end=True)
        while not service.get(job.id).finished:
            assert time.monotonic() < end
            time.sleep(0.05)
        job = service.get(job.id)
        assert job.status == "completed", job.error
        said = read_sound(folder.inputs / "voice.wav").seconds
        assert probe(folder.video)["seconds"] == pytest.approx(said, abs=0.05)
        for film in (folder.video, folder.stream):
            assert np.abs(read_sound(film).samples).max() > 0.1
        made = from_metadata(read_metadata(folder.video))
        assert made.audio == (str(folder.inputs / "voice.wav"),)
        assert made.frames == job.result["frames"]
        with pytest.raises(InputError, match="nobody listens"):
            service.sound(job.id, hum(0.1))
