"""`animagic talk`: a portrait and a voice become a video, and a video gets another voice, with a random model."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from talking_models import talking_pipeline

from animagic.media import VideoWriter, iter_video, probe, read_metadata, write_image
from animagic.media.sound import Sound, read_sound

SECONDS = 0.6


def tone(seconds=SECONDS, rate=16_000, channels=1):
    samples = (np.sin(np.arange(round(rate * seconds)) * 0.2) / 4).astype(np.float32)
    return Sound(samples if channels == 1 else np.stack([samples] * channels, 1), rate)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_text_encoder) -> Path:
    folder = tmp_path_factory.mktemp("models") / "talker"
    talking_pipeline(tiny_text_encoder, height=64, width=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """face.png (256x256), wide.png (512x256), voice.wav, talk.mp4 of 12 frames with sound."""
    from animagic.speech import mouth_shapes
    from animagic.synthetic.portraits import render_portrait, sample_performance, sample_portrait

    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(3)
    portrait = sample_portrait(rng, kind="drawn")
    frames = render_portrait(
        portrait, sample_performance(rng, mouth_shapes([], 25, 12), 25, motion="still"), 256, 256
    ).frames
    write_image(folder / "face.png", frames[0])
    write_image(folder / "wide.png", np.pad(frames[0], ((0, 0), (128, 128), (0, 0)), "edge"))
    mask = np.zeros((256, 256, 3), np.uint8)
    mask[80:200, 80:180] = 255
    write_image(folder / "mask.png", mask)
    write_image(folder / "black.png", 0 * mask)
    write_image(folder / "small.png", mask[:100])
    write_image(folder / "wall.png", 0 * mask + 120)
    for name, sound in (("voice", tone()), ("stereo", tone(rate=8_000, channels=2))):
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(sound.channels)
            file.setsampwidth(2)
            file.setframerate(sound.rate)
            file.writeframes((sound.samples * 32767).astype("<i2").tobytes())
    with VideoWriter(folder / "talk.mp4", 25, sound=tone()) as writer:
        writer.write(frames)
    with VideoWriter(folder / "silent.mp4", 25) as writer:
        writer.write(frames)
    return folder


@pytest.fixture
def talk(run, model):
    def talk(*words: str):
        return run("talk", *words, "--model", model, "-o", "made.mp4", "--seed", 1)

    return talk


FACE = ("--face", "70,60,120,150")


def test_a_portrait_speaks_with_a_voice(talk, media):
    done = talk(str(media / "face.png"), "--audio", str(media / "voice.wav"), "--prompt", "a red ball", *FACE)
    assert done.code == 0, done.err
    frames = list(iter_video("made.mp4"))
    assert len(frames) == round(25 * SECONDS)
    assert frames[0].shape == (64, 64, 3)
    assert read_sound("made.mp4").seconds == pytest.approx(SECONDS, abs=0.05)
    stored = read_metadata("made.mp4")
    assert stored["request"]["audio"] == [str(media / "voice.wav")]
    assert stored["drift"][-1]["frames"] == len(frames)


def test_any_sound_and_any_film_is_a_voice(talk, media):
    for voice in ("stereo.wav", "talk.mp4"):
        done = talk(str(media / "face.png"), "--audio", str(media / voice), "--no-sound", *FACE)
        assert done.code == 0, done.err


def test_two_speakers_of_whom_one_is_silent_by_masks(talk, media):
    face, voice = str(media / "face.png"), str(media / "voice.wav")
    masks = ("--mask", str(media / "mask.png"), "--face", "0,0,50,50")
    done = talk(face, "--audio", voice, "--audio", "silence", *masks, "--order", "front", "--show-face")
    assert done.code == 0, done.err
    assert next(iter(iter_video("made.mp4"))).shape[1] > 2 * 64


def test_a_wide_portrait_keeps_its_shape_and_may_be_animated_in_part(talk, media):
    wide, voice = str(media / "wide.png"), str(media / "voice.wav")
    box = ("--face", "198,60,120,150")
    assert talk(wide, "--audio", voice, *box).code == 0
    facts = probe("made.mp4")
    assert facts["width"] == 96
    assert facts["height"] == 48
    assert talk(wide, "--audio", voice, *box, "--around-face").code == 0
    assert probe("made.mp4")["width"] == 512


def test_a_video_keeps_all_but_the_mouth(talk, media):
    done = talk(str(media / "silent.mp4"), "--audio", str(media / "voice.wav"), *FACE)
    assert done.code == 0, done.err
    frames, before = list(iter_video("made.mp4")), list(iter_video(media / "silent.mp4"))
    assert len(frames) == len(before) == 12
    change = np.abs(np.stack(frames).astype(int) - np.stack(before)).mean((0, 3))
    assert change[170:205, 105:155].max() > 10  # the mouth
    assert change[:60].mean() < 3  # compression alone
    assert read_sound("made.mp4").seconds == pytest.approx(12 / 25, abs=0.15)


def test_a_voice_in_real_time_and_how_long_it_takes_to_be_seen(talk, media):
    done = talk(str(media / "face.png"), "--audio", str(media / "voice.wav"), "--real-time", *FACE)
    assert done.code == 0, done.err
    facts = read_metadata("made.mp4")["latency"]
    assert facts["frames"] == 15
    assert facts["wait_median"] > 0.3  # the front, and what must be heard
    assert "sound in to picture out" in done.err


def test_it_can_be_made_again(talk, run, media):
    assert talk(str(media / "face.png"), "--audio", str(media / "voice.wav"), *FACE).code == 0
    done = run("reproduce", "made.mp4", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["equal_frames"] == facts["frames"] == 15


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("face.png", *FACE), "there is no voice"),
        (("face.png", "--audio", "mask.png", *FACE), "is a picture"),
        (("face.png", "--audio", "silent.mp4", *FACE), "sound"),
        (("face.png", "--audio", "nowhere.wav", *FACE), "nowhere.wav"),
        (("wall.png", "--audio", "voice.wav"), "no face is found"),
        (("face.png", "--audio", "voice.wav", "--mask", "small.png"), "is 256x100"),
        (("face.png", "--audio", "voice.wav", "--mask", "black.png"), "is empty"),
        (("face.png", "--audio", "voice.wav", *FACE, *FACE), "for 1 voice"),
        (("face.png", "--audio", "voice.wav", "--face", "300,0,50,50"), "reaches out of"),
        (("face.png", "--audio", "voice.wav", "--face", "big"), "x,y,width,height"),
        (("face.png", "--audio", "voice.wav", "--say", "hello", *FACE), "not both"),
        (("face.png", "--audio", "voice.wav", "--fps", "10", *FACE), "leave --fps out"),
        (("talk.mp4", "--audio", "voice.wav", "--frames", "50", *FACE), "12 frames"),
        (("face.png", "--audio", "voice.wav", "--window", "4", "--overlap", "4", "--frames", "99", *FACE), "overlap"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(talk, media, arguments, sentence):
    given = [str(media / a) if a.endswith((".png", ".wav", ".mp4")) else a for a in arguments]
    done = talk(*given)
    assert done.code == 2, done.err
    assert sentence in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not Path("made.mp4").exists()
