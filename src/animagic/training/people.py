"""People of the studio as training data: a picture of a person, and clips of that person doing something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import InputError
from ..poses import PART_COLOURS, draw_parts, draw_skeleton
from ..synthetic.people import PersonClip, render_person, sample_motion, sample_person, sample_view


@dataclass(eq=False)
class PeopleBatches(Dataset):
    """Clips of people that the studio draws; item `step` is a whole batch.

    Args:
        batch_size: clips. num_frames, fps, height, width: of a clip.
        pose: what pose pictures show: "parts" or "skeleton".
        exact_share: of the clips whose part maps are exact; those of the others are drawn from the joints, as they are
            for a video in which somebody's pose was found.
        held_out: people and motions that are never seen in training.

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
    pose: str = "parts"
    exact_share: float = 0.5
    held_out: bool = False

    def __post_init__(self):
        if self.pose not in ("parts", "skeleton"):
            raise InputError(f"pose is {self.pose!r}; choose parts or skeleton.")

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        clips = [self._clip(rng) for _ in range(self.batch_size)]
        photos, videos, poses = (torch.from_numpy(np.stack(one)) for one in zip(*clips, strict=True))
        return {
            "photo": photos.permute(0, 3, 1, 2),
            "video": videos.permute(0, 4, 1, 2, 3),
            "poses": poses.permute(0, 4, 1, 2, 3),
            "index": step,
        }

    def _clip(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        person = sample_person(rng, held_out=self.held_out)
        size = (self.height, self.width)
        # The photo is taken from where the clip is filmed.
        view = sample_view(rng)
        clip = render_person(person, sample_motion(rng, held_out=self.held_out), view, self.num_frames, *size, self.fps)
        photo = render_person(person, sample_motion(rng, held_out=self.held_out), view, 1, *size, self.fps)
        return photo.frames[0], clip.frames, pose_pictures(clip, self.pose, rng.random() < self.exact_share)


def pose_pictures(clip: PersonClip, pose: str, exact: bool) -> np.ndarray:
    """What the ControlNet is given of a clip of the studio, uint8 (frames, height, width, 3).

    pose: "parts" or "skeleton". exact: the studio's own map of parts, not one that is drawn from the joints.
    """
    size = clip.frames.shape[1:3]
    if pose == "skeleton":
        return draw_skeleton(clip.poses, *size)
    return PART_COLOURS[clip.parts] if exact else draw_parts(clip.poses, *size)
