"""MagicAnimate's settings, and its three networks as the engine's denoiser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import InputError
from ...layers.inflation import by_frame
from ...pipelines.windows import WindowedSampling
from ...timeline import Denoiser, OverlappingWindows, Plan, SchedulerSolver, TextGuidance, WholeClip, Window

Poses = Callable[[Sequence[int]], torch.Tensor]
"""Frames -> their pose pictures (frames, 3, height, width) in 0..1."""


@dataclass(frozen=True)
class MagicAnimateSampling(WindowedSampling):
    """The settings of MagicAnimate.

    windows: how those of a long video are laid. "published": at every step at the same places, round the end to the
    beginning, all frames of a window counting alike; "moving": see OverlappingWindows.
    pose: what the pose pictures show, "parts" of the body (DensePose) or a "skeleton".
    text_tokens: so many zeros stand for the empty prompt, in a model that has no text encoder; 0: it has one.
    """

    fps: float = 25
    windows: str = "published"
    pose: str = "parts"
    text_tokens: int = 0

    def changed(self, **values: Any) -> MagicAnimateSampling:
        changed = super().changed(**values)
        for name, known in (("windows", ("published", "moving")), ("pose", ("parts", "skeleton"))):
            if getattr(changed, name) not in known:
                raise InputError(f"{name} is {getattr(changed, name)!r}; choose {' or '.join(known)}.")
        return changed

    def plan(
        self,
        num_steps: int,
        *,
        closed_loop: bool = False,
        context_stride: int = 1,
        context_weights: str | None = None,
    ) -> Plan:
        if self.windows == "moving":
            weights = context_weights or "pyramid"
            return super().plan(
                num_steps, closed_loop=closed_loop, context_stride=context_stride, context_weights=weights
            )
        if self.num_frames <= self.context_frames:
            return WholeClip(self.num_frames, num_steps)
        return OverlappingWindows(
            self.num_frames,
            num_steps,
            size=self.context_frames,
            overlap=self.context_overlap,
            stride=context_stride,
            closed_loop=True,
            weights=context_weights or "flat",  # type: ignore[arg-type]  # it refuses what it does not know
            moving=False,
        )


def returning_frames(plan: Plan, level: int) -> Collection[int]:
    """The frames that the last window of a step shares with the first, from which others separate it: in a loop."""
    windows = plan.windows_at(level) if isinstance(plan, OverlappingWindows) else []
    return set(windows[0]) & set(windows[-1]) if len(windows) > 2 else ()


class MagicAnimateDenoiser:
    """The UNet on a window, led by a picture of the person and by poses.

    Guidance is by the picture: the unprompted half has the poses, too, but does not look at it.

    Args:
        unet, encoder, controlnet: the networks.
        text, negative_text: (1, length, channels).
        picture: (1, channels, height, width) latents of the picture.
        poses: of every frame.
        returning: level -> frames that come back at the end of its step; see `returning_frames`.
    """

    def __init__(
        self,
        unet: Any,
        encoder: Any,
        controlnet: Any,
        solver: SchedulerSolver,
        text: torch.Tensor,
        negative_text: torch.Tensor,
        picture: torch.Tensor,
        poses: Poses,
        returning: Callable[[int], Collection[int]] = lambda level: (),
    ):
        self.unet, self.encoder, self.controlnet, self.solver = unet, encoder, controlnet, solver
        self.text, self.negative_text, self.picture, self.poses = text, negative_text, picture, poses
        self.returning = returning
        self._same_text = text is negative_text or torch.equal(text, negative_text)
        # What the windows of a step share: threads may work on several of them.
        self._lock = threading.Lock()
        self._seen: tuple[int, dict[str, torch.Tensor]] | None = None
        self._steered: tuple[int, Collection[int], dict[int, list[torch.Tensor]]] | None = None

    def guided(self, scale: float) -> Denoiser:
        """With classifier-free guidance, unless the scale is 1."""
        return TextGuidance(self, scale) if scale > 1 else self

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        return self._predict(latents, window, halves=1)

    def pair(self, latents: torch.Tensor, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        without, looking = self._predict(latents, window, halves=2).chunk(2)
        return without, looking

    def _predict(self, latents: torch.Tensor, window: Window, halves: int) -> torch.Tensor:
        """halves: 2: one that does not look at the picture before the one that does."""
        level, frames, videos = window.levels[0], list(window.frames), len(latents)
        sample = self.solver.model_input(latents, level).to(self.unet.dtype)
        timestep = self.solver.timesteps[level].to(latents.device)
        features = self._features(level, timestep)
        residuals = self._residuals(sample, timestep, level, frames)
        text = self.text.expand(videos, -1, -1)
        if halves == 2 and not self._same_text:
            text = torch.cat([self.negative_text.expand(videos, -1, -1), text])
            sample = sample.repeat(2, 1, 1, 1, 1)
            residuals = [residual.repeat(2, 1, 1, 1) for residual in residuals]
        *down, middle = residuals
        predicted = self.unet(
            sample,
            timestep,
            text,
            references={name: one.expand(videos, -1, -1) for name, one in features.items()},
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            also_alone=halves == 2 and self._same_text,
        )
        return predicted.sample.to(latents.dtype)

    def _features(self, level: int, timestep: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the UNet sees of the picture: the same for all windows of a step, and for none but the looking half."""
        with self._lock:
            if self._seen is None or self._seen[0] != level:
                self._seen = level, self.encoder(self.picture, timestep, self.text)
            return self._seen[1]

    def _residuals(
        self, sample: torch.Tensor, timestep: torch.Tensor, level: int, frames: Sequence[int]
    ) -> list[torch.Tensor]:
        """The ControlNet's, each (videos * frames, channels, height, width), the middle one last.

        Every frame's are computed once a step: those of the window before, with which this one overlaps, are kept, and
        those of frames that come back.
        """
        steered = self._steered
        if steered is None or steered[0] != level:
            steered = level, self.returning(level), {}
        _, returning, known = steered
        missing = [i for i, frame in enumerate(frames) if frame not in known]
        if missing:
            new = [frames[i] for i in missing]
            part, videos = by_frame(sample[:, :, missing]), len(sample)
            poses = self.poses(new).to(part).repeat(videos, 1, 1, 1)
            down, middle = self.controlnet(
                part, timestep, self.text.expand(len(part), -1, -1), poses, return_dict=False
            )
            made = [residual.unflatten(0, (videos, -1)) for residual in (*down, middle)]
            known = known | {frame: [residual[:, i] for residual in made] for i, frame in enumerate(new)}
        keep = {*frames, *(frame for frame in returning if frame in known)}
        self._steered = level, returning, {frame: known[frame] for frame in keep}
        return [torch.stack(one, dim=1).flatten(0, 1) for one in zip(*(known[frame] for frame in frames), strict=True)]
