"""Who speaks in a picture or a video: where they are seen, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..faces import Faces, face_in, find_faces, follow_faces, smoothed
from ..media.framing import Framing
from ..media.reading import iter_video, probe, read_image
from ..speech.frames import GROUP
from .regions import FaceRegion, ForwardFrames, MaskRegion, Region
from .voices import SILENCE, Voice, read_voice

_HOW = "its box as --face x,y,width,height, or a mask as --mask"
OnFrame = Callable[[int], None]
"""Told after each frame of a video how many have been looked at."""


@dataclass(frozen=True)
class Speaker:
    """Somebody in a video. region: where they are seen; samples: what they say, float32 (n,), 16 kHz, at one loudness,
    as long as that of all others; all zero for one who says nothing."""

    region: Region
    samples: np.ndarray

    def masks(self, frames: range, height: int, width: int) -> np.ndarray:
        """float32 (F, height, width), 0 to 1: the face in frames of that size."""
        return self.region.face(frames, height, width)

    def framed(self, framings: Sequence[Framing]) -> Speaker:
        """As a model sees them: a framing for each frame, the last of which stays."""
        return replace(self, region=self.region.framed(framings))


def read_speakers(
    source: str | Path,
    voices: Sequence[Voice],
    masks: Sequence[str | Path] = (),
    boxes: Sequence[str] = (),
    people: int | None = None,
    fps: float = 25.0,
    on_frame: OnFrame = lambda number: None,
) -> list[Speaker]:
    """Everybody who is to speak in a picture or a video.

    Args:
        source: a picture; or a video, in which faces move.
        voices: one each; SILENCE is that of somebody who keeps their mouth shut.
        masks, boxes: where they are: pictures or videos of the size of `source`, white on black, and "x,y,width,height"
            in pixels, from the hairline to the chin. The first mask is that of the first voice; boxes come after masks.
            None of either: faces are found, the largest has the first voice.
        people: how many they are, if more than the voices: those left are silent. None: as many as voices.
        fps: frames per second of the video that is made.
    Raises: InputError and MediaError, in one sentence, for what cannot be read, does not fit or is not found.
    """
    count = _count(voices, people, len(masks) + len(boxes))
    voices = [*voices, *[SILENCE] * (count - len(voices))]
    sounds = [read_voice(voice) for voice in voices]
    longest = max(map(len, sounds))
    if not longest:
        raise InputError("every voice is silence: give at least one sound, or a text to say.")
    return [
        Speaker(region, np.pad(samples, (0, longest - len(samples))))
        for region, samples in zip(read_regions(source, count, masks, boxes, fps, on_frame), sounds, strict=True)
    ]


def _count(voices: Sequence[Voice], people: int | None, places: int) -> int:
    if not voices:
        raise InputError("there is no voice: give a sound file, or a text to say.")
    if people is not None and people < len(voices):
        raise InputError(f"--people is {people}, but {len(voices)} voices are given; give at least {len(voices)}.")
    count = people or len(voices)
    if places and places != count:
        given = f"{places} mask{'s' * (places > 1)} or box{'es' * (places > 1)}"
        raise InputError(
            f"{given} for {count} voice{'s' * (count > 1)}: give one for each voice; "
            f'"{SILENCE}" is the voice of somebody who says nothing.'
        )
    return count


def read_regions(
    source: str | Path,
    count: int,
    masks: Sequence[str | Path] = (),
    boxes: Sequence[str] = (),
    fps: float = 25.0,
    on_frame: OnFrame = lambda number: None,
) -> list[Region]:
    """Where `count` people are in a picture or a video; arguments and errors are those of `read_speakers`."""
    if masks or boxes:
        height, width = read_image(source).shape[:2]
        painted = [_mask(path, source, (height, width), fps) for path in masks]
        return [*painted, *(_box(box, source, (height, width)) for box in boxes)]
    if probe(source)["fps"] is None:
        picture = read_image(source)
        found = [FaceRegion.still(face, *picture.shape[:2]) for face in find_faces(picture)]
    else:
        faces = followed(source, fps, on_frame)
        found = [FaceRegion(faces, number) for number in range(faces.mesh.shape[1])]
    if not found:
        raise InputError(f"no face is found in {source}: give {_HOW}.")
    if len(found) < count:
        faces_found = "1 face is" if len(found) == 1 else f"{len(found)} faces are"
        raise InputError(f"{count} people are to speak, but {faces_found} found in {source}: give each {_HOW}.")
    return list(found[:count])


def followed(source: str | Path, fps: float, on_frame: OnFrame = lambda number: None) -> Faces:
    """The faces of a video, smoothed, those first who take most of the picture."""
    return smoothed(follow_faces(iter_video(source, fps), fps, lambda number, seen: on_frame(number)))


def _mask(path: str | Path, source: str | Path, size: tuple[int, int], fps: float) -> MaskRegion:
    first = read_image(path)
    if first.shape[:2] != size:
        given, wanted = (f"{one[1]}x{one[0]}" for one in (first.shape, size))
        raise InputError(f"the mask {path} is {given}, but {source} is {wanted}: make it of the same size.")
    # Of a video, whoever comes in later is not seen in the first frame.
    if not any((frame > 127).any() for frame in iter_video(path)):
        raise InputError(f"the mask {path} is empty: paint the face white, and all else black.")
    return MaskRegion(ForwardFrames(path, fps))


def _box(box: str, source: str | Path, size: tuple[int, int]) -> FaceRegion:
    try:
        x, y, width, height = map(float, box.split(","))
    except ValueError:
        raise InputError(
            f"--face {box} is not x,y,width,height: give four numbers of pixels, such as 120,80,200,240."
        ) from None
    if not (0 <= x < x + width <= size[1] and 0 <= y < y + height <= size[0]):
        raise InputError(f"--face {box} is empty or reaches out of {source}, which is {size[1]}x{size[0]}.")
    return FaceRegion.still(face_in(x, y, width, height), *size)


def latent_masks(speakers: Sequence[Speaker], latents: range, height: int, width: int, cell: int = 8) -> np.ndarray:
    """float32 (speakers, F, height / cell, width / cell), 0 to 1: the faces in latent frames, as means over the pixels
    of each cell and the video frames: latent frame 0 is video frame 0, latent frame k the frames 4 k - 3 to 4 k.

    latents: without a gap. height, width: of the video, multiples of `cell`.
    """
    return np.stack([by_latents(speaker.masks, latents, height, width, cell, np.mean) for speaker in speakers])


def by_latents(
    masks: Callable[[range, int, int], np.ndarray],
    latents: range,
    height: int,
    width: int,
    cell: int,
    join: Callable[..., np.ndarray],
) -> np.ndarray:
    """float32 (F, height / cell, width / cell): masks joined over cells and over the video frames of latent frames."""
    result = np.empty((len(latents), height // cell, width // cell), np.float32)
    for i, latent in enumerate(latents):
        frames = masks(range(max(0, GROUP * (latent - 1) + 1), GROUP * latent + 1), height, width)
        result[i] = join(frames.reshape(len(frames), height // cell, cell, width // cell, cell), axis=(0, 2, 4))
    return result
