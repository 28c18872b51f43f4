"""What a file is and how much it holds, told before anything in it is decoded: for files that strangers send."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from PIL import Image

from animagic.errors import MediaError
from animagic.media.containers import best, open_container, unreadable
from animagic.media.reading import ANIMATED, DEFAULT_FPS, PICTURES

_SUFFIXES = {"JPEG": ".jpg", "JPEG2000": ".jp2"}
_FILMS = {"mov": ".mp4", "matroska": ".mkv", "mpegts": ".ts", "asf": ".wmv", "ogg": ".ogv", "mpeg": ".mpg"}
_WANTED = "a picture, a video or a sound"


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a file without decoding it.

    Args:
        kind: "poses" is a text that may be poses as JSON.
        suffix: that a file of its format has, whatever it was called: ".png".
        pixels: of its picture, or of one frame; 0 of a sound.
        frames: that reading it at the usual rate may give.
        seconds: that it lasts; 0 of a still picture.
    """

    kind: Literal["picture", "video", "sound", "poses"]
    suffix: str
    pixels: int = 0
    frames: int = 0
    seconds: float = 0.0


def read_header(path: Path) -> Header:
    """The facts of a picture, a video, a sound or a text with poses. Raises MediaError if it is none of them."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        raise MediaError(f"{path} is empty: give {_WANTED}.")
    if start[:1] in (b"{", b"["):
        return Header("poses", ".json")
    return _picture(path) or _film(path)


def _picture(path: Path) -> Header | None:
    try:
        with Image.open(path, formats=PICTURES) as picture:
            name, pixels = str(picture.format), picture.width * picture.height
            count = getattr(picture, "n_frames", 1) if name in ANIMATED else 1
    except Image.UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} is far larger than any picture that could be used: make it smaller.") from error
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise unreadable(path, error, _WANTED) from error
    suffix = _SUFFIXES.get(name, f".{name.lower()}")
    return Header("video", suffix, pixels, count, count / 10) if count > 1 else Header("picture", suffix, pixels, 1)


def _film(path: Path) -> Header:
    with open_container(path, _WANTED) as container:
        name = container.format.name.split(",")[0]
        video = best(container, "video", path)
        if video is not None and video.disposition & av.stream.Disposition.attached_pic:
            video = None  # the cover of a record
        sound = container.streams.best("audio")
        if video is None and sound is None:
            raise MediaError(f"{path} holds nothing that can be seen or heard: give {_WANTED}.")
        counts: dict[int, int] = {}
        seconds = (container.duration or 0) / 1e6
        try:
            for packet in container.demux():  # headers may say less than there is
                if packet.size:
                    counts[packet.stream_index] = counts.get(packet.stream_index, 0) + 1
                if packet.pts is not None and packet.time_base is not None:
                    seconds = max(seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        except (av.FFmpegError, OSError) as error:
            raise unreadable(path, error, _WANTED) from error
        if not isinstance(video, av.VideoStream):
            return Header("sound", {"mov": ".m4a", "matroska": ".mka"}.get(name, f".{name}"), seconds=seconds)
        # Reading at a steady rate repeats the frames of a film that has few for its time.
        frames = max(counts.get(video.index, 0), round(seconds * DEFAULT_FPS))
        return Header("video", _FILMS.get(name, f".{name}"), video.width * video.height, frames, seconds)
