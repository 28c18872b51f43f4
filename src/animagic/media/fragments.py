"""Films out while they are made: fragments that a browser plays as they come."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np

from animagic.errors import InputError
from animagic.media.files import pack, unwritable
from animagic.media.films import X264, exact_rate, film
from animagic.media.frames import check_frames
from animagic.media.sound import Sound, check_rate, check_sound
from animagic.media.soundtrack import Take, add_encoder, bit_rate_of, layout_of, to_frame

_FRAGMENTS: dict[str, Any] = {
    "codec": "libx264",
    "options": X264 | {"crf": "20", "preset": "veryfast", "bf": "0"},  # no B-frames: chunks stand alone
    "muxing": {"movflags": "empty_moov+default_base_moof+skip_trailer+frag_custom"},
}


class FragmentedMp4:
    """Encode a video chunk after chunk into a fragmented MP4 that plays while it is made (Media Source).

    Every chunk begins with a keyframe and comes out whole. All bytes joined are a valid file, and so are
    those of the first chunks.

    Args:
        fps: frames per second.
        height, width: of the frames in pixels.
        metadata: what JSON can hold; `read_metadata` gives it back.
        sound_rate: samples per second of the sound that comes with the frames; None: there is none.
        sound_channels: 1 or 2.
    Attributes:
        mime_type: for the HTTP header and for MediaSource.addSourceBuffer.
        head: what the first chunk begins with. Behind it, the stream plays from any chunk on.
    Raises: InputError for an fps, metadata or a sound that cannot be used; MediaError for a size that H.264 does not
        take.
    """

    def __init__(
        self,
        fps: float,
        height: int,
        width: int,
        metadata: dict[str, Any] | None = None,
        sound_rate: int | None = None,
        sound_channels: int = 1,
    ) -> None:
        if sound_channels not in (1, 2):
            raise InputError(f"sound_channels is {sound_channels}: give 1 or 2.")
        if sound_rate is not None:
            check_rate(sound_rate)
        self._fps = exact_rate(fps)
        self._size = (height, width)
        self._note = pack(metadata, self._fps, height, width)
        self._frames = 0
        self._rate, self._samples = sound_rate, 0
        self._chunks = 0
        self._sound = None if sound_rate is None else _encoder(sound_channels)
        # A first try tells the head, which all chunks share, and refuses early what cannot be encoded.
        self.head, _ = self._encode(np.zeros((1, height, width, 3), np.uint8), [])
        profile = self.head.index(b"avcC") + 5
        codecs = f"avc1.{self.head[profile : profile + 3].hex()}" + (", mp4a.40.2" if self._sound else "")
        self.mime_type = f'video/mp4; codecs="{codecs}"'

    def write(self, frames: np.ndarray, sound: np.ndarray | None = None) -> bytes:
        """The bytes of a chunk, uint8 (F, H, W, 3), of which 24 frames are a good size.

        Args:
            sound: what is heard meanwhile, float32 (n,) or (n, channels); None: silence. So far as many samples as the
                frames last, give or take one.
        Raises: InputError for wrong arrays.
        """
        check_frames(frames)
        if frames.shape[1:3] != self._size or not len(frames):
            height, width = self._size
            raise InputError(f"frames are {frames.shape}, but must be (1 or more, {height}, {width}, 3).")
        packets = self._heard(self._frames + len(frames), sound)
        _, chunk = self._encode(frames, packets)
        head = b"" if self._chunks else self.head
        self._chunks += 1
        self._frames += len(frames)
        return head + chunk

    def finish(self) -> bytes:
        """The last bytes: the end of the sound, of which a little is held back; none without sound."""
        if self._sound is None or not self._samples:
            return b""
        packets = _in_time(self._sound.encode(None))
        return self._encode(np.zeros((0, *self._size, 3), np.uint8), packets)[1] if packets else b""

    def _heard(self, frames: int, sound: np.ndarray | None) -> list[av.Packet]:
        """The packets of sound that are complete when so many frames have been shown."""
        if self._sound is None or self._rate is None:
            if sound is not None:
                raise InputError("this stream was begun without sound: give sound_rate.")
            return []
        rate, channels = self._rate, self._sound.layout.nb_channels
        wanted = round(frames * rate / self._fps) - self._samples
        if sound is None:
            sound = np.zeros((max(wanted, 0), channels), np.float32)
        check_sound(Sound(sound, rate))
        if abs(len(sound) - wanted) > 1 or Sound(sound, rate).channels != channels:
            raise InputError(f"the sound is {sound.shape}, but must be ({wanted}, {channels}), as long as the frames.")
        frame = to_frame(sound.reshape(len(sound), channels), rate, self._samples)
        self._samples += len(sound)
        return _in_time(self._sound.encode(frame))

    def _encode(self, frames: np.ndarray, packets: list[av.Packet]) -> tuple[bytes, bytes]:
        """The head (ftyp and moov) and the chunk (moof and mdat) of these frames and packets of sound."""
        # Each chunk is a file of its own, cut open: only so does FFmpeg let go of its last frame at once.
        file = io.BytesIO()
        place = {"fragment_index": str(self._chunks + 1), "video_track_timescale": str(self._fps.numerator)}
        settings = _FRAGMENTS | {"muxing": _FRAGMENTS["muxing"] | place}
        begins = packets[0].pts or 0 if packets else 0
        track = partial(_track, encoder=self._sound, packets=packets, begins=begins) if self._sound else None
        try:
            with film(file, "mp4", self._fps, *self._size, self._note, **settings, track=track) as write:
                for frame in frames:
                    write(frame)
        except av.FFmpegError as error:
            raise unwritable("the stream", error) from error
        data = bytearray(file.getvalue())
        start = 0
        for _ in ("ftyp", "moov"):
            start += int.from_bytes(data[start : start + 4], "big")
        # The muxer begins at time zero; a track's box tfdt (version 1: 64 bits) says when the chunk really begins.
        place_of = start
        for time in [self._frames * self._fps.denominator] * bool(len(frames)) + [begins] * bool(packets):
            place_of = data.index(b"tfdt", place_of) + 8
            struct.pack_into(">Q", data, place_of, time)
        return bytes(data[:start]), bytes(data[start:])


def _encoder(channels: int) -> av.AudioCodecContext:
    # At this rate, whatever the sound's: the encoder holds back some 2,700 samples, for which the player must wait.
    rate = 48_000
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.time_base = rate, av.AudioFormat("fltp"), Fraction(1, rate)
    encoder.layout = layout_of(channels)
    encoder.bit_rate = bit_rate_of(rate, channels)
    return encoder


def _in_time(packets: list[av.Packet]) -> list[av.Packet]:
    """Without the packet before the first instant: players of a stream would not leave it out."""
    return [packet for packet in packets if (packet.pts or 0) >= 0 and packet.size]


@contextmanager
def _track(
    container: av.container.OutputContainer, encoder: av.AudioCodecContext, packets: list[av.Packet], begins: int
) -> Iterator[Take]:
    stream = add_encoder(container, "mp4", encoder.sample_rate, encoder.layout.nb_channels)  # only tells the head
    for packet in packets:
        packet.stream = stream
        packet.pts = packet.dts = (packet.pts or 0) - begins
    yield lambda until: packets if until is None else []
