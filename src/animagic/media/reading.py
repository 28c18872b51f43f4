"""Pictures and video in: Pillow reads pictures (still, animated or numbered), PyAV reads films."""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from animagic.errors import InputError, MediaError
from animagic.media.containers import best, open_container, packets, unreadable
from animagic.media.files import NUMBERED, Note, StrPath, check_file, numbered_files, unpack
from animagic.media.sound import sound_facts

MOST_PIXELS = 100_000_000
DEFAULT_FPS = 24.0  # of pictures, which know none
_LONGEST_PAUSE = 3600.0  # seconds
_UNSEEN = 0.025  # seconds: nobody sees that a picture comes so much before its sound

# Only formats that hold pixels: Pillow hands EPS to Ghostscript.
PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
ANIMATED = ("PNG", "WEBP", "GIF")

# SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP: 3 dB better than the default.
_ACCURATE = 0x4 | 0x40000 | 0x2000 | 0x4000


@dataclass(frozen=True, slots=True)
class Video:
    """A clip in memory: frames uint8 (F, H, W, 3), frames per second, and the metadata stored in its file."""

    frames: np.ndarray
    fps: float
    metadata: dict[str, Any] = field(default_factory=dict)


class _Frame(NamedTuple):
    time: float  # seconds since the first frame
    seconds: float  # how long it is shown
    pixels: np.ndarray  # uint8 (H, W, 3)


class _Source(NamedTuple):
    """An opened file, whatever its kind."""

    frames: Iterator[_Frame]
    total: int | None  # None where only reading on would tell
    seconds: float | None  # likewise
    fps: float | None  # None for a still picture
    codec: str
    audio: bool
    note: Note


def read_image(path: StrPath) -> np.ndarray:
    """A picture, or the first frame of a video: uint8 (H, W, 3), upright as EXIF says, transparent parts over white.

    Raises: MediaError if there is no readable picture at `path`, or one of more than 100 megapixels.
    """
    if Path(path).is_dir():
        raise MediaError(f"{path} is a folder: give the name of one picture.")
    return next(iter_video(path))


def iter_video(path: StrPath, fps: float | None = None) -> Iterator[np.ndarray]:
    """The frames of a video as `read_image` gives them, one by one, in constant memory.

    Args:
        path: a film, an animated GIF, WebP or PNG, one picture, a folder of pictures, or a pattern such as
            clip-%04d.png. Numbered pictures come in the order of their numbers.
        fps: frames per second wanted: for each instant the frame nearest in time is given, so frames are
            repeated or left out; one that follows a long pause comes at most half a frame early. None gives every
            frame of the file once.
    Raises: InputError for a wrong `fps`; MediaError if there is no readable video at `path`, or, once the reading gets
        there, if it is damaged or cut off.
    """
    with _open(path, fps) as source:
        yield from _resampled(source.frames, fps, path)


def read_video(path: StrPath, fps: float | None = None, max_frames: int | None = None, last: bool = False) -> Video:
    """Read a video into memory; path, fps and errors are those of `iter_video`. Pictures have 24 frames per second.

    Args:
        max_frames: read at most so many, and hold no more in memory; None reads all.
        last: take them from the end instead of the beginning (to continue a clip).
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames is {max_frames}: give at least 1, or None for all.")
    with _open(path, fps) as source:
        frames = _resampled(source.frames, fps, path)
        if last and max_frames is not None:
            chosen = list(deque(frames, max_frames))
        else:
            chosen = list(_held(islice(frames, max_frames), path))
        return Video(_stacked(chosen, path), fps or source.fps or DEFAULT_FPS, source.note.metadata)


def iter_blocks(path: StrPath, size: int, fps: float | None = None) -> Iterator[np.ndarray]:
    """The frames of `iter_video` in blocks, uint8 (size, H, W, 3), of which the last may be shorter; path, fps and
    errors are its. `count_frames` says beforehand how many frames there will be."""
    if size < 1:
        raise InputError(f"the size of a block is {size}: give at least 1.")
    frames = iter_video(path, fps)
    while block := list(islice(frames, size)):
        yield _stacked(block, path)


def count_frames(path: StrPath, fps: float | None = None) -> int:
    """How many frames `iter_video` gives; no frame is decoded but the first. Path, fps and errors are its."""
    with _open(path, fps) as source:
        if fps is None:
            return source.total or _measured(path)[0]
        seconds = _measured(path)[1] if source.seconds is None else source.seconds
        return max(1, round(seconds * fps))


def read_metadata(path: StrPath) -> dict[str, Any]:
    """The metadata that `VideoWriter` or `write_image` stored in a file; {} if there are none. Raises MediaError."""
    with _open(path) as source:
        return source.note.metadata


def probe(path: StrPath) -> dict[str, Any]:
    """The facts of a file: width and height in pixels (upright), fps and seconds (None for a still picture), frames,
    codec (FFmpeg's or Pillow's name in lower case), audio (whether it has sound); and if it has, sound_rate,
    sound_channels, sound_seconds and sound_codec as `sound_facts` gives them. Raises MediaError."""
    with _open(path) as source:
        height, width, _ = next(source.frames).pixels.shape
        frames = source.total or _measured(path)[0]
        sound = sound_facts(path) if source.audio else {}
        return {
            "width": width,
            "height": height,
            "fps": source.fps,
            "frames": frames,
            "seconds": frames / source.fps if source.fps else None,
            "codec": source.codec,
            "audio": source.audio,
            **{f"sound_{name}": value for name, value in sound.items()},
        }


def _held(frames: Iterator[np.ndarray], path: StrPath) -> Iterator[np.ndarray]:
    """Frames that are all to be in memory at once, as long as there is room for them twice."""
    room, taken = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3, 0
    for frame in frames:
        taken += frame.nbytes
        if taken > room:
            raise MediaError(f"{path} is too long for the memory of this machine: give a number of frames, or cut it.")
        yield frame


def _stacked(frames: list[np.ndarray], path: StrPath) -> np.ndarray:
    try:
        return np.stack(frames)
    except ValueError as error:
        raise MediaError(f"{path} holds pictures of different sizes: make them equal.") from error


def _resampled(frames: Iterator[_Frame], fps: float | None, path: StrPath) -> Iterator[np.ndarray]:
    if fps is None:
        for frame in frames:
            yield frame.pixels
        return
    # Frame k of the result shows the instant k / fps. It is known once the frame after it is. How early that one may
    # come has a limit: where a picture is held for seconds, the next must not run ahead of the sound.
    limit = max(0.5 / fps, _UNSEEN)
    k = 0
    held = next(frames)
    for frame in frames:
        if frame.time - held.time > _LONGEST_PAUSE:
            raise MediaError(f"{path} shows nothing new for {frame.time - held.time:.0f} s: cut the pause out.")
        # An instant in the very middle always goes to the later frame, though files round to a millisecond.
        early = min((frame.time - held.time) / 2, limit)
        while k / fps < frame.time - early - 1e-3:
            yield held.pixels
            k += 1
        held = frame
    while k < max(1, round((held.time + held.seconds) * fps)):
        yield held.pixels
        k += 1


@contextmanager
def _open(path: StrPath, fps: float | None = None) -> Iterator[_Source]:
    """Open anything; `fps` is the rate of pictures that know none."""
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"fps is {fps}: give a positive number of frames per second, or None.")
    path = Path(path)
    if not path.is_dir():
        check_file(path)
    if pictures := _numbered(path):
        yield _open_numbered(pictures, fps)
    elif picture := _open_picture(path):
        with picture:
            yield _open_animated(picture, path)
    else:
        with open_container(path) as container:
            yield _open_film(container, path)


def _numbered(path: Path) -> list[Path]:
    """The pictures of a folder or a pattern, in the order of their numbers; [] where `path` is neither."""
    if path.is_dir():
        suffixes = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
        visible = (file for file in path.iterdir() if not file.name.startswith("."))
        pictures = [file for file in visible if file.suffix.lower() in suffixes]
        if not pictures:
            raise MediaError(f"{path} is a folder without pictures: give one with PNG or JPEG frames.")
        return sorted(pictures, key=_natural)
    return numbered_files(path) if NUMBERED.search(path.name) and not path.exists() else []


def _natural(file: Path) -> list[str | int]:
    """A key to sort by: frame-2 comes before frame-10. Every second part is a number."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", file.name))]


def _open_numbered(pictures: list[Path], fps: float | None) -> _Source:
    note = unpack(None)
    if first := _open_picture(pictures[0]):
        with first:
            note = unpack(first.info.get("comment"))
    rate = float(note.fps or fps or DEFAULT_FPS)
    frames = (_Frame(i / rate, 1 / rate, read_image(picture)) for i, picture in enumerate(pictures))
    return _Source(frames, len(pictures), len(pictures) / rate, rate, pictures[0].suffix[1:].lower(), False, note)


def _open_picture(path: Path) -> Image.Image | None:
    """The picture at `path`, its pixels still unread; None where the file is none that Pillow should read."""
    try:
        picture = Image.open(path, formats=PICTURES)
    except UnidentifiedImageError as error:
        if not path.stat().st_size:
            raise MediaError(f"{path} is empty: give a picture or a video.") from error
        return None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError(f"{path} does not exist: check its name.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except Exception as error:  # Pillow's readers raise almost anything on damaged headers
        raise unreadable(path, error) from error
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise _too_large(path)
    return picture


def _open_animated(picture: Image.Image, path: Path) -> _Source:
    note = unpack(picture.info.get("comment"))
    fps = None if note.fps is None else float(note.fps)
    try:
        count = getattr(picture, "n_frames", 1) if picture.format in ANIMATED else 1
        seconds = [1 / (fps or DEFAULT_FPS)] * count
        if fps is None and count > 1:
            shown = [_milliseconds(picture, i) for i in range(count)]
            fps, seconds = 1000 * count / sum(shown), [milliseconds / 1000 for milliseconds in shown]
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise unreadable(path, error) from error
    return _Source(_drawn(picture, path, seconds), count, sum(seconds), fps, str(picture.format).lower(), False, note)


def _milliseconds(picture: Image.Image, index: int) -> float:
    picture.seek(index)
    picture.load()  # WebP tells only now
    return picture.info.get("duration") or 100  # browsers, too, take 0 for 100 ms


def _drawn(picture: Image.Image, path: Path, seconds: list[float]) -> Iterator[_Frame]:
    time = 0.0
    for i, shown in enumerate(seconds):
        try:
            picture.seek(i)
            pixels = _flattened(picture)
        except Exception as error:  # as above
            raise unreadable(path, error) from error
        yield _Frame(time, shown, pixels)
        time += shown


def _flattened(picture: Image.Image) -> np.ndarray:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16-bit grey, which convert() would clip to white
        picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def _open_film(container: av.container.InputContainer, path: Path) -> _Source:
    stream = best(container, "video", path)
    if not isinstance(stream, av.VideoStream):
        raise MediaError(f"{path} holds no picture: give a file with a video stream.")
    if _width(stream) * stream.height > MOST_PIXELS:
        raise _too_large(path)
    note = unpack(next((text for key, text in container.metadata.items() if key.lower() == "comment"), None))
    fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
    codec, audio = stream.codec_context.name, bool(container.streams.audio)
    frames = _filmed(container, stream, path, fps, note)
    # The header counts frames, too, that an edit list leaves out.
    seconds = float((stream.duration or 0) * (stream.time_base or 0)) or stream.frames / fps
    total = stream.frames if abs(seconds * fps - stream.frames) < 0.5 else 0
    return _Source(frames, total or None, None, fps, codec, audio, note)


def _width(stream: av.VideoStream) -> int:
    """In square pixels: those of television and of some cameras are not."""
    return max(1, round(stream.width * (stream.sample_aspect_ratio or 1)))


def _filmed(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path, fps: float, note: Note
) -> Iterator[_Frame]:
    stream.thread_type = "AUTO"
    start: float | None = None
    count = 0
    try:
        for packet in packets(container, stream, path, slack=0.25 + 2 / fps):
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                time = count / fps if frame.time is None else frame.time
                start = time if start is None else start
                seconds = float(frame.duration * (frame.time_base or 0)) or 1 / fps
                yield _Frame(time - start, seconds, _upright(frame, stream, note.size))
                count += 1
    except MediaError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, error) from error
    if not count:
        raise MediaError(f"{path} holds no frames: get the file again.")


def _upright(frame: av.VideoFrame, stream: av.VideoStream, size: tuple[int, int] | None) -> np.ndarray:
    # The stream's size: a frame may differ where the resolution changes midway.
    pixels = frame.to_ndarray(format="rgb24", width=_width(stream), height=stream.height, interpolation=_ACCURATE)
    if size and (size[0] + size[0] % 2, size[1] + size[1] % 2) == pixels.shape[:2]:
        pixels = pixels[: size[0], : size[1]]  # an odd size, which H.264 could not hold
    return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))


def _measured(path: StrPath) -> tuple[int, float]:
    """The frames of a film and its seconds, from its packets alone."""
    with open_container(Path(path)) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, av.VideoStream)
        usual = float(1 / (stream.average_rate or stream.guessed_rate or DEFAULT_FPS))
        count, start, end = 0, float("inf"), float("-inf")
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard:
                continue
            count += 1
            if packet.pts is not None and packet.time_base is not None:
                time, shown = (float(ticks * packet.time_base) for ticks in (packet.pts, packet.duration or 0))
                start, end = min(start, time), max(end, time + (shown or usual))
        return count, end - start if count and start < end else count * usual


def _too_large(path: StrPath) -> MediaError:
    return MediaError(f"{path} has more than {MOST_PIXELS // 10**6} megapixels: make it smaller.")
