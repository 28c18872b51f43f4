"""Streams with sound; those of pictures alone are in test_media_writing.py."""

import io

import av
import numpy as np
import pytest

from animagic.errors import InputError
from animagic.media import FragmentedMp4, probe, read_sound, read_video


def stream(fps: float, rate: int, cuts: list[int], channels: int = 1, at: int = 30) -> list[bytes]:
    """A stream of black frames cut into chunks, with a flash and a click at frame `at`, and a tone."""
    frames = np.zeros((cuts[-1], 32, 32, 3), np.uint8)
    frames[at] = 255
    samples = 0.2 * np.sin(np.arange(round(cuts[-1] / fps * rate)) * 2 * np.pi * 150 / rate)
    samples[round(at / fps * rate) :][: rate // 500] = 0.9
    sound = np.stack([samples] * channels, 1).astype(np.float32)
    writer = FragmentedMp4(fps, 32, 32, {"seed": 1}, sound_rate=rate, sound_channels=channels)
    assert writer.mime_type == 'video/mp4; codecs="avc1.64000a, mp4a.40.2"'
    chunks, begin = [], 0
    for first, last in zip([0, *cuts], cuts, strict=False):
        end = round(last / fps * rate)
        chunks.append(writer.write(frames[first:last], sound[begin:end]))
        begin = end
    return [*chunks, writer.finish()]


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 8])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2), (22_222, 1)])
def test_a_clap_is_seen_and_heard_at_once(tmp_path, fps, rate, channels):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"".join(stream(fps, rate, [10, 11, 13, 40, 60], channels)))
    video, sound = read_video(path), read_sound(path, 48_000)
    assert (len(video.frames), video.metadata) == (60, {"seed": 1})
    assert video.fps == pytest.approx(fps)
    assert int(video.frames.mean((1, 2, 3)).argmax()) == 30  # though a keyframe comes in the middle of its chunk
    click = float((np.abs(sound.samples) > 0.5).argmax()) / 48_000
    assert click == pytest.approx(30 / fps, abs=0.004)
    assert sound.seconds == pytest.approx(60 / fps, abs=0.07)  # the codec fills its last packet up
    assert probe(path)["sound_channels"] == channels


def test_sound_goes_on_from_chunk_to_chunk(tmp_path):
    """No click where two chunks meet: the tone is as pure as in one piece."""
    (tmp_path / "a.mp4").write_bytes(b"".join(stream(24, 48_000, list(range(8, 97, 8)), at=4)))
    samples = read_sound(tmp_path / "a.mp4", 48_000).samples[20_000:180_000]
    tone = 0.2 * np.sin((np.arange(160_000) + 20_000) * 2 * np.pi * 150 / 48_000)
    assert np.abs(samples - tone).max() < 0.01


def test_the_first_chunks_are_a_file(tmp_path):
    chunks = stream(24, 16_000, [12, 24, 48])
    (tmp_path / "a.mp4").write_bytes(b"".join(chunks[:2]))
    assert len(read_video(tmp_path / "a.mp4").frames) == 24
    assert read_sound(tmp_path / "a.mp4").seconds == pytest.approx(1, abs=0.07)  # what the encoder holds back
    assert chunks == stream(24, 16_000, [12, 24, 48])


def test_silence(tmp_path, clip):
    writer = FragmentedMp4(24, 64, 96, sound_rate=16_000)
    (tmp_path / "a.mp4").write_bytes(writer.write(clip) + writer.write(clip) + writer.finish())
    sound = read_sound(tmp_path / "a.mp4")
    assert sound.seconds == pytest.approx(2, abs=0.07)
    assert np.abs(sound.samples).max() < 1e-3


def test_a_cut_within_a_later_chunk_keeps_its_time():
    frames = np.zeros((48, 32, 32, 3), np.uint8)
    frames[36:] = 255
    writer = FragmentedMp4(24, 32, 32)
    with av.open(io.BytesIO(writer.write(frames[:24]) + writer.write(frames[24:]))) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([i / 24 for i in range(48)])


def test_wrong_sound(clip):
    for options in ({"sound_rate": 0}, {"sound_rate": 16_000, "sound_channels": 3}):
        with pytest.raises(InputError):
            FragmentedMp4(24, 64, 96, **options)
    with pytest.raises(InputError, match="without sound"):
        FragmentedMp4(24, 64, 96).write(clip, np.zeros(16_000, np.float32))
    writer = FragmentedMp4(24, 64, 96, sound_rate=16_000)
    for wrong in (np.zeros(15_998, np.float32), np.zeros((16_000, 2), np.float32), np.zeros(16_000, np.int16)):
        with pytest.raises(InputError):
            writer.write(clip, wrong)
    assert len(writer.write(clip, np.zeros(16_001, np.float32)))
    assert len(writer.write(clip, np.zeros((15_999, 1), np.float32)))
    assert FragmentedMp4(24, 64, 96, sound_rate=16_000).finish() == b""
