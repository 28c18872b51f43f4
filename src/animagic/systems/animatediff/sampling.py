"""How AnimateDiff samples: its settings, and the UNet as the engine's denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline

from ...errors import InputError
from ...timeline import OverlappingWindows, Plan, SchedulerSolver, WholeClip, Window
from .prompts import PromptEmbeds

Residuals = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, list[int]], dict[str, Any]]
"""(latents, timestep, text, frames) -> what a ControlNet adds, as arguments of AnimateDiffUNet.forward."""


@dataclass(frozen=True)
class AnimateDiffSampling:
    """The settings of a call where it says nothing else; a model keeps its own in its configuration.

    num_frames, height, width (pixels), fps: of the video. context_frames: the most frames in one window, as many as the
    motion module was trained on; context_overlap: frames that neighbouring windows share.
    Source of the defaults: AnimateDiff, arXiv 2307.04725, section 5.
    """

    num_frames: int = 16
    height: int = 512
    width: int = 512
    fps: float = 8
    num_inference_steps: int = 25
    guidance_scale: float = 7.5
    context_frames: int = 16
    context_overlap: int = 4

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> AnimateDiffSampling:
        """Raises InputError for a field that is not known."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(config or {}) - known)
        if unknown:
            raise InputError(f"the sampling setting {unknown[0]!r} is unknown; known are {', '.join(sorted(known))}.")
        return cls(**(config or {}))

    def changed(self, **values: Any) -> AnimateDiffSampling:
        """With every value that is not None in place of its own. Raises InputError for one that is not possible."""
        changed = replace(self, **{name: value for name, value in values.items() if value is not None})
        for name in ("num_frames", "num_inference_steps", "context_frames"):
            if getattr(changed, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(changed, name)}.")
        if not 0 <= changed.guidance_scale <= 100:
            raise InputError(f"the guidance scale must lie between 0 and 100, not {changed.guidance_scale}.")
        return changed

    def plan(
        self, num_steps: int, *, closed_loop: bool = False, context_stride: int = 1, context_weights: str = "pyramid"
    ) -> Plan:
        """Whole where the clip fits into one window and is no loop, else in overlapping windows."""
        if self.num_frames <= self.context_frames and not closed_loop:
            return WholeClip(self.num_frames, num_steps)
        return OverlappingWindows(
            self.num_frames,
            num_steps,
            size=self.context_frames,
            overlap=self.context_overlap,
            stride=context_stride,
            closed_loop=closed_loop,
            weights=context_weights,  # type: ignore[arg-type]  # it refuses what it does not know
        )


class AnimateDiffDenoiser:
    """Guided prediction of the noise in a window: unprompted + scale (prompted - unprompted), both in one call.

    Args:
        unet: an AnimateDiffUNet.
        solver: knows the timesteps.
        prompts: of every frame.
        guidance_scale: 1 or less: no guidance, and no unprompted half.
        residuals: of a ControlNet.
        use_motion: False: every frame on its own.
    """

    def __init__(
        self,
        unet: Any,
        solver: SchedulerSolver,
        prompts: PromptEmbeds,
        guidance_scale: float,
        residuals: Residuals | None = None,
        use_motion: bool = True,
    ):
        self.unet, self.solver, self.prompts, self.scale = unet, solver, prompts, guidance_scale
        self.residuals, self.use_motion = residuals, use_motion
        # Consistency models are told the guidance scale, and need no unprompted half for it.
        self.told = unet.config.time_cond_proj_dim
        self.guided = guidance_scale > 1 and self.told is None

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        level, frames, batch = window.levels[0], list(window.frames), len(latents)
        # Half precision where the UNet has it; the solver's own state stays float32.
        sample = self.solver.model_input(latents, level).to(self.unet.dtype)
        sample = torch.cat([sample, sample]) if self.guided else sample
        timestep = self.solver.timesteps[level].to(latents.device)
        inputs = self.prompts.inputs(frames, guided=self.guided)
        if self.residuals is not None:
            inputs |= self.residuals(sample, timestep, inputs["encoder_hidden_states"], frames)
        if self.told is not None:
            scale = torch.full((batch,), self.scale - 1, device=latents.device)
            inputs["timestep_cond"] = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
                None, scale, self.told, sample.dtype
            )
        predicted = self.unet(sample, timestep, **inputs, use_motion=self.use_motion).sample.to(latents.dtype)
        if not self.guided:
            return predicted
        unprompted, prompted = predicted.chunk(2)
        return unprompted + self.scale * (prompted - unprompted)
