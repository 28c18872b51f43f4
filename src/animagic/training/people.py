"""People of the studio as training data: a picture of a person, and clips of that person doing something else."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import InputError
from ..media import atomic_path
from ..poses import PART_COLOURS, draw_skeleton, part_map
from ..synthetic.people import PersonClip, render_person, sample_motion, sample_person, sample_view


@dataclass(frozen=True)
class Taken:
    """A picture of a person, uint8 (height, width, 3), and a clip: frames uint8 (F, height, width, 3), and what is
    given of its poses, uint8: numbers of body parts (F, height, width) or pictures (F, height, width, 3)."""

    photo: np.ndarray
    frames: np.ndarray
    poses: np.ndarray

    def pose_pictures(self, frames: list[int]) -> np.ndarray:
        """As the ControlNet reads them, uint8 (frames, height, width, 3)."""
        return PART_COLOURS[self.poses[frames]] if self.poses.ndim == 3 else self.poses[frames]


@dataclass(eq=False)
class PeopleBatches(Dataset):
    """Clips of people that the studio draws; item `step` is a whole batch.

    Args:
        batch_size: clips. num_frames, fps, height, width: of a clip.
        take: so many of a clip's frames, chosen at random; None: all of them, in a row.
        pose: what pose pictures show: "parts" or "skeleton".
        exact_share: of the clips whose part maps are exact; those of the others are drawn from the joints, as they are
            for a video in which somebody's pose was found.
        held_out: people and motions that are never seen in training.
        folder: where clips are kept, to be used again; drawing takes longer than reading. None: each is used once.
        clips: in the folder in the end. begin: at the first step; then one more every step.

    Items: {"photo": uint8 (clips, 3, height, width), "video", "poses": uint8 (clips, 3, frames, height, width),
    "index": int}. The photo is a frame of the same person in another motion, before the same background.
    """

    seed: int
    steps: int
    batch_size: int = 4
    num_frames: int = 16
    fps: float = 12
    height: int = 128
    width: int = 128
    take: int | None = None
    pose: str = "parts"
    exact_share: float = 0.5
    held_out: bool = False
    folder: str | None = None
    clips: int = 6000
    begin: int = 400

    def __post_init__(self):
        if self.pose not in ("parts", "skeleton"):
            raise InputError(f"pose is {self.pose!r}; choose parts or skeleton.")
        if self.take is not None and not 1 <= self.take <= self.num_frames:
            raise InputError(f"take is {self.take}; clips have {self.num_frames} frames.")

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        photos, videos, poses = [], [], []
        for i in range(self.batch_size):
            clip = self._clip(step, i, rng)
            frames = list(range(len(clip.frames)))
            if self.take is not None:
                frames = sorted(rng.permutation(len(frames))[: self.take].tolist())
            photos.append(clip.photo)
            videos.append(clip.frames[frames])
            poses.append(clip.pose_pictures(frames))
        return {
            "photo": torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2),
            "video": torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3),
            "poses": torch.from_numpy(np.stack(poses)).permute(0, 4, 1, 2, 3),
            "index": step,
        }

    def _clip(self, step: int, i: int, rng: np.random.Generator) -> Taken:
        if self.folder is None:
            return self._drawn((self.seed, step, i))
        number = int(rng.integers(min(self.clips, self.begin + step)))
        size = f"{self.width}x{self.height}x{self.num_frames}-{self.fps:g}-{self.pose}-{self.exact_share:g}"
        path = Path(self.folder) / f"{size}{'-held-out' if self.held_out else ''}" / f"{number}.clip"
        if path.is_file():
            with np.load(io.BytesIO(zlib.decompress(path.read_bytes()))) as kept:
                return Taken(**kept)
        made = self._drawn((number,))
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez(packed, **vars(made))
        with atomic_path(path) as temporary:
            temporary.write_bytes(zlib.compress(packed.getvalue(), 1))
        return made

    def _drawn(self, seed: tuple[int, ...]) -> Taken:
        rng = np.random.default_rng(seed)
        person, view, size = sample_person(rng, held_out=self.held_out), sample_view(rng), (self.height, self.width)
        motions = [sample_motion(rng, held_out=self.held_out) for _ in range(2)]
        clip = render_person(person, motions[0], view, self.num_frames, *size, self.fps)
        # The photo is taken from where the clip is filmed, before the same background.
        photo = render_person(person, motions[1], view, 1, *size, self.fps)
        return Taken(photo.frames[0], clip.frames, poses_of(clip, self.pose, rng.random() < self.exact_share))


def poses_of(clip: PersonClip, pose: str, exact: bool) -> np.ndarray:
    """What is given of the poses in a clip of the studio, as `Taken` has it.

    pose: "parts" or "skeleton". exact: the studio's own map of parts, not one that is drawn from the joints.
    """
    size = clip.frames.shape[1:3]
    if pose == "skeleton":
        return draw_skeleton(clip.poses, *size)
    return clip.parts if exact else part_map(clip.poses, *size)
