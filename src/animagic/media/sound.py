"""Sound in: of any film or sound file, at any rate, in time with the pictures of its file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from animagic.errors import InputError, MediaError
from animagic.media.containers import best, can_decode, is_exact, open_container, packets, unreadable
from animagic.media.files import StrPath

MOST_SAMPLES = 2**28
"""That `read_sound` gives at most, those of all channels together: four hours and a half at 16 kHz, 1 GiB."""
_RATES = (1_000, 384_000)
_GAP = 0.02  # seconds: time stamps that differ by less are only rounded
_WANTED = "a sound or a video file"


@dataclass(frozen=True, slots=True)
class Sound:
    """Sound in memory. samples: float32 (n,) or (n, channels), -1 to 1; rate: samples per second."""

    samples: np.ndarray
    rate: int

    @property
    def channels(self) -> int:
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True, slots=True)
class ArrivingSound:
    """Sound that is not all there yet.

    Args:
        blocks: function to an iterator of its samples, float32 (n, channels), from the beginning on, which waits for
            those that have not arrived.
        rate: samples per second.
        channels: 1 or 2.
    """

    blocks: Callable[[], Iterator[np.ndarray]]
    rate: int
    channels: int = 1


def check_sound(sound: Sound) -> None:
    """Raise InputError unless the samples are floating-point, finite, at least one, of 1 to 8 channels."""
    samples = sound.samples
    if not isinstance(samples, np.ndarray) or not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"samples must be a NumPy array of float32, not {getattr(samples, 'dtype', type(samples))}.")
    if samples.ndim not in (1, 2) or not len(samples) or not 1 <= sound.channels <= 8:
        raise InputError(f"samples must have the shape (n,) or (n, 1 to 8 channels), n > 0, not {samples.shape}.")
    if not np.isfinite(samples).all():
        raise InputError("samples hold values that are not finite: the sound was computed wrongly.")
    check_rate(sound.rate)


def read_sound(
    path: StrPath, rate: int = 16_000, mono: bool = True, start: float = 0.0, seconds: float | None = None
) -> Sound:
    """Read the sound of a film or a sound file into memory.

    Sample 0 is heard when the first picture of `iter_video` is seen: where the sound of a film begins later there is
    silence before it, and what comes before the first picture is left out. Gaps in the sound are silence, too.

    Args:
        path: any film or sound file that PyAV reads.
        rate: samples per second wanted.
        mono: the mean of the channels, as samples (n,); otherwise all of them, as (n, channels).
        start: seconds to leave out at the beginning.
        seconds: read at most so many; None reads all.
    Raises: InputError for a wrong rate or time; MediaError if there is no readable sound at `path`, none after `start`,
        or more than MOST_SAMPLES.
    """
    blocks, count = [], 0
    for block in iter_sound(path, rate, mono, start, seconds):
        count += block.size
        if count > MOST_SAMPLES:
            most = MOST_SAMPLES * len(block) / block.size / rate / 60
            raise MediaError(f"{path} is longer than {most:.0f} minutes: read a part of it with `seconds`.")
        blocks.append(block)
    return Sound(np.concatenate(blocks), rate)


def iter_sound(
    path: StrPath, rate: int = 16_000, mono: bool = True, start: float = 0.0, seconds: float | None = None
) -> Iterator[np.ndarray]:
    """The samples that `read_sound` gives, in blocks of any length, in constant memory. Arguments and errors are its,
    but for the limit."""
    yield from (block[:, 0] if mono else block for block in iter_channels(path, rate, 1 if mono else 8, start, seconds))


def iter_channels(
    path: StrPath, rate: int, most: int, start: float = 0.0, seconds: float | None = None
) -> Iterator[np.ndarray]:
    """As `iter_sound`, with blocks (n, channels) of at most so many channels: 1, 2 or 8."""
    check_rate(rate)
    if not (0 <= start < float("inf") and (seconds is None or seconds > 0)):
        raise InputError(f"start is {start} and seconds {seconds}: give 0 or more, and more than 0.")
    first = done = round(start * rate)
    last = None if seconds is None else first + max(1, round(seconds * rate))
    with open_container(Path(path), _WANTED) as container:
        for position, block in _placed(container, sound_of(container, path), Path(path), rate, most):
            if last is not None and position >= last:
                break
            block = block[max(0, done - position) : None if last is None else last - position]
            if not len(block):
                continue
            if position > done:
                yield np.zeros((position - done, block.shape[1]), np.float32)
            yield block
            done = max(done, position) + len(block)
    if done == first:
        ends = f"ends before {start:.2f} s" if start else "holds no samples"
        raise MediaError(f"the sound of {path} {ends}: give another file or an earlier start.")


def sound_facts(path: StrPath) -> dict[str, Any]:
    """The facts of the sound in a file: rate (samples per second), channels, seconds (None where the file does not
    say), codec (FFmpeg's name). Raises MediaError if it holds none."""
    with open_container(Path(path), _WANTED) as container:
        stream = sound_of(container, path)
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        if seconds is None and container.duration:
            seconds = container.duration / 1e6
        return {
            "rate": stream.rate,
            "channels": stream.channels,
            "seconds": seconds,
            "codec": stream.codec_context.codec.canonical_name,
        }


def sound_of(container: av.container.InputContainer, path: StrPath) -> av.AudioStream:
    """The stream of sound in an opened file. Raises MediaError if there is none."""
    stream = best(container, "audio", path)
    if not isinstance(stream, av.AudioStream):
        raise MediaError(f"{path} holds no sound: give a file with a sound track.")
    return stream


def origin_of(path: StrPath) -> float:
    """When the first picture of a film is shown or, without pictures, the first sound is heard, in seconds of the
    file's own time. The cover of an album is no film."""
    for kind in ("video", "audio"):
        with open_container(Path(path), _WANTED) as container:
            stream = container.streams.best(kind)
            cover = stream is not None and stream.disposition & av.stream.Disposition.attached_pic
            if not isinstance(stream, av.VideoStream | av.AudioStream) or cover or not can_decode(stream):
                continue
            try:
                for packet in container.demux(stream):
                    for frame in packet.decode():
                        if isinstance(frame, av.VideoFrame | av.AudioFrame) and frame.time is not None:
                            return frame.time
            except av.FFmpegError:  # whoever reads that stream to its end will say so
                continue
    return 0.0


def check_rate(rate: int) -> None:
    """Raise InputError unless it is a whole number of samples per second that sound may have."""
    if not (isinstance(rate, int | np.integer) and _RATES[0] <= rate <= _RATES[1]):
        raise InputError(f"rate is {rate!r}: give a whole number of samples per second, {_RATES[0]} to {_RATES[1]}.")


def _placed(
    container: av.container.InputContainer, stream: av.AudioStream, path: Path, rate: int, most: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Resampled blocks and the positions of their first samples, counted from the first picture or, without
    pictures, from the first sound."""
    origin, position = origin_of(path), None
    resampler: av.AudioResampler | None = None
    setup: object = None
    layout = stream.layout if stream.channels <= max(2, most) else "stereo"
    end = None
    if is_exact(container) and stream.duration and stream.start_time is not None and stream.time_base:
        end = float((stream.start_time + stream.duration) * stream.time_base)  # codecs fill their last packet up

    def resampled(frame: av.AudioFrame | None) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal position
        for part in resampler.resample(frame) if resampler else ():
            block = part.to_ndarray().reshape(-1, len(part.layout.channels))
            at, position = position or 0, (position or 0) + len(block)
            if end is not None:
                block = block[: max(0, round((end - origin) * rate) - at)]
            yield at, block.mean(1, keepdims=True) if most == 1 else block

    for frame in _decoded(container, stream, path):
        if setup != (setup := (frame.format.name, frame.layout.name, frame.sample_rate)):  # may change midway
            yield from resampled(None)
            resampler = av.AudioResampler("flt", layout, rate)
        if frame.time is not None:
            due = (frame.time - origin) * rate
            if position is None or abs(due - position) > _GAP * rate:
                position = round(due)
        frame.pts = None
        yield from resampled(frame)
    yield from resampled(None)


def _decoded(container: av.container.InputContainer, stream: av.AudioStream, path: Path) -> Iterator[av.AudioFrame]:
    try:
        for packet in packets(container, stream, path):
            try:
                yield from packet.decode()  # type: ignore[misc]
            except av.FFmpegError as error:
                if is_exact(container):
                    raise unreadable(path, error, _WANTED) from error
    except (av.FFmpegError, OSError) as error:
        if isinstance(error, MediaError):
            raise
        raise unreadable(path, error, _WANTED) from error
