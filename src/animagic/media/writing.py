"""Video out. A file is written under a temporary name and is either whole or absent."""

import os
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from PIL import Image

from animagic.errors import InputError, MediaError
from animagic.media.files import NUMBERED, StrPath, atomic_path, atomic_pattern, check_writable, pack, unwritable
from animagic.media.films import FILMS, exact_rate, film, renew_film
from animagic.media.frames import check_frames
from animagic.media.gifs import FASTEST_GIF, gif, renew_gif
from animagic.media.pictures import Write, pictures, save
from animagic.media.sound import ArrivingSound, Sound
from animagic.media.soundtrack import Track, check_soundtrack, soundtrack


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
        sound: for .mp4 and .webm, what is heard from the first frame on, until it or the frames end: samples, or a
            film or sound file, whose track is copied if the format allows (MP4: AAC and MP3; WebM: Opus and Vorbis)
            and else encoded (as AAC or Opus). Sound that is arriving is waited for as far as the frames last.
        sound_start: seconds of the sound that are left out before the first frame.
    Raises: InputError for an fps, metadata or samples that cannot be used; MediaError if `path` cannot be written (an
        unknown suffix, a missing folder, no permission) or the file of the sound not be read: at once, not after hours
        of work.
    """

    def __init__(
        self,
        path: StrPath,
        fps: float,
        height: int | None = None,
        width: int | None = None,
        metadata: dict[str, Any] | None = None,
        format: str | None = None,
        sound: Sound | ArrivingSound | StrPath | None = None,
        sound_start: float = 0.0,
    ) -> None:
        self.path = Path(path)
        self.frames = 0  # written so far
        self._fps = exact_rate(fps)
        self._size = (height, width)
        self.metadata = self._begun_with = metadata
        self._format = format or _format_of(path)
        self._write: Write | None = None
        self._stack = ExitStack()
        if self._format not in (*FILMS, "gif", "png"):
            raise MediaError(f"{path} cannot be written as {self._format!r}: use mp4, webm, gif or png.")
        if self._format == "gif" and self._fps > FASTEST_GIF:
            raise MediaError(f"{path} is a GIF, which shows at most 50 frames per second: write an .mp4.")
        pack(metadata, self._fps, 1, 1)
        self._track: Track | None = None
        if sound is not None:
            check_soundtrack(path, self._format, sound, sound_start)
            self._track = partial(soundtrack, format=self._format, sound=sound, start=sound_start)
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
                save(first, np.asarray(picture), note)
            return
        renewed = self._temporary.with_name(f"{self._temporary.name}.renewed")
        renew = renew_gif if self._format == "gif" else partial(renew_film, format=self._format)
        try:
            renew(self._temporary, renewed, note)
            renewed.replace(self._temporary)
        finally:
            renewed.unlink(missing_ok=True)

    @property
    def _name(self) -> str:
        """The pattern of the pictures' names."""
        return self.path.name if self._numbered else "frame-%04d.png"

    def _encoder(self, height: int, width: int) -> AbstractContextManager[Write]:
        note = pack(self._begun_with, self._fps, height, width)
        if self._format == "png":
            return pictures(self._temporary, self._name, note)
        if self._format == "gif":
            return gif(self._temporary, self._fps, height, width, note)
        settings = FILMS[self._format]
        return film(self._temporary, self._format, self._fps, height, width, note, **settings, track=self._track)


def _format_of(path: StrPath) -> str:
    suffix = Path(path).suffix.lower()
    if os.fspath(path).endswith(("/", os.sep)) or (not suffix and Path(path).is_dir()):
        return "png"
    if suffix == ".png" and NUMBERED.search(Path(path).name):
        return "png"
    if suffix[1:] not in (*FILMS, "gif"):
        known = "end it in .mp4, .webm or .gif, or in -%04d.png or / for pictures"
        raise MediaError(f"{path} does not say which kind of video to write: {known}.")
    return suffix[1:]
