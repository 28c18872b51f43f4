"""Requests for MagicAnimate."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import InputError
from ...media import resize
from ...media.frames import beside, size_like
from ...media.framing import Framing
from ...pipelines.drift import Drift
from ...pipelines.job import Job
from ...pipelines.poses import largest, pose_in
from ...poses import retargeted
from .poses import DrawnPoses, Driving, GivenPoses, box_of, framed, read_driving


class MagicAnimateJob(Job):
    """A request for a person who moves as in a video."""

    picture: np.ndarray
    poses: DrawnPoses | GivenPoses
    framing: Framing
    drift: Drift

    def begin(self, pipe: Any) -> None:
        request, sampling = self.request, pipe.sampling
        if self.image is None or request.video is None:
            raise InputError("give a picture of a person, and a video of how they are to move.")
        self.pipe, self.frames_per_latent, self.picture = pipe, 1, self.image
        self.height, self.width = self._size(sampling)
        pipe.check_size(self.height, self.width)
        kind = sampling.pose
        wanted = {name: getattr(request, name) for name in ("fps", "frames", "offset", "people")}
        driving = read_driving(request.video, kind, **wanted, on_note=self.on_note)
        self.fps, self.sound_start = driving.fps, request.offset / driving.fps
        if request.sound is not False and driving.audio:
            self.sound = request.video
        if request.frames is not None and request.frames > len(driving):
            raise InputError(f"{request.video} has {len(driving)} frames; {request.frames} cannot be made of it.")
        self.request = request = request.changed(frames=len(driving))
        self._frame(driving, kind)
        self.photo = self.framing.into(self.picture[None])[0]
        self.plan()  # refuses what no plan can be made of
        size = self.pipe.sampling.changed(context_frames=request.window).context_frames
        self.drift = Drift(self.photo, self.person, size)

    def _size(self, sampling: Any) -> tuple[int, int]:
        """(height, width): as asked; else of the model's area and, but for a stretched one, the picture's aspect."""
        request = self.request
        if request.height is not None or request.fit == "stretch" or request.around_person:
            return request.height or sampling.height, request.width or sampling.width
        unit = self.pipe.size_unit * 2 ** (len(self.pipe.unet.config.block_out_channels) - 1)
        return size_like(self.picture.shape[:2], (sampling.height, sampling.width), unit)

    def _frame(self, driving: Driving, kind: str) -> None:
        """Choose what the model sees of the picture, and bring the poses there."""
        request, target = self.request, (self.height, self.width)
        source = self.picture.shape[:2]
        photo = moved = None
        retarget = driving.poses is not None and request.retarget is not False
        if retarget or request.around_person or request.keep_background:
            photo = largest(pose_in(self.picture, request.image), request.people or 1)
            moved = retargeted(driving.poses, photo) if driving.poses is not None and retarget else None
        if request.around_person:
            self.framing = Framing.around(box_of(filter(None, (photo, moved))), source, target)
        elif request.fit == "stretch":
            self.framing = Framing(source, (0, 0, source[1], source[0]), target)
        else:
            self.framing = getattr(Framing, request.fit)(source, target)
        self.person = None
        if photo is not None:
            self.person = DrawnPoses(framed(photo, self.framing), kind).masks([0])[0]
        if moved is not None:
            self.poses = DrawnPoses(framed(moved, self.framing), kind)
        elif driving.poses is not None:
            own = (driving.poses.height, driving.poses.width)
            how = Framing.pad if request.fit == "pad" else Framing.crop
            self.poses = DrawnPoses(framed(driving.poses, how(own, target)), kind)
        else:
            self.poses = GivenPoses(resize(driving.frames, *target, request.fit))  # type: ignore[arg-type]

    @property
    def output_size(self) -> tuple[int, int]:
        blank = np.zeros((1, self.height, self.width, 3), np.uint8)
        return self.shown(blank, 0, measure=False).shape[1:3]

    def arguments(self) -> dict[str, Any]:
        given = super().arguments() | {"image": self.photo, "pose_frames": self.poses}
        given.pop("video")
        return given

    def shown(self, frames: np.ndarray, start: int, measure: bool = True) -> np.ndarray:
        """Frames as the model made them, from number `start` on: as the request wants to see them."""
        request = self.request
        numbers = range(start, start + len(frames))
        masks = self.poses.masks(numbers)
        if measure:
            self.drift.add(frames, masks)
        made = frames
        if request.around_person or request.keep_background:
            mask = masks if request.keep_background else None
            person = self.person if request.keep_background else None
            made = self.framing.back(frames, self.picture, mask, person)
        if request.show_pose:
            made = beside(self.photo, self.poses[numbers], made, labels=("picture", "pose", "result"))
        return made

    def measured(self) -> dict[str, Any]:
        return {"drift": self.drift.windows()}

    def summary(self) -> list[str]:
        return self.drift.lines()
