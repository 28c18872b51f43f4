"""Films out: pictures, sound and a note in one container."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np

from animagic.errors import InputError
from animagic.media.pictures import Write
from animagic.media.soundtrack import Track

# The same frames must give the same bytes. The number of threads shows in what the encoders write, so it does
# not follow the machine. And x264's macroblock tree differs from run to run on CPUs with AVX-512 (at most widths);
# at this quality it hardly saves anything.
_THREADS = 4
X264 = {"mbtree": "0"}
_BT709 = 1
FILMS: dict[str, dict[str, Any]] = {
    "mp4": {
        "codec": "libx264",
        "options": X264 | {"crf": "16", "preset": "medium"},
        "muxing": {"movflags": "faststart"},
    },
    "webm": {
        "codec": "libvpx-vp9",
        "options": {"crf": "24", "b": "0", "cpu-used": "4", "row-mt": "1"},
        "muxing": {},
    },
}


@contextmanager
def film(
    file: Path | io.BytesIO,
    format: str,
    fps: Fraction,
    height: int,
    width: int,
    note: str,
    codec: str,
    options: dict[str, str],
    muxing: dict[str, str],
    track: Track | None = None,
) -> Iterator[Write]:
    """Give what writes the frames of a film, and as much of its sound as they last."""
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
        with track(container) if track else nullcontext(_silent) as take:

            def write(frame: np.ndarray) -> None:
                number = next(numbers)
                picture = av.VideoFrame.from_ndarray(np.pad(frame, odd, "edge"), format="rgb24")
                picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                picture.pts, picture.time_base = number, 1 / fps
                container.mux([*stream.encode(picture), *take((number + 1) / fps)])

            yield write
            container.mux([*stream.encode(None), *take(None)])


def _silent(until: Fraction | None) -> list[av.Packet]:
    return []


def renew_film(file: Path, renewed: Path, note: str, format: str) -> None:
    """Copy a film with another note; nothing is encoded again."""
    with (
        av.open(str(file)) as source,
        av.open(str(renewed), "w", format=format, options=FILMS[format]["muxing"]) as target,
    ):
        target.flags |= av.container.Flags.bitexact.value
        target.metadata["comment"] = note
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:  # the last ones are empty
                packet.stream = streams[packet.stream_index]
                target.mux(packet)


def exact_rate(fps: float) -> Fraction:
    """The frame rate as films state it: 29.97002997 is 30000/1001."""
    if not 0 < fps <= 1000:
        raise InputError(f"fps is {fps}: give a number of frames per second, more than 0 and at most 1000.")
    return Fraction(fps).limit_denominator(1001)
