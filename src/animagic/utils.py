"""Pictures and videos in and out under the names of `diffusers.utils`, over the reader and writer of this library; its
further names are diffusers' own."""

from __future__ import annotations

import os
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
from diffusers.utils import export_to_gif, load_image
from PIL import Image

from .errors import InputError
from .media import VideoWriter, read_video
from .mirror import names_of

__all__ = ["export_to_gif", "export_to_video", "load_image", "load_video"]
__path__: list[str] = []  # its modules, such as torch_utils, are those of diffusers
__getattr__ = names_of("diffusers.utils")

MOST_BYTES = 2**30  # of a video that is fetched
_PATIENCE = 60  # seconds without a byte


def export_to_video(
    video_frames: Sequence[np.ndarray] | Sequence[Image.Image],
    output_video_path: str | None = None,
    fps: float = 10,
    quality: float = 5.0,
    bitrate: int | None = None,
    macro_block_size: int | None = 16,
) -> str:
    """Write frames to a video file; the suffix chooses the format.

    Args:
        video_frames: PIL images, or arrays (height, width, 3), uint8 or floats from 0 to 1.
        output_video_path: None: a new temporary .mp4.
        fps: frames per second.
        quality, macro_block_size: taken for the sake of calls written for diffusers, without effect: the quality is
            always that of `animagic.media.VideoWriter`, near what the eye can tell, and no size is rounded.
        bitrate: only None.

    Returns: the path.
    Raises: InputError for a bitrate, MediaError.
    """
    if bitrate is not None:
        raise InputError("the bitrate cannot be chosen: leave it out, and the quality is kept constant instead.")
    if output_video_path is None:
        handle, output_video_path = tempfile.mkstemp(suffix=".mp4")
        os.close(handle)
    with VideoWriter(output_video_path, fps=fps) as writer:
        for frame in video_frames:
            writer.write(_bytes(frame)[None])
    return output_video_path


def load_video(
    video: str,
    convert_method: Callable[[list[Image.Image]], list[Image.Image]] | None = None,
    return_fps: bool = False,
    num_frames: int | None = None,
) -> list[Image.Image] | tuple[list[Image.Image], float]:
    """Read a video from a file, a folder of pictures or an http(s) address as RGB images.

    Args:
        convert_method: called on the list of images.
        return_fps: return (images, frames per second).
        num_frames: only the first so many; None: all.
    Raises: InputError for an address that cannot be read or holds more than 1 GiB, MediaError.
    """
    with _local(str(video)) as path:
        clip = read_video(path, max_frames=num_frames)
    images = [Image.fromarray(frame) for frame in clip.frames]
    if convert_method is not None:
        images = convert_method(images)
    return (images, clip.fps) if return_fps else images


def _bytes(frame: np.ndarray | Image.Image) -> np.ndarray:
    if isinstance(frame, Image.Image):
        return np.asarray(frame.convert("RGB"))
    if np.issubdtype(frame.dtype, np.floating):
        return (frame * 255).round().clip(0, 255).astype(np.uint8)
    return frame


@contextmanager
def _local(video: str):
    """The file itself, or what an address holds, for as long as the block runs."""
    if not video.startswith(("http://", "https://")):
        yield Path(video)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            suffix = Path(unquote(urlparse(video).path)).suffix
            path = Path(folder) / f"video{suffix or '.mp4'}"
            with urllib.request.urlopen(video, timeout=_PATIENCE) as answer, path.open("wb") as file:
                announced, left = int(answer.headers.get("Content-Length") or 0), MOST_BYTES
                while announced <= MOST_BYTES and left >= 0 and (data := answer.read(2**20)):
                    file.write(data)
                    left -= len(data)
                if announced > MOST_BYTES or left < 0:
                    raise InputError(f"{video} holds more than {MOST_BYTES >> 20} MiB: give a shorter video.")
        except InputError:
            raise
        except (OSError, ValueError, HTTPException) as error:
            raise InputError(f"{video} cannot be read ({error}): check the address.") from error
        yield path
