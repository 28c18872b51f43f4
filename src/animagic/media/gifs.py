"""GIFs out, with a note inside."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from animagic.media.pictures import Write

FASTEST_GIF = 50  # frames per second: browsers slow shorter delays down to ten


def renew_gif(file: Path, renewed: Path, note: str) -> None:
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
def gif(path: Path, fps: Fraction, height: int, width: int, note: str) -> Iterator[Write]:
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
