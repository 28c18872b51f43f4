"""Files of film and sound, opened by PyAV: only kinds that hold what they show, and whole to the end."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import av

from animagic.errors import MediaError
from animagic.media.files import StrPath, check_file, reason

# Only formats that hold samples: FFmpeg takes any text for a terminal recording and follows playlists to other
# files. A server must be able to open what a stranger sends.
_FILMS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,ivf,m4v,mxf,nut,yuv4mpegpipe"
_SOUNDS = "wav,w64,mp3,flac,aac,aiff,au,caf,amr,ac3,eac3"
_OPTIONS = {"format_whitelist": f"{_FILMS},{_SOUNDS}", "protocol_whitelist": "file"}
_EXACT = ("mp4", "matroska", "wav", "flac")  # whose headers can be trusted: broadcasts have gaps and guesses


@contextmanager
def open_container(path: Path, wanted: str = "a picture or a video") -> Iterator[av.container.InputContainer]:
    """Open a film or a sound file. wanted: what the error says to give. Raises: MediaError if it is neither."""
    check_file(path)
    try:
        # Absolute, so that no name is taken for a protocol.
        container = av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError(f"{path} does not exist: check its name.") from error
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, error, wanted) from error
    with closing(container):
        yield container


def best(container: av.container.InputContainer, kind: Literal["video", "audio"], path: StrPath) -> Any:
    """The stream that a player would choose, or None. Raises: MediaError for one in a codec that is not known."""
    stream = container.streams.best(kind)
    if stream is not None and not can_decode(stream):
        raise MediaError(
            f"{path} holds {kind} in a codec that is not known here: convert the file to .mp4 (H.264, AAC)."
        )
    return stream


def can_decode(stream: Any) -> bool:
    """Whether FFmpeg has a codec for the stream; one without knows neither its size nor its rate."""
    return stream.codec_context is not None


def is_exact(container: av.container.InputContainer) -> bool:
    """Whether damage to the file, and a missing end, can be told from what its kind allows."""
    return any(name in container.format.name for name in _EXACT)


def packets(
    container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream, path: StrPath, slack: float = 0.25
) -> Iterator[av.Packet]:
    """The packets of one stream. slack: seconds that may lack at the end.

    Raises: MediaError where the file is damaged, and at the end if that comes before the header says.
    """
    exact, end = is_exact(container), 0.0
    for packet in container.demux():
        if exact and packet.is_corrupt:
            raise MediaError(f"{path} is damaged or cut off after {end:.1f} s: get the file again.")
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index:
            yield packet
    # A film that was cut off between two packets simply ends.
    start = 0 if "matroska" in container.format.name else container.start_time or 0  # Matroska counts from zero
    declared = (start + (container.duration or 0)) / 1e6
    if exact and end < declared - slack:
        raise MediaError(f"{path} is cut off: it ends at {end:.1f} of {declared:.1f} s; get the file again.")


def unreadable(path: StrPath, error: BaseException, wanted: str = "a picture or a video") -> MediaError:
    """The sentence for a failed read, from an error of the system, of FFmpeg or of Pillow."""
    return MediaError(f"{path} is damaged or of an unknown kind ({reason(error)}): give {wanted}.")
