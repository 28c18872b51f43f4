"""Videos of people as training data: films, or numbered pictures as the TikTok data set keeps them. Poses are found
once and kept.

Source of the layout: Jafarian and Park, "Learning High Fidelity Depths of Dressed Humans by Watching Social Media Dance
Videos" (CVPR 2021): NAME/images/0001.png, NAME/densepose/0001.png; NAME/masks is not needed here.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import Dataset

from ..errors import InputError, MediaError
from ..media import Framing, atomic_path, iter_video, probe, read_image
from ..poses import (
    LANDMARKS,
    PART_COLOURS,
    PARTS,
    Poses,
    draw_skeleton,
    extract_poses,
    from_json,
    part_map,
    smoothed,
    to_json,
)
from .videos import SUFFIXES

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_PICTURES_FPS = 30.0  # of the TikTok data set
_SEEN = 0.3  # of the confidence: landmarks by which a person's place is judged
_HEAD = 0.08  # of the body's height, above the topmost landmark
_NEAR = 24  # of 255, to a colour of DensePose
_MOSTLY = 0.9  # of the pixels of a picture in these colours


def _swapped(names: tuple[str, ...]) -> np.ndarray:
    """Of each name the place of the one with left and right exchanged."""
    other = {"left": "right", "right": "left"}
    return np.array([names.index(re.sub("left|right", lambda match: other[match[0]], name)) for name in names])


_LANDMARKS_SWAPPED, _PARTS_SWAPPED = _swapped(LANDMARKS), _swapped(PARTS).astype(np.uint8)


@dataclass(frozen=True)
class PersonVideo:
    """A video of a person. name: by which it is sorted. path: a film, or the folder of its `pictures`; densepose: the
    pictures of body parts, one for each."""

    name: str
    path: Path
    pictures: tuple[Path, ...] = ()
    densepose: tuple[Path, ...] = ()

    def facts(self) -> tuple[int, float]:
        """Frames, and frames per second. Raises MediaError."""
        if self.pictures:
            return len(self.pictures), _PICTURES_FPS
        facts = probe(self.path)
        return facts["frames"], facts["fps"] or _PICTURES_FPS

    def read(self, numbers: list[int]) -> np.ndarray:
        """These frames, uint8 (frames, height, width, 3). Raises MediaError."""
        if self.pictures:
            found = {number: read_image(self.pictures[number]) for number in set(numbers)}
        else:
            with closing(iter_video(self.path)) as frames:  # type: ignore[type-var] # it is a generator
                every = enumerate(islice(frames, max(numbers) + 1))
                found = {number: frame for number, frame in every if number in numbers}
        if missing := sorted(set(numbers) - found.keys()):
            raise MediaError(f"{self.path} ends before frame {missing[0]}.")
        if len({frame.shape for frame in found.values()}) > 1:
            raise MediaError(f"{self.path} holds pictures of different sizes: make them equal.")
        return np.stack([found[number] for number in numbers])

    def key(self) -> str:
        """Another one for another video, or one that has been changed."""
        files = self.pictures or (self.path,)
        facts = [(self.name, *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files))]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def find_person_videos(source: str | Path) -> list[PersonVideo]:
    """The videos in a folder and the folders inside it, sorted by name, or the one film. None is opened yet.

    Films are files; numbered pictures lie in NAME/images or in NAME, and pictures of body parts of the same names, in
    DensePose's colours, in NAME/densepose: frames without one are then left out.

    Raises: InputError if there is no such folder, or no video in it.
    """
    root = Path(source)
    if root.is_file() and root.suffix.lower() in SUFFIXES:
        return [PersonVideo(root.stem, root)]
    if not root.is_dir():
        raise InputError(
            f"{root} is no source of videos of people; give a folder with video files or numbered pictures."
        )
    found = []
    for path in (root, *root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            found.append(PersonVideo(name, path))
        elif path.is_dir() and path.name not in ("masks", "densepose") and (pictures := _numbered(path)):
            parts = _numbered(path.parent / "densepose") if path.name == "images" else {}
            both = sorted(pictures.keys() & parts.keys() or pictures.keys())
            densepose = tuple(parts[number] for number in both) if parts.keys() & pictures.keys() else ()
            found.append(PersonVideo(name, path, tuple(pictures[number] for number in both), densepose))
    if not found:
        raise InputError(
            f"{root} holds no videos of people; give video files ({', '.join(SUFFIXES)}) or numbered pictures "
            "(NAME/images/0001.png)."
        )
    return sorted(found, key=lambda video: video.name)


def _numbered(folder: Path) -> dict[int, Path]:
    """The pictures in a folder whose names are numbers."""
    files = folder.iterdir() if folder.is_dir() else ()
    return {int(f.stem): f for f in files if f.suffix.lower() in PICTURES and f.stem.isdecimal()}


@dataclass(eq=False)
class PersonVideos(Dataset):
    """Clips cut out of videos of people, each with another frame of its video as the photo; item `step` is a batch.

    Args:
        source: see `find_person_videos`.
        batch_size: clips. num_frames, height, width: of a clip.
        fps: frames per second of a clip: those nearest in time are taken; None: every `sample_stride`-th of the video.
        take: so many of a clip's frames, chosen at random; None: all of them, in a row.
        pose: what pose pictures show: "parts" or "skeleton".
        folder: where found poses are kept, one JSON file for each video; to look for them takes longer than a training
            step, so it is done once. Nothing is ever written beside the videos.
        people: how many are drawn in the pose pictures, those who take most of the video first.
        crop: "person": what is seen lies around the person; "centre": the middle of the frame.
        mirror: share of the clips that are mirrored, so that left is right.

    Items: {"photo": uint8 (clips, 3, height, width), "video", "poses": uint8 (clips, 3, frames, height, width),
    "index": int}.

    A video that is too short, cannot be read, or shows nobody for so long is passed over, and the next one by name
    taken; a warning at the end says how many these were.
    Raises: InputError for a wrong source or number; when a batch is drawn, if no video at all can be used, or a file of
    poses is damaged.
    """

    source: str | Path
    seed: int
    steps: int
    batch_size: int = 1
    num_frames: int = 16
    fps: float | None = None
    sample_stride: int = 1
    height: int = 512
    width: int = 512
    take: int | None = None
    pose: str = "parts"
    folder: str | Path = "runs/poses"
    people: int = 1
    crop: str = "person"
    mirror: float = 0.5

    def __post_init__(self):
        for name in ("steps", "batch_size", "num_frames", "sample_stride", "height", "width", "people"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name, known in (("pose", ("parts", "skeleton")), ("crop", ("person", "centre"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(known)}.")
        if self.take is not None and not 1 <= self.take <= self.num_frames:
            raise InputError(f"take is {self.take}; clips have {self.num_frames} frames.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"fps is {self.fps}; give frames per second, above 0.")
        if not 0 <= self.mirror <= 1:
            raise InputError(f"mirror is {self.mirror}; give a share of the clips, 0 to 1.")
        self.videos = find_person_videos(self.source)
        # In memory that the loader's processes share: none of them tries a video twice, and the last one knows all.
        self._unusable = torch.zeros(len(self.videos), dtype=torch.bool).share_memory_()

    @property
    def skipped(self) -> list[str]:
        """The videos that turned out to be of no use so far."""
        return [str(self.videos[i].path) for i in self._unusable.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, step))
        clips = [
            self._clip(int(rng.integers(len(self.videos))), rng.random(3), rng.permutation(self.num_frames))
            for _ in range(self.batch_size)
        ]
        if step == self.steps - 1 and (skipped := self.skipped):
            warnings.warn(
                f"{len(skipped)} of {len(self.videos)} videos were passed over: too short, unreadable, or without a "
                f"person for so long; the first is {skipped[0]}.",
                stacklevel=2,
            )
        photos, videos, poses = (torch.from_numpy(np.stack(one)) for one in zip(*clips, strict=True))
        return {
            "photo": photos.permute(0, 3, 1, 2).contiguous(),
            "video": videos.permute(0, 4, 1, 2, 3).contiguous(),
            "poses": poses.permute(0, 4, 1, 2, 3).contiguous(),
            "index": step,
        }

    def _clip(self, first: int, drawn: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Photo, frames and pose pictures of the first usable video from number `first` on."""
        for i in range(first, first + len(self.videos)):
            index = i % len(self.videos)
            if self._unusable[index]:
                continue
            try:
                return self._cut(self.videos[index], drawn, order)
            except MediaError:
                self._unusable[index] = True
        try:
            return self._cut(self.videos[0], drawn, order)
        except MediaError as error:
            raise InputError(
                f"none of the {len(self.videos)} videos of {self.source} can be used; the first: {error}"
            ) from error

    def _cut(
        self, video: PersonVideo, drawn: np.ndarray, order: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """drawn: where the clip begins, which frame is the photo, whether it is mirrored, each 0..1. order: of the
        clip's frames, for those that are taken. Raises MediaError for a video that cannot be used."""
        given = self.pose == "parts" and bool(video.densepose) and _is_densepose(video.densepose[0])
        poses = None if given else poses_of(video, self.folder, self.people)
        total, fps = video.facts() if poses is None else (len(poses.points), poses.fps)
        seen = np.ones(total, bool) if poses is None else np.any(poses.confidence > _SEEN, (1, 2))
        every = self.sample_stride if self.fps is None else fps / self.fps
        offsets = np.round(np.arange(self.num_frames) * every).astype(int)
        if total < max(int(offsets[-1]) + 1, 2):
            needed = max(int(offsets[-1]) + 1, 2)
            raise MediaError(f"{video.path} has {total} frames, but {needed} are needed: give longer videos.")
        # Of all beginnings, those from where on the person is seen in every frame of the clip.
        begins = np.flatnonzero(np.all(seen[np.arange(total - offsets[-1])[:, None] + offsets], 1))
        if not len(begins):
            raise MediaError(f"nobody is seen in {video.path} for as long as a clip takes: give other videos.")
        clip = begins[int(drawn[0] * len(begins))] + offsets
        others = np.setdiff1d(np.flatnonzero(seen), clip)
        others = others if len(others) else clip
        if self.take is not None:
            clip = clip[np.sort(order[: self.take])]
        numbers = [*clip.tolist(), int(others[int(drawn[1] * len(others))])]
        frames = video.read(numbers)
        size, mirrored = (self.height, self.width), bool(drawn[2] < self.mirror)
        if poses is None:
            parts = np.stack([_labels(read_image(video.densepose[number])) for number in numbers])
            if parts.shape != frames.shape[:3]:
                raise MediaError(f"the pictures in {video.densepose[0].parent} have another size than the frames.")
            framing = self._framing(_box_of_parts(parts), frames.shape[1:3])
            parts = _sampled(parts, framing)[:-1]
            shown = PART_COLOURS[_PARTS_SWAPPED[parts[:, :, ::-1]] if mirrored else parts]
        else:
            chosen = replace(poses, points=poses.points[numbers], confidence=poses.confidence[numbers])
            framing = self._framing(_box_of_points(chosen), frames.shape[1:3])
            points = framing.map_points(chosen.points[:-1]).astype(np.float32)
            placed = Poses(points, chosen.confidence[:-1], *size, chosen.fps)
            placed = mirrored_poses(placed) if mirrored else placed
            shown = PART_COLOURS[part_map(placed, *size)] if self.pose == "parts" else draw_skeleton(placed, *size)
        pictures = framing.into(frames)
        pictures = pictures[:, :, ::-1] if mirrored else pictures
        return pictures[-1], pictures[:-1], shown

    def _framing(self, box: tuple[float, float, float, float] | None, source: tuple[int, int]) -> Framing:
        size = (self.height, self.width)
        if self.crop == "person" and box is not None:
            try:
                return Framing.around(box, source, size)
            except InputError:  # a person who has left the picture
                pass
        return Framing.crop(source, size)


def poses_of(video: PersonVideo, folder: str | Path, people: int = 1) -> Poses:
    """The poses of the largest people in a video, smoothed; those of all are kept in a folder, and looked for only if
    they are not there. Of several processes one looks, the others wait.

    Raises: MediaError for a video that cannot be read, InputError for a file of poses that cannot.
    """
    try:
        path = Path(folder) / f"{video.name.replace('/', '-')}-{video.key()}.json"
    except OSError as error:
        raise MediaError(f"{video.path} cannot be read ({error.strerror}).") from error
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"poses cannot be kept in {folder} ({error.strerror}); name another folder.") from error
        lock = path.with_suffix(".lock")
        with FileLock(lock):  # the system frees it when the process dies
            if not path.is_file():
                with atomic_path(path) as temporary:
                    temporary.write_text(to_json(_found(video)), "utf-8")
            lock.unlink(missing_ok=True)
    poses = _kept(path)
    return replace(poses, points=poses.points[:, :people], confidence=poses.confidence[:, :people])


def _found(video: PersonVideo) -> Poses:
    frames = map(read_image, video.pictures) if video.pictures else iter_video(video.path)
    try:
        return smoothed(extract_poses(frames, video.facts()[1]))
    except InputError as error:  # frames of different sizes
        raise MediaError(f"{video.path}: {error}") from error


@lru_cache(maxsize=64)
def _kept(path: Path) -> Poses:
    return from_json(path.read_text("utf-8"), str(path))


def mirrored_poses(poses: Poses) -> Poses:
    """The poses in the mirrored picture: what was the left hand is the right one, on the other side."""
    points = poses.points[..., _LANDMARKS_SWAPPED, :].copy()
    points[..., 0] = poses.width - points[..., 0]
    return replace(poses, points=points, confidence=poses.confidence[..., _LANDMARKS_SWAPPED])


def _box_of_points(poses: Poses) -> tuple[float, float, float, float] | None:
    """(left, top, right, bottom): where everybody is, in all frames; None: nobody is there."""
    points = poses.points[poses.confidence > _SEEN][:, :2]
    if not len(points):
        return None
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return float(left), float(top - _HEAD * (bottom - top)), float(right), float(bottom)


def _box_of_parts(parts: np.ndarray) -> tuple[float, float, float, float] | None:
    rows, columns = np.flatnonzero(parts.any((0, 2))), np.flatnonzero(parts.any((0, 1)))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _labels(picture: np.ndarray) -> np.ndarray:
    """The part whose colour each pixel of a DensePose picture, uint8 (height, width, 3), comes nearest to."""
    return _nearest(picture)[0]


def _nearest(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel the part, uint8 (height, width), and how far its colour is from that of the part; black is
    background, too."""
    packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    unique, where = np.unique(packed, return_inverse=True)
    colours = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], -1)
    known = np.concatenate([PART_COLOURS, np.zeros((1, 3), np.uint8)]).astype(np.int32)
    distances = np.stack([np.abs(colours - one).max(-1) for one in known])
    nearest = (distances.argmin(0) % len(PART_COLOURS)).astype(np.uint8)
    return nearest[where].reshape(packed.shape), distances.min(0)[where].reshape(packed.shape)


@lru_cache(maxsize=1024)
def _is_densepose(path: Path) -> bool:
    """Whether a picture has the colours of a DensePose video; others draw parts in other colours."""
    return float((_nearest(read_image(path))[1] <= _NEAR).mean()) >= _MOSTLY


def _sampled(parts: np.ndarray, framing: Framing) -> np.ndarray:
    """Part maps (frames, H, W) as a model sees them, (frames, height, width): numbers cannot be averaged."""
    left, top, right, bottom = framing.box
    (height, width), (high, wide) = framing.target, parts.shape[1:]
    rows = np.floor(top + (np.arange(height) + 0.5) * (bottom - top) / height).astype(int).clip(0, high - 1)
    columns = np.floor(left + (np.arange(width) + 0.5) * (right - left) / width).astype(int).clip(0, wide - 1)
    return parts[:, rows[:, None], columns]
