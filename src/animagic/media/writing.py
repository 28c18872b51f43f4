"""Pictures and video out. A file is written under a temporary name and is either whole or absent."""

import io
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from animagic.errors import InputError, MediaError
from animagic.media.files import NUMBERED, StrPath, atomic_path, atomic_pattern, check_writable, pack, unwritable
from animagic.media.frames import check_frames

_Write = Callable[[np.ndarray], None]  # takes one frame, uint8 (H, W, 3)

# The same frames must give the same bytes. The number of threads shows in what the encoders write, so it does
# not follow the machine. And x264's macroblock tree differs from run to run on CPUs with AVX-512 (at most widths);
# at this quality it hardly saves anything.
_THREADS = 4
_X264 = {"mbtree": "0"}
_BT709 = 1
_FILMS: dict[str, dict[str, Any]] = {
    "mp4": {
        "codec": "libx264",
        "options": _X264 | {"crf": "16", "preset": "medium"},
        "muxing": {"movflags": "faststart"},
    },
    "webm": {
        "codec": "libvpx-vp9",
        "options": {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"},
        "muxing": {},
    },
}
_FRAGMENTS: dict[str, Any] = {
    "codec": "libx264",
    "options": _X264 | {"crf": "20", "preset": "veryfast", "bf": "0"},  # no B-frames: chunks stand alone
    "muxing": {"movflags": "empty_moov+default_base_moof+skip_trailer"},
}
_FASTEST_GIF = 50  # frames per second: browsers slow shorter delays down to ten
_LONGEST_JPEG_COMMENT = 65533


def write_image(path: StrPath, array: np.ndarray, metadata: dict[str, Any] | None = None) -> None:
    """Write one picture, uint8 (H, W, 3), as PNG or JPEG, by its suffix: whole or not at all.

    Args:
        metadata: what JSON can hold; `read_metadata` gives it back.
    Raises: InputError for a wrong array or metadata; MediaError if `path` cannot be written.
    """
    check_frames(array, (3,))
    note = pack(metadata, None, *array.shape[:2])
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise MediaError(f"{path} ends in {suffix!r}: a picture is written as .png or .jpg.")
    if suffix != ".png" and len(note) > _LONGEST_JPEG_COMMENT:
        raise MediaError(f"{path} is a JPEG, which cannot hold metadata over 64 KiB: write a .png.")
    with atomic_path(path) as temporary:
        _save(temporary, array, note)


class VideoWriter:
    """Write a video while its frames are made, in constant memory, as a context manager.

    The suffix of `path` chooses the format: .mp4 (H.264), .webm (VP9), .gif; a pattern such as clip-%04d.png
    or a folder ending in "/" takes PNG pictures, numbered from 0. The file appears under its name when the
    block ends without an error; otherwise, Ctrl-C included, nothing remains and an older file of that name is
    untouched. The same frames give the same bytes, however they are divided into calls of `write`.

    Args:
        path: an existing file is replaced; existing pictures are not.
        fps: frames per second.
        height, width: of the frames in pixels, checked in `write`; None takes those of the first frame.
        metadata: what JSON can hold; `read_metadata` gives it back. The attribute of that name may be set anew while
            frames are written: what is known only at the end goes into the file too.
        format: "mp4", "webm", "gif" or "png", where the suffix does not say it.
    Raises: InputError for an fps or metadata that cannot be used; MediaError if `path` cannot be written (an unknown
        suffix, a missing folder, no permission): at once, not after hours of work.
    """

    def __init__(
        self,
        path: StrPath,
        fps: float,
        height: int | None = None,
        width: int | None = None,
        metadata: dict[str, Any] | None = None,
        format: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames = 0  # written so far
        self._fps = _exact(fps)
        self._size = (height, width)
        self.metadata = self._begun_with = metadata
        self._format = format or _format_of(path)
        self._write: _Write | None = None
        self._stack = ExitStack()
        if self._format not in (*_FILMS, "gif", "png"):
            raise MediaError(f"{path} cannot be written as {self._format!r}: use mp4, webm, gif or png.")
        if self._format == "gif" and self._fps > _FASTEST_GIF:
            raise MediaError(f"{path} is a GIF, which shows at most 50 frames per second: write an .mp4.")
        pack(metadata, self._fps, 1, 1)
        self._numbered = self._format == "png" and NUMBERED.search(self.path.name) is not None
        self._folder = self._format == "png" and not self._numbered
        check_writable(self.path, self._folder)

    def __enter__(self) -> "VideoWriter":
        target = atomic_pattern(self.path) if self._numbered else atomic_path(self.path, self._folder)
        self._temporary = self._stack.enter_context(target)
        self._stack.push(self._refuse_empty)
        self._stack.push(self._renew_metadata)
        return self

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 (F, H, W, 3), all of one size.

        Raises: InputError for a wrong array or size; MediaError if the file cannot be written (the disk is full).
        """
        check_frames(frames)
        height, width = frames.shape[1:3]
        self._size = (self._size[0] or height, self._size[1] or width)
        if self._size != (height, width):
            raise InputError(f"frames are {height}x{width}, but must be {self._size[0]}x{self._size[1]}.")
        try:
            if self._write is None:
                self._write = self._stack.enter_context(self._encoder(height, width))
            for frame in frames:
                self._write(frame)
                self.frames += 1
        except (av.FFmpegError, OSError) as error:
            raise unwritable(self.path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        except (av.FFmpegError, OSError) as failure:
            if error is not None:
                return  # the first error is the one to report
            if isinstance(failure, MediaError):
                raise
            raise unwritable(self.path, failure) from failure

    def _refuse_empty(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None and not self.frames:
            raise MediaError(f"{self.path} was not written because it got no frames: write at least one.")

    def _renew_metadata(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None or not self.frames or self.metadata == self._begun_with:
            return
        note = pack(self.metadata, self._fps, *(side or 0 for side in self._size))
        if self._format == "png":
            first = self._temporary / (NUMBERED.sub(lambda place: place[0] % 0, self._name))
            with Image.open(first) as picture:
                _save(first, np.asarray(picture), note)
            return
        renewed = self._temporary.with_name(f"{self._temporary.name}.renewed")
        renew = _renew_gif if self._format == "gif" else partial(_renew_film, format=self._format)
        try:
            renew(self._temporary, renewed, note)
            renewed.replace(self._temporary)
        finally:
            renewed.unlink(missing_ok=True)

    @property
    def _name(self) -> str:
        """The pattern of the pictures' names."""
        return self.path.name if self._numbered else "frame-%04d.png"

    def _encoder(self, height: int, width: int) -> AbstractContextManager[_Write]:
        note = pack(self._begun_with, self._fps, height, width)
        if self._format == "png":
            return _pictures(self._temporary, self._name, note)
        if self._format == "gif":
            return _gif(self._temporary, self._fps, height, width, note)
        # Sound, when it comes, is one more stream of this container.
        return _film(self._temporary, self._format, self._fps, height, width, note, **_FILMS[self._format])


class FragmentedMp4:
    """Encode a video chunk after chunk into a fragmented MP4 that plays while it is made (Media Source).

    Every chunk begins with a keyframe and comes out whole. All bytes joined are a valid file, and so are
    those of the first chunks.

    Args:
        fps: frames per second.
        height, width: of the frames in pixels.
        metadata: what JSON can hold; `read_metadata` gives it back.
    Attributes:
        mime_type: for the HTTP header and for MediaSource.addSourceBuffer.
    Raises: InputError for an fps or metadata that cannot be used; MediaError for a size that H.264 does not take.
    """

    def __init__(self, fps: float, height: int, width: int, metadata: dict[str, Any] | None = None) -> None:
        self._fps = _exact(fps)
        self._size = (height, width)
        self._note = pack(metadata, self._fps, height, width)
        self._frames = 0
        self._chunks = 0
        # A first try tells the head, which all chunks share, and refuses early what cannot be encoded.
        self._head, _ = self._encode(np.zeros((1, height, width, 3), np.uint8))
        profile = self._head.index(b"avcC") + 5
        self.mime_type = f'video/mp4; codecs="avc1.{self._head[profile : profile + 3].hex()}"'

    def write(self, frames: np.ndarray) -> bytes:
        """The bytes of a chunk, uint8 (F, H, W, 3), of which 24 frames are a good size. Raises InputError."""
        check_frames(frames)
        if frames.shape[1:3] != self._size or not len(frames):
            height, width = self._size
            raise InputError(f"frames are {frames.shape}, but must be (1 or more, {height}, {width}, 3).")
        _, chunk = self._encode(frames)
        head = b"" if self._chunks else self._head
        self._chunks += 1
        self._frames += len(frames)
        return head + chunk

    def finish(self) -> bytes:
        """The last bytes: none while there are only pictures, which are never held back; sound will be."""
        return b""

    def _encode(self, frames: np.ndarray) -> tuple[bytes, bytes]:
        """The head (ftyp and moov) and the chunk (moof and mdat) of these frames."""
        # Each chunk is a file of its own, cut open: only so does FFmpeg let go of its last frame at once.
        file = io.BytesIO()
        place = {"fragment_index": str(self._chunks + 1), "video_track_timescale": str(self._fps.numerator)}
        settings = _FRAGMENTS | {"muxing": _FRAGMENTS["muxing"] | place}
        try:
            with _film(file, "mp4", self._fps, *self._size, self._note, **settings) as write:
                for frame in frames:
                    write(frame)
        except av.FFmpegError as error:
            raise unwritable("the stream", error) from error
        data = bytearray(file.getvalue())
        start = 0
        for _ in ("ftyp", "moov"):
            start += int.from_bytes(data[start : start + 4], "big")
        # The muxer begins at time zero; the box tfdt (version 1: 64 bits) says when the chunk really begins.
        struct.pack_into(">Q", data, data.index(b"tfdt", start) + 8, self._frames * self._fps.denominator)
        return bytes(data[:start]), bytes(data[start:])


@contextmanager
def _film(
    file: Path | io.BytesIO,
    format: str,
    fps: Fraction,
    height: int,
    width: int,
    note: str,
    codec: str,
    options: dict[str, str],
    muxing: dict[str, str],
) -> Iterator[_Write]:
    # H.264 with halved colour planes has even sizes only: repeat the last row or column; the note tells.
    odd = ((0, height % 2), (0, width % 2), (0, 0)) if codec == "libx264" else ((0, 0),) * 3
    target = file if isinstance(file, io.BytesIO) else str(file.absolute())
    with av.open(target, "w", format=format, options=muxing) as container:
        container.flags |= av.container.Flags.bitexact.value  # no random identifiers, no versions
        container.metadata["comment"] = note
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height + odd[0][1], width + odd[1][1], "yuv420p"
        context = stream.codec_context
        context.thread_count = _THREADS
        context.color_range = context.colorspace = context.color_primaries = context.color_trc = _BT709
        numbers = count()

        def write(frame: np.ndarray) -> None:
            picture = av.VideoFrame.from_ndarray(np.pad(frame, odd, "edge"), format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            picture.pts, picture.time_base = next(numbers), 1 / fps
            container.mux(stream.encode(picture))

        yield write
        container.mux(stream.encode(None))


def _renew_film(file: Path, renewed: Path, note: str, format: str) -> None:
    """Copy a film with another note; nothing is encoded again."""
    with (
        av.open(str(file)) as source,
        av.open(str(renewed), "w", format=format, options=_FILMS[format]["muxing"]) as target,
    ):
        target.flags |= av.container.Flags.bitexact.value
        target.metadata["comment"] = note
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:  # the last one is empty
                packet.stream = stream
                target.mux(packet)


def _renew_gif(file: Path, renewed: Path, note: str) -> None:
    """Copy a GIF with another note: its comment, which stands behind the header, is left out."""
    with file.open("rb") as source, _CommentedGif(renewed, note) as target:
        start = source.read(13)
        head = start + source.read(_gif_head(start) - len(start))
        source.read(2)  # the mark of a comment
        while size := source.read(1)[0]:
            source.read(size)
        target.write(head)
        shutil.copyfileobj(source, target)


def _gif_head(data: bytes) -> int:
    """Bytes of a GIF's header and of the palette of all frames."""
    return 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)


class _CommentedGif(io.BufferedWriter):
    """A file that slips a comment in behind the header of the GIF written to it, since FFmpeg cannot."""

    def __init__(self, path: Path, comment: str) -> None:
        super().__init__(io.FileIO(path, "w"))
        data = comment.encode("ascii")
        blocks = (data[i : i + 255] for i in range(0, len(data), 255))
        self._comment = b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"

    def write(self, data: Any) -> int:
        if self._comment:
            head = _gif_head(data)
            super().write(bytes(data[:head]) + self._comment)
            self._comment = b""
            return head + super().write(data[head:])
        return super().write(data)


@contextmanager
def _gif(path: Path, fps: Fraction, height: int, width: int, note: str) -> Iterator[_Write]:
    with (
        _CommentedGif(path, note) as file,
        av.open(file, "w", format="gif", options={"loop": "0"}) as container,
    ):
        stream = container.add_stream("gif", rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
        numbers = count()

        def write(frame: np.ndarray) -> None:
            # A palette for every frame needs no look ahead. A dithered octree is both faster and, seen from a
            # distance, truer than FFmpeg's palettegen.
            picture = Image.fromarray(frame)
            palette = picture.quantize(256, Image.Quantize.FASTOCTREE)
            indices = np.asarray(picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
            colours = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
            known = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
            colours[: len(known), 1:] = known
            indexed: Any = (indices, colours)  # PyAV's annotation knows no pal8
            coded = av.VideoFrame.from_ndarray(indexed, format="pal8")
            coded.pts, coded.time_base = next(numbers), 1 / fps
            container.mux(stream.encode(coded))

        yield write
        container.mux(stream.encode(None))


@contextmanager
def _pictures(folder: Path, name: str, note: str) -> Iterator[_Write]:
    folder.mkdir()
    numbers = count()

    def write(frame: np.ndarray) -> None:
        number = next(numbers)
        _save(folder / NUMBERED.sub(lambda place: place[0] % number, name), frame, "" if number else note)

    yield write


def _save(path: Path, array: np.ndarray, note: str) -> None:
    picture = Image.fromarray(array)
    # By way of memory: on a full disk Pillow, writing to a file, may lose the rest without a word.
    data = io.BytesIO()
    if path.suffix.lower() == ".png":
        chunks = PngInfo()
        if note:
            chunks.add_text("comment", note)
        picture.save(data, "PNG", pnginfo=chunks, compress_level=2)  # a tenth larger, five times faster than 6
    else:
        picture.save(data, "JPEG", quality=95, subsampling=0, comment=note.encode("ascii"))
    path.write_bytes(data.getvalue())


def _exact(fps: float) -> Fraction:
    """The frame rate as films state it: 29.97002997 is 30000/1001."""
    if not 0 < fps <= 1000:
        raise InputError(f"fps is {fps}: give a number of frames per second, more than 0 and at most 1000.")
    return Fraction(fps).limit_denominator(1001)


def _format_of(path: StrPath) -> str:
    suffix = Path(path).suffix.lower()
    if os.fspath(path).endswith(("/", os.sep)) or (not suffix and Path(path).is_dir()):
        return "png"
    if suffix == ".png" and NUMBERED.search(Path(path).name):
        return "png"
    if suffix[1:] not in (*_FILMS, "gif"):
        known = "end it in .mp4, .webm or .gif, or in -%04d.png or / for pictures"
        raise MediaError(f"{path} does not say which kind of video to write: {known}.")
    return suffix[1:]
