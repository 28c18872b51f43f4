"""When pictures are shown: variable rates, late starts, edit lists, rotation, pixels that are not square."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from animagic.errors import InputError, MediaError
from animagic.media import count_frames, iter_blocks, iter_video, probe, read_video, write_image


def save(path: Path, times: list[float], rate: int = 24, aspect: Fraction | None = None) -> Path:
    """A film whose frame i is grey 4 i and shown at times[i] s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "12", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 12_000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 4 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * 12_000), Fraction(1, 12_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path, fps=None) -> list[int]:
    """The numbers of the frames that are given."""
    return [round(float(frame.mean()) / 4) for frame in iter_video(path, fps)]


def even(count: int, rate: float = 24, start: float = 0) -> list[float]:
    return [start + i / rate for i in range(count)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("start", [0, 0.4])
def test_variable_rate(tmp_path, suffix, start):
    # as a phone in the dark, then a pause of a second, then fast
    times = [*even(6, 12), *even(24, 24, 1.5), *even(24, 48, 2.5)]
    path = save(tmp_path / f"a.{suffix}", [time + start for time in times])
    assert shown(path) == list(range(54))
    for fps in (24, 25, 30, 8, 48):
        given = shown(path, fps)
        assert len(given) == pytest.approx(3 * fps, abs=1)
        for k, number in enumerate(given):
            # Never a frame that comes more than half a frame later or one that has been replaced for as long.
            early = max(0.5 / fps, 0.025) + 0.002
            assert times[number] <= k / fps + early
            assert number == 53 or times[number + 1] > k / fps - 0.002
    assert count_frames(path) == 54
    assert count_frames(path, 24) == len(shown(path, 24))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("start", [0.25, 3])
def test_a_late_start_does_not_matter(tmp_path, suffix, start):
    path = save(tmp_path / f"a.{suffix}", even(24, start=start))
    assert shown(path) == shown(path, 24) == list(range(24))
    assert shown(path, 12) == list(range(0, 24, 2))
    assert probe(path)["frames"] == count_frames(path) == 24
    assert count_frames(path, 12) == 12


@pytest.mark.parametrize("cut", [5, 12, 13])
def test_an_edit_list_leaves_frames_out(tmp_path, cut):
    path = save(tmp_path / "a.mp4", even(48, start=-cut / 24))
    assert shown(path) == shown(path, 24) == list(range(cut, 48))
    facts = probe(path)
    assert (facts["frames"], facts["seconds"]) == (48 - cut, pytest.approx((48 - cut) / 24))
    assert count_frames(path, 48) == len(shown(path, 48))


def test_rotation_at_any_rate(tmp_path):
    path = save(tmp_path / "a.mp4", [*even(6, 12), *even(6, 24, 1)])
    data = bytearray(path.read_bytes())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert read_video(path, fps=24).frames.shape == (30, 32, 16, 3)
    assert {block.shape[1:] for block in iter_blocks(path, 7)} == {(32, 16, 3)}
    assert (probe(path)["height"], probe(path)["width"]) == (32, 16)


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(16, 11), 47), (Fraction(1, 2), 16), (Fraction(1), 32)])
def test_pixels_are_square(tmp_path, aspect, width):
    path = save(tmp_path / "a.mp4", even(3), aspect=aspect)
    assert read_video(path).frames.shape == (3, 16, width, 3)
    assert probe(path)["width"] == width


# In blocks


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a/"])
@pytest.mark.parametrize("fps", [None, 24, 25, 7, 60])
def test_length_is_known_beforehand(write, clip, name, fps):
    path = write(name, clip[:19])
    assert count_frames(path, fps) == len(read_video(path, fps).frames)


def test_blocks(write, clip):
    path = write("a.mp4")
    blocks = list(iter_blocks(path, 10))
    assert [len(block) for block in blocks] == [10, 10, 4]
    assert np.array_equal(np.concatenate(blocks), read_video(path).frames)
    assert [len(block) for block in iter_blocks(path, 12, fps=12)] == [12]
    with pytest.raises(InputError, match="size of a block"):
        next(iter_blocks(path, 0))
    write_image("p-0.png", clip[0])
    write_image("p-1.png", clip[0, :9])
    with pytest.raises(MediaError, match="different sizes"):
        list(iter_blocks("p-%d.png", 2))
    assert count_frames("p-0.png") == count_frames("p-0.png", 8) == 1
