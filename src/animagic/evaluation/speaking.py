"""The judge of talking people: how far a mouth is seen to open, whether it does so with the sound, and whether the
person stays who they are.

Frames are uint8 (F, H, W, 3). An opening is (F,), in any unit, nan where it is not seen; a curve says how far the sound
opens a mouth, (F,), 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from skimage.color import rgb2lab
from skimage.draw import polygon

from ..faces import Face, Faces, face_mask, head_pose, identity, identity_distance
from ..faces.face import LEFT_EYE, RIGHT_EYE
from ..media import resize
from ..speech import Phone, WhisperEncoder, at_frames, features, mouth_curve, normalised, voiced
from .people import shades

RATE = 16_000
VIEW = 256  # pixels of the shorter side in which faces are looked for
INSIDE = ((66, 16, 24), (196, 84, 92), (246, 242, 234), (131, 50, 58), (150, 120, 125))
"""Colours of the inside of a drawn mouth: dark, tongue, teeth, and what lies between them."""
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
"""Points of Face Mesh: the lips' outline."""
REACH = 5  # frames: how far sound and mouth are shifted against each other
WIDEST = 95  # percentile of an opening that counts as the widest
MOUTH_HEIGHT = 0.22  # of the distance of the eyes, above and below the lips: by a mouth that is wide open
QUIET = 0.15  # of the widest: a mouth that opens less is shut
SETTLED = 3  # frames after a voice until a mouth must be shut, and before it
FEWEST = 5  # frames of silence, from which on it is judged
FRONTAL = 25.0  # degrees
LEAST_SEEN = 0.5  # of the frames, for an opening to be judged

_READOUT = Path(__file__).parent / "weights" / "heard_opening.npy"


@dataclass(frozen=True)
class Heard:
    """What somebody says. samples: float32 (n,), 16 kHz; phones: None where nobody knows them."""

    samples: np.ndarray
    phones: Sequence[Phone] | None = None

    def curve(self, fps: float, frames: int) -> np.ndarray:
        """How far the sound opens a mouth: by its phones, or by `heard_opening`."""
        if self.phones is not None:
            return mouth_curve(self.phones, fps, frames)
        return heard_opening(self.samples, fps, frames)

    def silent(self, fps: float, frames: int) -> np.ndarray:
        """In which frames nobody has spoken for SETTLED frames, nor will: bool (F,)."""
        speaks = np.repeat(voiced(self.samples, RATE), round(RATE / 50))
        edges = (np.arange(frames + 1) * RATE / fps).round().astype(int)
        near = [speaks[max(0, start) : end].any() for start, end in pairwise(edges)]
        return np.convolve(near, np.ones(2 * SETTLED + 1), "same") < 0.5


@dataclass(frozen=True, eq=False)
class Talk:
    """A video of somebody who talks, and what was seen in it.

    boxes: float (F, 4), x, y, width and height of the face in pixels; opening: of the mouth.
    """

    frames: np.ndarray
    fps: float
    heard: Heard
    boxes: np.ndarray
    opening: np.ndarray


SyncScore = Callable[[Talk], dict[str, float]]
"""A measure of how well a face fits a sound: its names and their values. `by_phones` needs no one's weights,
`syncnet.SyncNet` the user's."""


def by_phones(talk: Talk) -> dict[str, float]:
    """`synchrony` with the phones that are known, or with what is heard."""
    r, lag = synchrony(talk.opening, talk.heard.curve(talk.fps, len(talk.frames)))
    return {"sync": r, "offset": float(lag)}


def heard_opening(samples: np.ndarray, fps: float, frames: int) -> np.ndarray:
    """How far a mouth opens with speech whose phones nobody knows: float32 (F,), about 0 to 1.

    A linear reading of the embedded speech encoder's last layer, fitted to synthetic voices whose phones are known
    (benchmarks/heard_opening.py).
    """
    readout = _readout()
    sound = np.pad(normalised(samples, RATE), (0, max(0, round(RATE * frames / fps) - len(samples))))
    found = at_frames(features(WhisperEncoder(), sound), fps, frames)[:, -1].numpy()
    return found @ readout[:-1] + readout[-1]


def opening_by_colour(frames: np.ndarray, faces: Faces, outside: Sequence[Sequence[int]]) -> np.ndarray:
    """How far the mouth of a drawn person is open, (F,), in a unit of its own; nan where no face is seen.

    It is how much in an ellipse around the lips looks like the inside of a mouth: the distance from the colour of skin
    in CIELAB, counted the more the nearer a pixel is to INSIDE than to what lies outside, summed over the ellipse, over
    the lips' width and the distance of the eyes. What blurs a small mouth hardly changes a sum. Lips that are shut have
    a dark line, so that they are not quite 0: see `above_shut`.

    Args:
        frames, faces: of one size; the first face counts.
        outside: RGB of skin, then of lips and beard.
    """
    skin, inside = (rgb2lab(np.array(one)[None] / 255)[0] for one in (outside[:1], INSIDE))
    around = np.concatenate([shades(colour)[1:] for colour in outside])
    circle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    seen = np.full(len(frames), np.nan)
    for i, frame in enumerate(frames):
        face = faces.at(i, 0) if faces.confidence.shape[1] else None
        if face is None:
            continue
        lips = face.mesh[list(LIPS), :2]
        eyes = float(np.linalg.norm(face.mesh[RIGHT_EYE[0]] - face.mesh[LEFT_EYE[0]]))
        wide, (x, y) = max(1.0, 1.05 * float(np.ptp(lips[:, 0])) / 2), lips.mean(0)
        where = polygon(y + MOUTH_HEIGHT * eyes * np.sin(circle), x + wide * np.cos(circle), frame.shape[:2])
        lab = rgb2lab(frame[where][:, None] / 255)
        apart, near, far = (np.linalg.norm(lab - of, axis=-1).min(1) for of in (skin, inside, around))
        total = (apart * far / np.maximum(near + far, 1e-6)).sum()
        seen[i] = total / (100 * wide * max(1.0, eyes)) if len(apart) else np.nan
    return seen


def viewed(frames: np.ndarray) -> np.ndarray:
    """Frames as faces are looked for in them: so large that small ones are found, too."""
    height, width = frames.shape[1:3]
    scale = VIEW / min(height, width)
    return resize(frames, round(height * scale), round(width * scale), "stretch")


def only(faces: Faces, place: tuple[float, float]) -> Faces:
    """Of the faces of a video the one that is nearest to a place, x and y in shares of the frame; none if all are
    farther away than they are wide."""
    count, best = faces.confidence.shape[1], None
    nearest = np.inf
    for face in range(count):
        boxes = faces.box[faces.confidence[:, face] > 0, face]
        x, y, width, height = np.median(boxes, 0)
        apart = np.hypot(x + width / 2 - place[0] * faces.width, y + height / 2 - place[1] * faces.height)
        if apart < min(nearest, max(width, height)):
            nearest, best = apart, face
    chosen = [] if best is None else [best]
    return replace(faces, mesh=faces.mesh[:, chosen], confidence=faces.confidence[:, chosen])


def above_shut(opening: np.ndarray, shut: float) -> np.ndarray:
    """An opening, less what is seen of a mouth that is shut, in the picture that the video began from."""
    return (opening - shut).clip(0)


@cache
def _readout() -> np.ndarray:
    """float32 (385,): a weight a channel, and what is added."""
    return np.load(_READOUT)


def synchrony(opening: np.ndarray, curve: np.ndarray, reach: int = REACH) -> tuple[float, int]:
    """(Correlation of an opening with a curve at the shift that fits best, that shift in frames).

    The shift is positive where the mouth comes after the sound. A mouth that does not move, or is not seen in at least
    half of the frames, has correlation 0.
    """
    best = (0.0, 0)
    for lag in sorted(range(-reach, reach + 1), key=abs):
        seen = opening[max(0, lag) : len(opening) + min(0, lag)]
        heard = curve[max(0, -lag) : len(curve) - max(0, lag)]
        known = np.isfinite(seen)
        if known.mean() >= LEAST_SEEN and min(np.std(seen[known]), np.std(heard[known])) > 1e-6:
            found = float(np.corrcoef(seen[known], heard[known])[0, 1])
            best = max(best, (found, lag), key=lambda one: one[0])
    return best


def widest(opening: np.ndarray) -> float:
    """How far a person's mouth opens where it opens most; nan where it is never seen."""
    return float(np.nanpercentile(opening, WIDEST)) if np.isfinite(opening).any() else float("nan")


def share_open(opening: np.ndarray, where: np.ndarray, wide: float | None = None) -> float:
    """The share of the frames `where`, bool (F,), in which a mouth is open: by more than QUIET of `wide`, which is its
    own `widest` if None. nan where there are fewer than FEWEST such frames."""
    wide = widest(opening) if wide is None else wide
    some = opening[where & np.isfinite(opening)]
    return float((some > QUIET * wide).mean()) if len(some) >= FEWEST else float("nan")


def identity_distances(frames: np.ndarray, faces: Faces, photo: np.ndarray, face: Face) -> np.ndarray:
    """How far the first face of each frame is from the one in a photo, (F,), as `animagic.faces.identity_distance`; nan
    where it is not seen, or looks more than FRONTAL degrees aside, which the network does not forgive."""
    distances, first = np.full(len(frames), np.nan), identity(photo, face)
    for i, frame in enumerate(frames):
        seen = faces.at(i, 0) if faces.confidence.shape[1] else None
        if seen is not None and abs(head_pose(seen)[0] - head_pose(replace(face, confidence=1.0))[0]) <= FRONTAL:
            distances[i] = identity_distance(first, identity(frame, seen))
    return distances


def drift(distances: np.ndarray, fps: float) -> float:
    """The distances in the last four seconds over those in the first four, medians; nan where there are none."""
    count = max(1, round(4 * fps))
    early, late = distances[:count], distances[-count:]
    if not (np.isfinite(early).any() and np.isfinite(late).any()):
        return float("nan")
    return float(np.nanmedian(late) / max(np.nanmedian(early), 1e-6))


def colour_distance(frames: np.ndarray, faces: Faces, photo: np.ndarray, where: np.ndarray) -> float:
    """How far the colours of a face have gone from those in a photo, CIELAB, mean over the frames: the distance of ten
    quantiles of each channel. where: bool (H, W), the face in the photo, and in a frame in which it is not found."""
    distances, before = [], _spread(photo[where])
    for i, frame in enumerate(frames):
        face = faces.at(i, 0) if faces.confidence.shape[1] else None
        now = where if face is None else face_mask(face, frame.shape[0], frame.shape[1], 0.0, 0.0) > 0.5
        distances.append(np.linalg.norm(_spread(frame[now]) - before, axis=-1).mean())
    return float(np.mean(distances))


def _spread(pixels: np.ndarray) -> np.ndarray:
    return np.quantile(rgb2lab(pixels[None] / 255)[0], np.linspace(0.05, 0.95, 10), axis=0)


def jerk(frames: np.ndarray) -> float:
    """How unevenly a video moves: its change of change from frame to frame over its change: 0 for what glides, 1.7 for
    noise. Outlines, which a pixel meets but for a frame, come near to noise: compare with a true video."""
    video = frames.astype(np.float32)
    first, second = (np.abs(np.diff(video, order, axis=0)).mean() for order in (1, 2))
    return float(second / max(first, 1e-6))
