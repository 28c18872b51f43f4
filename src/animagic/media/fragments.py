"""Films out while they are made: fragments that a browser plays as they come."""

import io
import struct
from typing import Any

import av
import numpy as np

from animagic.errors import InputError
from animagic.media.files import pack, unwritable
from animagic.media.films import X264, exact_rate, film
from animagic.media.frames import check_frames

_FRAGMENTS: dict[str, Any] = {
    "codec": "libx264",
    "options": X264 | {"crf": "20", "preset": "veryfast", "bf": "0"},  # no B-frames: chunks stand alone
    "muxing": {"movflags": "empty_moov+default_base_moof+skip_trailer"},
}


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
        self._fps = exact_rate(fps)
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
            with film(file, "mp4", self._fps, *self._size, self._note, **settings) as write:
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
