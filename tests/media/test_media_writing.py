import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from animagic.errors import InputError, MediaError
from animagic.media import FragmentedMp4, VideoWriter, probe, read_metadata, read_video, write_image

NAMES = ["a.mp4", "a.webm", "a.gif", "a-%04d.png", "a/"]
METADATA = {"prompt": 'ein rötes Ballönchen 赤い玉 🎈 "\\\n' * 3000, "seed": 7, "nested": [{"a": None}, 1.5]}
assert len(METADATA["prompt"]) > 2**16


@pytest.mark.parametrize("size", [(64, 96), (63, 65), (64, 65), (1, 3)])
@pytest.mark.parametrize(("name", "least"), [*zip(NAMES, [35, 35, 25, np.inf, np.inf], strict=True)])
def test_round_trip(write, smooth, psnr, name, least, size):
    frames = smooth(10, *size)
    if min(size) == 1 and least < np.inf:
        frames[:] = frames.mean((1, 2, 3), keepdims=True)  # halved colour planes hold no detail so small
    path = write(name, frames, fps=12)
    video = read_video(path)
    assert video.fps == 12
    assert psnr(video.frames, frames) >= least
    assert probe(path).items() >= {"height": size[0], "width": size[1], "frames": 10, "fps": 12}.items()


@pytest.mark.parametrize("fps", [7.5, 30000 / 1001, 24])
@pytest.mark.parametrize("name", NAMES)
def test_frame_rate(write, clip, name, fps):
    path = write(name, clip[:, :16, :16], fps=fps)
    assert read_video(path).fps == pytest.approx(fps, rel=1e-12)


def test_gif_keeps_time_and_loops(write):
    with Image.open(write("a.gif")) as picture:
        durations = []
        for i in range(24):
            picture.seek(i)
            durations.append(picture.info["duration"])
        assert sum(durations) == 1000
        assert set(durations) == {40, 50}
        assert picture.info["loop"] == 0


@pytest.mark.parametrize("name", [*NAMES, "a.png"])
def test_metadata(write, clip, name):
    if name == "a.png":
        write_image(name, clip[0], METADATA)
    else:
        write(name, clip[:3], metadata=METADATA)
        assert read_video(name).metadata == METADATA
    assert read_metadata(name) == METADATA


@pytest.mark.parametrize("name", NAMES)
def test_no_metadata(write, clip, name):
    assert read_metadata(write(name, clip[:2])) == {}


def test_foreign_comments(tmp_path, clip):
    for i, comment in enumerate(
        ["a note", "[1]", '{"animagic": 3}', '{"animagic": {}, "size": [1], "fps": 0}', "[" * 9999]
    ):
        Image.fromarray(clip[0]).save(tmp_path / f"{i}.jpg", comment=comment)
        assert read_metadata(tmp_path / f"{i}.jpg") == {}


def test_other_programs_find_the_metadata(write):
    with av.open(str(write("a.mp4", metadata={"prompt": "a ball"}))) as container:
        assert json.loads(container.metadata["comment"])["animagic"] == {"prompt": "a ball"}


def test_mp4_suits_every_player(write):
    path = write("a.mp4")
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == "yuv420p"
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a-%04d.png"])
def test_bytes_depend_on_the_frames_alone(tmp_path, smooth, name):
    frames = smooth(24, 252, 448)  # a size at which x264's default differs from run to run
    written = []
    for i, cuts in enumerate([[], [1, 2, 13, 13], [23], []]):
        folder = tmp_path / str(i)
        folder.mkdir()
        with VideoWriter(folder / name, 24, 252, 448, metadata={"seed": 1}) as writer:
            for piece in np.split(frames, cuts):
                writer.write(piece)
        written.append([file.read_bytes() for file in sorted(folder.iterdir())])
    assert all(files == written[0] for files in written)


def test_folder_may_exist_empty(write):
    Path("a").mkdir()
    assert len(list(write("a").iterdir())) == 24
    assert len(list(write("b.mp4", format="png").iterdir())) == 24


# What cannot be written: all of it is found before the first frame is made


@pytest.mark.parametrize(
    "name",
    [
        "missing/a.mp4",  # no such folder
        "file/a.mp4",  # a file in place of a folder
        "/proc/a.mp4",  # not even root may
        "folder.mp4",  # a folder in place of the file
        "full/",  # would mix old and new frames
        "full",
        "full/old-%04d.png",
        "file/",
        "./",
        "a.xyz",
        "a",
        "a.png",
        "n" * 300 + ".mp4",
    ],
)
def test_unwritable(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder.mp4").mkdir()
    Path("full").mkdir()
    Path("full/old-0001.png").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MediaError) as caught:
        VideoWriter(name, 24)
    assert str(caught.value).endswith(".")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": float("nan")}, {"fps": 24, "metadata": {"a": {1}}}])
def test_wrong_options(tmp_path, options):
    with pytest.raises(InputError):
        VideoWriter(tmp_path / "a.mp4", **options)


def test_wrong_format(tmp_path):
    with pytest.raises(MediaError, match="avi"):
        VideoWriter(tmp_path / "a.mp4", 24, format="avi")
    with pytest.raises(MediaError, match="at most 50"):
        VideoWriter(tmp_path / "a.gif", 60)


def test_wrong_frames(tmp_path, clip):
    with VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write(clip)
        for wrong in (clip[0], clip[:, :32], clip.astype(np.float32), clip[..., :1]):
            with pytest.raises(InputError):
                writer.write(wrong)
    assert len(read_video(tmp_path / "a.mp4").frames) == 24


@pytest.mark.parametrize("name", NAMES)
def test_no_frames(tmp_path, monkeypatch, clip, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="no frames"), VideoWriter(name, 24):
        pass
    with pytest.raises(MediaError, match="no frames"), VideoWriter(name, 24) as writer:
        writer.write(clip[:0])
    assert not list(tmp_path.iterdir())


def test_too_large_for_the_codec(tmp_path):
    with pytest.raises(MediaError, match=r"a\.mp4"), VideoWriter(tmp_path / "a.mp4", 24) as writer:
        writer.write(np.zeros((1, 2, 20_000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


# What breaks off


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), FileNotFoundError("mine"), MemoryError()])
def test_an_interrupted_block_leaves_nothing(tmp_path, monkeypatch, clip, name, error):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(type(error)) as caught, VideoWriter(name, 24) as writer:  # noqa: PT012
        writer.write(clip)
        raise error
    assert caught.value is error
    assert not list(tmp_path.iterdir())


def test_an_older_file_survives(write, clip):
    path = write("a.mp4")
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 24) as writer:  # noqa: PT012
        writer.write(clip[:3])
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    write("a.mp4", clip[:3])
    assert path.read_bytes() != before


def test_control_c(tmp_path):
    script = """
import numpy, sys
from animagic.media import VideoWriter
with VideoWriter("a.mp4", 24) as writer:
    while True:
        writer.write(numpy.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), dtype=numpy.uint8))
        print("written", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    for _ in range(4):  # the encoder looks ahead before it writes
        assert process.stdout.readline() == b"written\n"
    assert list(tmp_path.iterdir())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert not list(tmp_path.iterdir())


@contextmanager
def files_limited_to(size: int):
    """The system refuses longer files, as it does on a full disk but with another word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", [*NAMES, "a.jpg"])
def test_disk_trouble(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 96, 3), dtype=np.uint8)
    with files_limited_to(5000), pytest.raises(MediaError, match="too large"):  # noqa: PT012
        if name == "a.jpg":
            write_image(name, noise[0])
        else:
            with VideoWriter(name, 24) as writer:
                writer.write(noise)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_disk_full(tmp_path, monkeypatch, clip, name):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MediaError, match="disk is full"), VideoWriter(name, 24) as writer:
        writer.write(clip)
    assert not list(tmp_path.iterdir())


# Pictures


def test_write_image(tmp_path, clip, psnr):
    for name, least in (("a.png", np.inf), ("a.jpg", 38), ("a.JPEG", 38)):
        write_image(tmp_path / name, clip[0], {"seed": 1})
        assert psnr(read_video(tmp_path / name).frames[0], clip[0]) >= least
        assert read_metadata(tmp_path / name) == {"seed": 1}
    with pytest.raises(MediaError, match=r"\.png or \.jpg"):
        write_image(tmp_path / "a.mp4", clip[0])
    with pytest.raises(MediaError, match="64 KiB"):
        write_image(tmp_path / "b.jpg", clip[0], METADATA)
    with pytest.raises(InputError):
        write_image(tmp_path / "b.png", clip)


# Streams


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        assert 8 <= size <= len(data)
        found.append((data[4:8], data[8:size]))
        data = data[size:]
    return found


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 7.5])
@pytest.mark.parametrize("size", [(64, 96), (63, 65)])
def test_fragments(tmp_path, smooth, psnr, fps, size):
    frames = smooth(60, *size)
    stream = FragmentedMp4(fps, *size, metadata={"prompt": "moof tfdt avcC"})
    assert stream.mime_type.startswith('video/mp4; codecs="avc1.64')
    chunks = [stream.write(piece) for piece in np.split(frames, [24, 48, 49])]
    assert stream.finish() == b""
    kinds = [[kind for kind, _ in boxes(chunk)] for chunk in chunks]
    assert kinds == [[b"ftyp", b"moov", b"moof", b"mdat"], *[[b"moof", b"mdat"]] * 3]
    fragments = [content for chunk in chunks for kind, content in boxes(chunk) if kind == b"moof"]
    assert [int.from_bytes(fragment[12:16], "big") for fragment in fragments] == [1, 2, 3, 4]

    for count, shown in ((1, 24), (2, 48), (4, 60)):
        data = b"".join(chunks[:count])
        path = tmp_path / f"{count}.mp4"
        path.write_bytes(data)
        video = read_video(path)
        assert psnr(video.frames, frames[:shown]) > 35
        assert video.fps == pytest.approx(fps)
        assert video.metadata == {"prompt": "moof tfdt avcC"}
        with av.open(io.BytesIO(data)) as container:
            decoded = list(container.decode(video=0))
        assert [frame.time for frame in decoded] == pytest.approx([i / fps for i in range(shown)], abs=1e-6)
        keys = [i for i, frame in enumerate(decoded) if frame.key_frame]
        assert set(keys) >= {0, 24, 48, 49}.intersection(range(shown))


def test_fragments_refuse(clip):
    stream = FragmentedMp4(24, 64, 96)
    for wrong in (clip[:0], clip[:, :32], clip[0], clip.astype(float)):
        with pytest.raises(InputError):
            stream.write(wrong)
    with pytest.raises(MediaError):
        FragmentedMp4(24, 2, 20_000)
    assert stream.write(clip) == FragmentedMp4(24, 64, 96).write(clip)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.gif", "clip-%02d.png", "clip/"])
def test_what_is_known_only_at_the_end_goes_into_the_file_too(tmp_path, name):
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), np.uint8)

    def write(folder, first, last):
        folder.mkdir()
        with VideoWriter(f"{folder}/{name}", 24, metadata=first) as writer:
            writer.write(frames)
            writer.metadata = last
        return folder / name

    renewed = write(tmp_path / "a", {"frames": None}, {"frames": 6, "said": "ä" * 500})
    assert read_metadata(renewed) == {"frames": 6, "said": "ä" * 500}
    plain = write(tmp_path / "b", {"frames": 6}, {"frames": 6})
    assert np.array_equal(read_video(renewed).frames, read_video(plain).frames)
    assert read_video(renewed).fps == read_video(plain).fps
    assert sorted(file.name for file in renewed.parent.rglob("*")) == sorted(
        file.name for file in plain.parent.rglob("*")
    )
