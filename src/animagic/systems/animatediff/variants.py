"""AnimateDiffPipeline under diffusers' other names for it. It does all that they do; they differ in the order of their
arguments, and in what they call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import InputError
from ...pipelines.base import Call, Run
from .pipeline import AnimateDiffPipeline


class AnimateDiffSDXLPipeline(AnimateDiffPipeline):
    """AnimateDiff with SDXL."""


class AnimateDiffControlNetPipeline(AnimateDiffPipeline):
    """AnimateDiff with a ControlNet: `pipe(prompt, conditioning_frames=clip)`."""


class AnimateDiffSparseControlNetPipeline(AnimateDiffPipeline):
    """AnimateDiff with SparseCtrl: `pipe(prompt, conditioning_frames=pictures, controlnet_frame_indices=[0, 8])`."""

    def prepare(  # type: ignore[override]  # fewer names; the rest is passed on
        self,
        call: Call,
        *,
        conditioning_frames: Any = None,
        controlnet_frame_indices: Sequence[int] = (0,),
        controlnet_conditioning_scale: float = 1.0,
        **others: Any,
    ) -> Run:
        """As AnimateDiffPipeline, whose control_images, control_indexes and control_scale these are."""
        if conditioning_frames is not None:
            others |= {"control_images": conditioning_frames, "control_indexes": list(controlnet_frame_indices)}
            others["control_scale"] = controlnet_conditioning_scale
        return super().prepare(call, **others)


class AnimateDiffVideoToVideoPipeline(AnimateDiffPipeline):
    """AnimateDiff called as `pipe(video, prompt, strength=0.8)`: a clip is changed."""

    def __call__(self, video: Any = None, prompt: Any = None, **arguments: Any) -> Any:  # type: ignore[override]
        if video is None and arguments.get("latents") is None:
            raise InputError("video to video needs a video.")
        return super().__call__(prompt, video=video, **arguments)


class AnimateDiffVideoToVideoControlNetPipeline(AnimateDiffVideoToVideoPipeline):
    """AnimateDiffVideoToVideoPipeline with a ControlNet: conditioning_frames is a clip of as many frames."""
