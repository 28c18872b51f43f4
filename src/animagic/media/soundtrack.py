"""Sound out: the track of a film that is being written, never further than its pictures."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from animagic.errors import InputError, MediaError
from animagic.media.containers import open_container, packets
from animagic.media.files import StrPath
from animagic.media.sound import (
    ArrivingSound,
    Sound,
    check_sound,
    iter_channels,
    iter_sound,
    origin_of,
    sound_facts,
    sound_of,
)

Take = Callable[[Fraction | None], list[av.Packet]]
"""The packets of sound up to an instant of the film, in seconds, that were not given yet; None: and those held back."""

Track = Callable[[av.container.OutputContainer], AbstractContextManager[Take]]
"""Adds a stream of sound to a container."""

_COPIED = {"mp4": ("aac", "mp3"), "webm": ("opus", "vorbis")}  # what every player of that format knows
_CODECS = {"mp4": "aac", "webm": "libopus"}
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
_ROLL = 0.3  # seconds that a decoder may need before the first instant that is heard


def check_soundtrack(path: StrPath, format: str, sound: Sound | ArrivingSound | StrPath, start: float) -> None:
    """Raise unless `sound` can go into the film `path` from its second `start` on.

    A sound file is read through, so that hours of work do not end on its damaged end.
    Raises: InputError for wrong samples or a wrong start; MediaError for a file without readable sound after `start`,
        or a format without sound.
    """
    if format not in _CODECS:
        raise MediaError(f"{path} cannot hold sound: write an .mp4 or a .webm, or leave the sound out.")
    if not 0 <= start < float("inf"):
        raise InputError(f"sound_start is {start}: give 0 or more seconds.")
    if isinstance(sound, ArrivingSound):
        return  # nobody has heard it
    if not isinstance(sound, Sound):
        next(iter_sound(sound, start=start))
        with open_container(Path(sound)) as container:
            for _ in packets(container, sound_of(container, sound), sound):
                pass
        return
    check_sound(sound)
    if sound.channels > 2:
        raise InputError(f"the sound has {sound.channels} channels: give 1 or 2.")
    if round(start * sound.rate) >= len(sound.samples):
        raise InputError(f"sound_start is {start}, but the sound ends at {sound.seconds:.2f} s: give an earlier one.")


@contextmanager
def soundtrack(
    container: av.container.OutputContainer, format: str, sound: Sound | ArrivingSound | StrPath, start: float
) -> Iterator[Take]:
    """Add a stream of sound to a container. It is copied where the format allows, else encoded."""
    if isinstance(sound, Sound):
        yield _encoder(container, format, sound.rate, sound.channels, _blocks(sound, start))
        return
    if isinstance(sound, ArrivingSound):
        yield _encoder(container, format, sound.rate, sound.channels, sound.blocks())
        return
    facts = sound_facts(sound)
    channels = min(facts["channels"], 2)
    with open_container(Path(sound)) as source:
        stream = sound_of(source, sound)
        # Without its settings beside it, AAC is in the form that only broadcasts know.
        if facts["codec"] in _COPIED[format] and (facts["codec"] != "aac" or stream.codec_context.extradata):
            yield _copier(container, format, source, stream, Path(sound), start)
            return
    blocks = iter_channels(sound, facts["rate"], channels, start)
    yield _encoder(container, format, facts["rate"], channels, blocks)


def add_encoder(container: av.container.OutputContainer, format: str, rate: int, channels: int) -> av.AudioStream:
    """Add a stream that encodes sound of this rate; the encoder resamples where its codec knows other rates."""
    known = rate if format == "mp4" and rate in _AAC_RATES else 48000
    stream = container.add_stream(_CODECS[format], rate=known)
    assert isinstance(stream, av.AudioStream)
    stream.layout, stream.bit_rate = layout_of(channels), bit_rate_of(known, channels)
    return stream


def layout_of(channels: int) -> str:
    return "mono" if channels == 1 else "stereo"


def bit_rate_of(rate: int, channels: int) -> int:
    return channels * min(96_000, 4 * rate)


def to_frame(samples: np.ndarray, rate: int, at: int) -> av.AudioFrame:
    """Samples (n, channels), the first of which is number `at` of the sound, for an encoder."""
    planes = np.ascontiguousarray(samples.T, np.float32)
    frame = av.AudioFrame.from_ndarray(planes, "fltp", layout_of(len(planes)))
    frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
    return frame


def _blocks(sound: Sound, start: float) -> Iterator[np.ndarray]:
    samples = sound.samples.reshape(len(sound.samples), -1).astype(np.float32, copy=False)
    yield from (samples[i : i + sound.rate] for i in range(round(start * sound.rate), len(samples), sound.rate))


def _encoder(
    container: av.container.OutputContainer, format: str, rate: int, channels: int, blocks: Iterator[np.ndarray]
) -> Take:
    stream = add_encoder(container, format, rate, channels)
    held, done = np.zeros((0, channels), np.float32), 0

    def take(until: Fraction | None) -> list[av.Packet]:
        nonlocal held, done
        if until is None:
            return list(stream.encode(None)) if done else []
        wanted = round(until * rate) - done
        while len(held) < wanted and (block := next(blocks, None)) is not None:
            held = np.concatenate([held, block])
        now, held = held[:wanted], held[wanted:]
        at, done = done, done + len(now)
        return list(stream.encode(to_frame(now, rate, at))) if len(now) else []

    return take


def _copier(
    container: av.container.OutputContainer,
    format: str,
    source: av.container.InputContainer,
    stream: av.AudioStream,
    path: Path,
    start: float,
) -> Take:
    target = container.add_stream_from_template(stream)
    # MP4 says from where on the sound is heard; in WebM nothing comes before the first picture but the codec's delay.
    earliest = -_ROLL if format == "mp4" else -(stream.codec_context.delay or 0) / 48000 - 1e-3
    waiting = _moved(source, stream, path, origin_of(path) + start, earliest)
    held: list[tuple[float, av.Packet]] = []

    def take(until: Fraction | None) -> list[av.Packet]:
        taken: list[av.Packet] = []
        while until is not None and (item := held.pop() if held else next(waiting, None)) is not None:
            if item[0] >= until:
                held.append(item)
                break
            item[1].stream = target
            taken.append(item[1])
        return taken

    return take


def _moved(
    source: av.container.InputContainer,
    stream: av.AudioStream,
    path: Path,
    start: float,
    earliest: float,
) -> Iterator[tuple[float, av.Packet]]:
    """The packets and their times, in seconds, both counted from `start` of the file's own time."""
    for packet in packets(source, stream, path):
        if packet.pts is None or packet.dts is None or not packet.size:
            continue
        time = float(packet.pts * packet.time_base) - start
        if time >= earliest:
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            yield time, packet
