"""Sound in the films that are written: in step with the pictures, whole, and the same every time."""

import av
import numpy as np
import pytest

from animagic.errors import InputError, MediaError
from animagic.media import Sound, VideoWriter, probe, read_metadata, read_sound, read_video, sound_facts

RATE = 48_000
COPIED = {"a.mp4": ("clap.m4a", "aac"), "a.webm": ("clap.ogg", "libopus")}
"""Files whose sound goes into a film as it is."""


def clap(fps: float, frames: int, at: int, before: float = 0.0, rate: int = RATE) -> tuple[np.ndarray, Sound]:
    """A white flash in frame `at`, and a click at the same instant of a sound that begins `before` seconds early."""
    clip = np.zeros((frames, 32, 32, 3), np.uint8)
    clip[at] = 255
    samples = np.random.default_rng(0).normal(0, 0.003, round((frames / fps + before) * rate)).astype(np.float32)
    click = round((before + at / fps) * rate)
    samples[click : click + rate // 500] = 0.9
    return clip, Sound(samples, rate)


def offset(path) -> float:
    """Seconds by which the click in a file comes after the flash."""
    video, sound = read_video(path), read_sound(path, RATE)
    flash = int(video.frames.mean((1, 2, 3)).argmax()) / video.fps
    return float((np.abs(sound.samples) > 0.4).argmax()) / RATE - flash


def write(path, clip, fps, **options):
    with VideoWriter(path, fps, **options) as writer:
        writer.write(clip)
    return path


@pytest.mark.parametrize(("fps", "start"), [(24, 0), (25, 0.731), (30000 / 1001, 0), (30000 / 1001, 0.5), (8, 0.731)])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
@pytest.mark.parametrize("kind", ["samples", "wav", "copied"])
def test_a_clap_is_seen_and_heard_at_once(tmp_path, name, fps, kind, start, sound_file):
    clip, sound = clap(fps, round(2 * fps), round(1.3 * fps), start)
    if kind == "wav":
        sound = sound_file(tmp_path / "clap.wav", sound.samples, "pcm_s16le")
    if kind == "copied":
        sound = sound_file(tmp_path / COPIED[name][0], sound.samples, COPIED[name][1])
    path = write(tmp_path / name, clip, fps, sound=sound, sound_start=start)
    assert abs(offset(path)) < 0.004  # a frame lasts 33 ms or more
    # and the sound ends with the pictures, to one packet
    assert read_sound(path, RATE).seconds == pytest.approx(len(clip) / fps, abs=0.03)


@pytest.mark.parametrize("start", [0, 0.5])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_sound_of_a_film_goes_on_to_another(tmp_path, suffix, start):
    clip, sound = clap(24, 48, 30)
    first = write(tmp_path / f"a.{suffix}", clip, 24, sound=sound)
    second = write(tmp_path / f"b.{suffix}", clip[round(start * 24) :], 24, sound=first, sound_start=start)
    assert abs(offset(second)) < 0.004
    other = write(tmp_path / ("c.webm" if suffix == "mp4" else "c.mp4"), clip, 24, sound=first)
    assert abs(offset(other)) < 0.004


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "mp4"), ("a.webm", "mp4"), ("a.mp4", "mkv")])
@pytest.mark.parametrize(("sound_at", "film_at"), [(0.5, 0), (0, 0.5), (-0.25, 0.25)])
@pytest.mark.parametrize("start", [0, 0.3])
def test_a_film_whose_sound_and_pictures_do_not_begin_together(
    tmp_path, name, kind, sound_at, film_at, start, sound_file
):
    _, sound = clap(24, 48, 36)
    source = sound_file(tmp_path / f"source.{kind}", sound.samples, "aac", RATE, sound_at, film_at)
    path = write(tmp_path / name, np.zeros((48, 32, 32, 3), np.uint8), 24, sound=source, sound_start=start)
    click = float((np.abs(read_sound(path, RATE).samples) > 0.4).argmax()) / RATE
    assert click == pytest.approx(1.5 + sound_at - film_at - start, abs=0.004)


def test_sound_is_copied_where_the_format_allows(tmp_path, sound_file):
    clip, sound = clap(24, 24, 12)
    aac, opus = (
        sound_file(tmp_path / "a.m4a", sound.samples, "aac"),
        sound_file(tmp_path / "a.ogg", sound.samples, "libopus"),
    )

    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    for source, name, same in [(aac, "a.mp4", True), (opus, "a.mp4", False), (opus, "a.webm", True)]:
        written = packets(write(tmp_path / name, clip, 24, sound=source))
        assert (written == packets(source)[: len(written)]) is same
        assert len(written) > 40


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (8_000, 2), (44_100, 2), (22_222, 1)])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_rates_and_channels(tmp_path, suffix, rate, channels):
    clip, sound = clap(24, 24, 12, rate=rate)
    sound = Sound(np.stack([sound.samples] * channels, 1), rate) if channels > 1 else sound
    facts = sound_facts(write(tmp_path / f"a.{suffix}", clip, 24, sound=sound))
    assert facts["channels"] == channels
    assert facts["rate"] == (48_000 if suffix == "webm" or rate == 22_222 else rate)
    assert abs(offset(tmp_path / f"a.{suffix}")) < 0.004


def test_surround_becomes_stereo(tmp_path, sound_file):
    clip, sound = clap(24, 24, 12)
    source = sound_file(tmp_path / "a.wav", [sound.samples] * 6, "pcm_s16le")
    assert sound_facts(write(tmp_path / "a.mp4", clip, 24, sound=source))["channels"] == 2


def test_short_sound_leaves_the_rest_silent(tmp_path):
    clip, sound = clap(24, 48, 12)
    path = write(tmp_path / "a.mp4", clip, 24, sound=Sound(sound.samples[: RATE * 6 // 10], RATE))
    assert len(read_video(path).frames) == 48
    assert abs(offset(path)) < 0.004
    assert read_sound(path).seconds == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
@pytest.mark.parametrize("kind", ["samples", "file"])
def test_bytes_depend_on_frames_and_sound_alone(tmp_path, name, kind, sound_file):
    clip, sound = clap(24, 30, 12)
    if kind == "file":
        sound = sound_file(tmp_path / COPIED[name][0], sound.samples, COPIED[name][1])
    written = []
    for cuts in ([], [1, 2, 13, 13], []):
        with VideoWriter(tmp_path / name, 24, metadata={"seed": 1}, sound=sound) as writer:
            for piece in np.split(clip, cuts):
                writer.write(piece)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_sound_survives_metadata_that_come_last(tmp_path, name):
    clip, sound = clap(24, 48, 30)
    with VideoWriter(tmp_path / name, 24, metadata={}, sound=sound) as writer:
        writer.write(clip)
        writer.metadata = {"drift": 1.5}
    assert read_metadata(tmp_path / name) == {"drift": 1.5}
    assert abs(offset(tmp_path / name)) < 0.004
    assert read_sound(tmp_path / name).seconds == pytest.approx(2, abs=0.03)


def test_probe_tells_of_the_sound(tmp_path):
    clip, sound = clap(24, 24, 12, rate=16_000)
    facts = probe(write(tmp_path / "a.mp4", clip, 24, sound=sound))
    assert facts["audio"] is True
    assert [facts[f"sound_{name}"] for name in ("rate", "channels", "codec")] == [16_000, 1, "aac"]
    assert facts["sound_seconds"] == pytest.approx(1, abs=0.01)
    silent = probe(write(tmp_path / "b.mp4", clip, 24))
    assert silent["audio"] is False
    assert not any(name.startswith("sound") for name in silent)


# What is refused, before the first frame is made


@pytest.mark.parametrize("name", ["a.gif", "a/", "a-%04d.png"])
def test_pictures_hold_no_sound(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="cannot hold sound"):
        VideoWriter(name, 24, sound=Sound(np.zeros(9, np.float32), RATE))


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(9, np.int16),
        np.full(9, np.nan, np.float32),
        np.zeros((9, 3), np.float32),
        np.zeros((9, 1, 1), np.float32),
        [0.0],
    ],
)
def test_wrong_samples(tmp_path, samples):
    with pytest.raises(InputError):
        VideoWriter(tmp_path / "a.mp4", 24, sound=Sound(samples, RATE))


def test_wrong_starts(tmp_path, sound_file):
    _, sound = clap(24, 24, 12)
    with pytest.raises(InputError, match="ends at 1"):
        VideoWriter(tmp_path / "a.mp4", 24, sound=sound, sound_start=1)
    source = sound_file(tmp_path / "a.wav", sound.samples, "pcm_s16le")
    with pytest.raises(MediaError, match="ends before 2"):
        VideoWriter(tmp_path / "a.mp4", 24, sound=source, sound_start=2)
    with pytest.raises(InputError, match="sound_start"):
        VideoWriter(tmp_path / "a.mp4", 24, sound=sound, sound_start=-1)


def test_wrong_files(tmp_path, sound_file):
    clip, sound = clap(24, 240, 12)
    silent = write(tmp_path / "silent.mp4", clip, 24)
    cut = sound_file(tmp_path / "cut.mkv", sound.samples, "aac")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for source, sentence in [(silent, "holds no sound"), (cut, "cut"), (tmp_path / "none.wav", "does not exist")]:
        with pytest.raises(MediaError, match=sentence):
            VideoWriter(tmp_path / "a.mp4", 24, sound=source)
    assert not (tmp_path / "a.mp4").exists()
