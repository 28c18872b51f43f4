import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animagic.errors import InputError, MediaError
from animagic.media import iter_video, probe, read_image, read_metadata, read_video, write_image
from animagic.media.headers import read_header


def test_import_is_light():
    script = "import sys, animagic.media; sys.exit(any(m in sys.modules for m in ('av', 'PIL', 'torch')))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# Pictures


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_orientation(folder):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(picture).save("a.png", exif=exif)
    assert (read_image("a.png") == np.rot90(picture, -1)).all()


def test_transparency_shows_white(folder):
    picture = np.zeros((2, 2, 4), np.uint8)
    picture[0, 0] = (10, 20, 30, 255)
    Image.fromarray(picture).save("a.png")
    Image.fromarray(picture).save("a.webp", lossless=True)
    Image.fromarray(picture[..., ::3]).save("grey.png")  # "LA"
    for name in ("a.png", "a.webp"):
        image = read_image(name)
        assert image[0, 0].tolist() == [10, 20, 30]
        assert (image[1] == 255).all()
    assert read_image("grey.png")[1, 1].tolist() == [255] * 3


def test_sixteen_bit_grey(folder):
    Image.fromarray(np.full((2, 2), 0x8000, np.uint16)).save("a.png")
    assert (read_image("a.png") == 0x80).all()


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "tif", "webp", "avif", "jp2", "ppm"])
def test_many_kinds(folder, clip, psnr, suffix):
    Image.fromarray(clip[0]).save(f"a.{suffix}")
    assert psnr(read_image(f"a.{suffix}"), clip[0]) > 30


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("height", "width"), [(10_000, 10_001), (50_000, 50_000)])
def test_a_huge_picture_is_refused_unread(folder, height, width):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(MediaError, match="megapixels"):
        read_image("a.png")


def test_still_picture_as_a_video(folder, clip):
    write_image("a.png", clip[0])
    assert probe("a.png") == {
        "width": 96,
        "height": 64,
        "fps": None,
        "frames": 1,
        "seconds": None,
        "codec": "png",
        "audio": False,
    }
    assert (read_video("a.png").frames == clip[:1]).all()


# What cannot be read


@pytest.mark.parametrize("read", [read_image, read_video, read_metadata, probe])
@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4", "text.png", "text.txt", "empty.mp4", "list.mp4", "gaps"])
def test_not_a_picture_nor_a_video(folder, read, name):
    (folder / "gaps").mkdir()
    for suffix in ("mp4", "png", "txt"):
        (folder / f"text.{suffix}").write_text("not a film\n" * 200)
    (folder / "empty.mp4").touch()
    # A playlist must not lead to other files.
    (folder / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match=name.split(".")[0]) as caught:
        read(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "png", "jpg"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_cut_off(write, clip, suffix, share):
    if suffix in ("png", "jpg"):
        write_image(f"a.{suffix}", clip[0])
    else:
        write(f"a.{suffix}", np.concatenate([clip, clip[::-1]]))
    whole = Path(f"a.{suffix}").read_bytes()
    Path(f"cut.{suffix}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(MediaError, match=r"cut\."):
        read_video(f"cut.{suffix}")


def test_cut_off_sample(samples, tmp_path):
    data = (samples / "talking_anny_256_25fps.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(MediaError, match="cut"):
        read_video(tmp_path / "cut.mp4")


def test_sound_alone(samples):
    with pytest.raises(MediaError, match="speech"):
        read_video(samples / "speech_synth_flite_slt.wav")


# Films


@pytest.mark.parametrize(("fps", "count"), [(12, 12), (24, 24), (48, 48), (8, 8), (25, 25), (7.5, 8), (1, 1)])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a/"])
def test_resampling_takes_the_nearest(write, clip, psnr, name, fps, count):
    path = write(name)
    frames = read_video(path, fps=fps).frames
    assert len(frames) == count
    nearest = np.floor(np.arange(count) / fps * 24 + 0.524).astype(int).clip(max=23)
    assert (frames == read_video(path).frames[nearest]).all()


def test_uneven_durations(folder, clip):
    pictures = [Image.fromarray(frame).quantize(256) for frame in clip[:3]]
    shown = [np.array(picture.convert("RGB")) for picture in pictures]
    pictures[0].save("a.gif", save_all=True, append_images=pictures[1:], duration=[600, 100, 100])
    assert read_video("a.gif").fps == 3 / 0.8
    frames = read_video("a.gif", fps=10).frames
    first = sum((frame == shown[0]).all() for frame in frames)
    assert (len(frames), first) == (8, 6)  # the second follows after a long pause: it waits for its time


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_other_animations(folder, clip, psnr, suffix):
    pictures = [Image.fromarray(frame) for frame in clip]
    pictures[0].save(f"a.{suffix}", save_all=True, append_images=pictures[1:], duration=40)
    video = read_video(f"a.{suffix}")
    assert video.fps == 25
    assert psnr(video.frames, clip) > 30


def test_first_and_last(write, clip):
    path = write("a.mp4")
    whole = read_video(path).frames
    assert (read_video(path, max_frames=5).frames == whole[:5]).all()
    assert (read_video(path, max_frames=5, last=True).frames == whole[-5:]).all()
    assert (read_video(path, fps=12, max_frames=5, last=True).frames == whole[14::2]).all()
    assert (read_video(path, max_frames=99, last=True).frames == whole).all()
    assert (read_image(path) == whole[0]).all()


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"max_frames": 0}])
def test_wrong_options(write, options):
    with pytest.raises(InputError):
        read_video(write("a.mp4"), **options)


def test_memory_is_bounded(write, clip):
    path = write("a.mp4", np.concatenate([clip] * 12))
    tracemalloc.start()
    assert len(read_video(path, max_frames=4, last=True).frames) == 4
    assert sum(1 for _ in iter_video(path, fps=30)) == 360
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * clip[0].nbytes


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotation(write, clip, matrix, turns):
    path = write("a.mp4")
    upright = read_video(path).frames
    data = bytearray(path.read_bytes())
    # The track header holds a 3x3 matrix of fixed-point numbers; a phone turns its films with it.
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert (read_video(path).frames == np.rot90(upright, turns, axes=(1, 2))).all()
    assert (probe(path)["height"], probe(path)["width"]) == np.rot90(upright[0], turns).shape[:2]


def test_numbered_pictures(folder, clip):
    for number in (9, 10, 100):
        write_image(f"frame{number}.png", clip[number % 7])
    write_image("other.jpg", clip[0])
    wanted = clip[[2, 3, 2]]
    assert (read_video("frame%d.png").frames == wanted).all()
    (folder / "other.jpg").unlink()
    (folder / "notes.txt").touch()
    video = read_video(folder)
    assert (video.frames == wanted).all()
    assert video.fps == 24
    assert read_video(folder, fps=8).fps == 8
    assert len(read_video(folder, fps=8).frames) == 3  # they know no rate of their own
    write_image("frame101.png", clip[0, :5])
    with pytest.raises(MediaError, match="different sizes"):
        read_video(folder)


def test_samples(samples):
    facts = probe(samples / "talking_anny_256_25fps.mp4")
    assert facts.items() >= {"width": 256, "height": 256, "fps": 25, "frames": 127, "audio": True}.items()
    for name in ("dance_anny_rgb", "dance_anny_parts", "dance_anny_skel", "video_bigbuckbunny_448"):
        path = samples / f"{name}.mp4"
        facts, video = probe(path), read_video(path)
        assert video.frames.shape == (facts["frames"], facts["height"], facts["width"], 3)
        assert (video.fps, video.metadata) == (facts["fps"], {})
    assert read_image(samples / "portrait_astronaut_512.jpg").shape == (512, 512, 3)
    assert read_image(samples / "portrait_astronaut_256.png").shape == (256, 256, 3)


def test_a_film_in_an_unknown_codec(write, clip):
    path = write("clip.mp4", clip)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    for read in (read_video, read_header):
        with pytest.raises(MediaError, match="a codec that is not known"):
            read(path)
