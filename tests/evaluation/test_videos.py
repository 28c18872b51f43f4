"""`animagic eval talk VIDEO`: a drawn person who speaks, or does not, judged as a video of one's own."""

from __future__ import annotations

import json
import wave

import numpy as np
import pytest

from animagic.cli import main
from animagic.media import VideoWriter, read_image, write_image
from animagic.speech import Phone, mouth_shapes
from animagic.synthetic.portraits import render_photo, render_portrait, sample_performance, sample_portrait

SPOKEN = ((0.3, 0.7), (1.0, 1.3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video, its sound, a photo of the person, and a video of nobody."""
    place = tmp_path_factory.mktemp("videos")
    mouth = mouth_shapes([Phone("AA1", *times) for times in SPOKEN], 25, 50)
    portrait = sample_portrait(8, kind="drawn")
    clip = render_portrait(portrait, sample_performance(8, mouth, 25, motion="still"), 128, 128)
    for name, frames in (("talk.mp4", clip.frames), ("nobody.mp4", np.full_like(clip.frames, 90))):
        with VideoWriter(place / name, fps=25) as writer:
            writer.write(frames)
    write_image(place / "photo.png", render_photo(portrait, 8, 128, 128).frames[0])
    sound = np.zeros(32_000, np.int16)
    for start, end in SPOKEN:
        at = np.arange(round(16_000 * start), round(16_000 * end))
        sound[at] = 8000 * np.sin(2 * np.pi * 140 * at / 16_000)
    with wave.open(str(place / "voice.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    return place


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_a_video_is_judged(folder, capsys):
    words = [
        "eval",
        "talk",
        "talk.mp4",
        "--audio",
        "voice.wav",
        "--portrait",
        "photo.png",
        "-o",
        "a.json",
        "--sheet",
        "a.png",
    ]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("| talk.mp4 | | good |")
    report = json.loads((folder / "a.json").read_text("utf-8"))
    assert report["frames"] == 50
    assert report["summary"]["face seen"] == 1
    assert report["summary"]["identity"] < 0.6
    assert abs(report["summary"]["offset"]) <= 5
    assert read_image("a.png").shape == (320, 1100, 3)


def test_nobody_cannot_be_judged(capsys):
    assert main(["eval", "talk", "nobody.mp4", "--audio", "voice.wav"]) != 0
    assert "no face is seen in nobody.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text", "talk.mp4"], "judged by the suite talk"),
        (["talk", "--audio", "voice.wav"], "belong to a video"),
        (["text", "--syncnet", "a.model"], "people who talk"),
        (["talk", "talk.mp4", "--count", "2"], "leave out --count"),
        (["talk", "talk.mp4", "--page", "a.html"], "leave it out"),
        (["talk", "talk.mp4", "--audio", "voice.wav", "--syncnet", "none.model"], "no file none.model"),
    ],
)
def test_what_does_not_go_together_is_named(words, said, capsys):
    assert main(["eval", *words]) != 0
    assert said in capsys.readouterr().err
