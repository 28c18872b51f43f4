"""A video that speaks with another voice: what a model sees of it, and what it makes put back, mouths alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..errors import InputError
from ..media.framing import Framing
from ..media.reading import count_frames, read_image
from ..tracking import gaps
from .regions import ForwardFrames
from .speakers import Speaker, by_latents

_ROOM = 0.6  # around a face, as a share of its longer side: portraits show so much
_STEADY = 1.5  # times the size that one frame needs: up to there one box serves all frames
_SECONDS = 0.5  # standard deviation in time of a box that moves
_LEAST = 0.01  # of a mask: less is not seen
_FADE = 4  # frames in which a made mouth appears where a face does
_RING = 0.2  # of the mouth's size: how far around it colours are compared
_GAINS = 0.8, 1.25  # more contrast than that is not the same picture in another tone
_OTHER_THING = 48  # levels: what differs by more does not tell the tone


class Dub:
    """A video whose mouths are made anew, while everything else stays as it is.

    The model sees one box of the video with all speakers in it, which does not move unless they go far: people far
    from each other are seen larger, and dubbed better, one by one. The video is read frame by frame, twice, and never
    held in memory; of every face its meshes are, some 25 kB a frame.

    Args:
        source: the video.
        speakers: as `read_speakers` finds them in it.
        fps: frames per second of the video that is made.
        height, width: of what the model sees, in pixels.
    Attributes:
        frames: how many there are.
        framings: the box of every frame; a single one where it stands still.
        speakers: as the model sees them.
        empty: seconds (from, to) in which nobody is seen: there the video stays as it is.
    Raises: InputError if nobody is seen at all, MediaError for a video that cannot be read.
    """

    def __init__(self, source: str | Path, speakers: Sequence[Speaker], fps: float, height: int, width: int) -> None:
        self.frames = count_frames(source, fps)
        self.size = read_image(source).shape[:2]
        self._given = list(speakers)
        each = [speaker.region.boxes(range(self.frames)) for speaker in speakers]
        self._shares = [_shares(np.isfinite(boxes[:, 0])) for boxes in each]
        boxes = _around(each)
        seen = np.isfinite(boxes[:, 0])
        if not seen.any():
            raise InputError(f"{source} shows nobody in its {self.frames / fps:.1f} seconds; give another video.")
        self.empty = gaps(seen, fps)
        self.framings = _framings(_filled(boxes, seen), self.size, (height, width), _SECONDS * fps)
        self.speakers = [speaker.framed(self.framings) for speaker in speakers]
        self._target = (height, width)
        self._originals, self._seen = ForwardFrames(source, fps), ForwardFrames(source, fps)

    def shown(self, frames: range) -> np.ndarray:
        """What the model sees of frames, uint8 (F, height, width, 3). Going back costs reading the video anew."""
        return np.concatenate([self._framing(number).into(self._seen[range(number, number + 1)]) for number in frames])

    def known(self, latents: range, cell: int = 8) -> np.ndarray:
        """float32 (F, height / cell, width / cell): 1 where a latent frame is to stay as it is, 0 where a mouth is
        seen in any of its video frames; those are as in `latent_masks`."""
        made = [by_latents(one.region.mouth, latents, *self._target, cell, np.max) for one in self.speakers]
        return (np.max(made, axis=0) < _LEAST).astype(np.float32)

    def put_back(self, made: np.ndarray, start: int, video: np.ndarray | None = None) -> np.ndarray:
        """The video with the mouths that a model made, and all else to the bit as it was.

        Args:
            made: uint8 (F, height, width, 3), from number `start` on. Going back costs reading the video anew.
            video: the same frames of the video, if some have been put back already, as of people who are dubbed one by
                one; None: they are read.
        Returns: uint8 (F, H, W, 3), in the video's size.
        """
        frames = range(start, start + len(made))
        result = self._originals[frames] if video is None else video.copy()
        for picture, frame, number in zip(result, made, frames, strict=True):
            framing = self._framing(number)
            rows, columns = framing.part
            part, new = picture[rows, columns], None
            for speaker, shares in zip(self._given, self._shares, strict=True):
                mouth = speaker.region.mouth(range(number, number + 1), *self.size)[0, rows, columns]
                mouth = mouth * shares[min(number, self.frames - 1)]
                if (mouth >= _LEAST).any():
                    new = framing.unscaled(frame) if new is None else new
                    _paste(new, part, mouth)
        return result

    def _framing(self, number: int) -> Framing:
        return self.framings[min(number, len(self.framings) - 1)]


def _paste(new: np.ndarray, picture: np.ndarray, mouth: np.ndarray) -> None:
    """Put the mouth of a frame into the picture, in its colours: those around the mouth get its mean and spread."""
    size = float(mouth.sum() ** 0.5)
    reach = int(np.ceil(3 * _RING * size))
    y, x = np.nonzero(mouth)
    near = np.s_[max(0, y.min() - reach) : y.max() + reach + 1, max(0, x.min() - reach) : x.max() + reach + 1]
    mouth, old, frame = mouth[near], picture[near].astype(np.float32), new[near].astype(np.float32)
    wide = Image.fromarray((mouth * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(_RING * size))
    ring = np.asarray(wide, np.float32) * (1 - mouth) * (np.abs(old - frame).max(-1) < _OTHER_THING)
    if ring.sum() > 0:
        (mean, spread), (wanted, wanted_spread) = _tone(frame, ring), _tone(old, ring)
        frame = (frame - mean) * (wanted_spread / spread).clip(*_GAINS) + wanted
    blended = old + (frame.clip(0, 255) - old) * mouth[..., None]
    picture[near] = np.where(mouth[..., None] > 0, blended.round(), old)


def _tone(frame: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (3,) each, of colours (height, width, 3)."""
    mean = np.average(frame, (0, 1), np.broadcast_to(weights[..., None], frame.shape))
    variance = np.average((frame - mean) ** 2, (0, 1), np.broadcast_to(weights[..., None], frame.shape))
    return mean, np.sqrt(variance).clip(min=1)


def _shares(seen: np.ndarray) -> np.ndarray:
    """(frames,), 0 to 1: how much of a made mouth is shown: where a face comes or goes it is faded in and out."""
    shares = seen.astype(np.float32)
    for away in range(1, _FADE):
        near = np.pad(seen, away, "edge")
        shares = np.minimum(shares, np.maximum(near[2 * away :] & near[: -2 * away], away / _FADE))
    return shares


def _around(boxes: Sequence[np.ndarray]) -> np.ndarray:
    """(frames, 4): the box around several people, each with room; nan where nobody is seen. boxes: (frames, 4) each."""
    room = [_ROOM * np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])[:, None] for box in boxes]
    low = np.fmin.reduce([box[:, :2] - space for box, space in zip(boxes, room, strict=True)])
    high = np.fmax.reduce([box[:, 2:] + space for box, space in zip(boxes, room, strict=True)])
    return np.concatenate([low, high], 1)


def _filled(boxes: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The boxes, with those of frames in which nobody is seen between the ones before and after."""
    numbers, there = np.arange(len(boxes)), np.flatnonzero(seen)
    return np.stack([np.interp(numbers, there, side[there]) for side in boxes.T], 1)


def _framings(boxes: np.ndarray, source: tuple[int, int], target: tuple[int, int], sigma: float) -> tuple[Framing, ...]:
    """One framing that holds all boxes (frames, 4), or one a frame, all of one size, where people go far."""
    picture = np.array([source[1], source[0]], float)
    whole = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(0)
    if (whole[2:] - whole[:2]).max() <= _STEADY * sides.max():
        return (Framing.around(tuple(whole), source, target, margin=0),)
    half = np.minimum(sides, picture) / 2
    middles = _smooth((boxes[:, :2] + boxes[:, 2:]) / 2, sigma).clip(half, picture - half)
    return tuple(Framing.around((*(at - half), *(at + half)), source, target, margin=0) for at in middles)


def _smooth(points: np.ndarray, sigma: float) -> np.ndarray:
    """Points (frames, 2) as weighted means over time; at the ends the last is repeated."""
    reach = max(1, round(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(points, ((reach, reach), (0, 0)), "edge")
    return np.stack([np.convolve(side, weights / weights.sum(), "valid") for side in padded.T], 1)
