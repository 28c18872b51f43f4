"""AnimateDiff's settings, and the UNet as the engine's denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline

from ...errors import InputError
from ...pipelines.base import Sampling
from ...timeline import Denoiser, OverlappingWindows, Plan, SchedulerSolver, TextGuidance, WholeClip, Window
from .prompts import PromptEmbeds

Residuals = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, list[int]], dict[str, Any]]
"""(latents, timestep, text, frames) -> a ControlNet's residuals, as arguments of AnimateDiffUNet.forward."""


@dataclass(frozen=True)
class AnimateDiffSampling(Sampling):
    """The settings of AnimateDiff (arXiv 2307.04725, section 5).

    context_frames: frames of a window, as many as the motion module was trained on; context_overlap: frames that
    neighbouring windows share.
    """

    context_frames: int = 16
    context_overlap: int = 4

    def changed(self, **values: Any) -> AnimateDiffSampling:
        changed = super().changed(**values)
        if changed.context_frames < 1:
            raise InputError(f"context_frames must be at least 1, not {changed.context_frames}.")
        if values.get("context_overlap") is not None and changed.context_overlap >= changed.context_frames:
            raise InputError(f"the overlap must be less than the window's {changed.context_frames} frames.")
        return changed

    def plan_for(
        self,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        *,
        context_frames: int | None = None,
        context_overlap: int | None = None,
        strength: float = 1.0,
        **windows: Any,
    ) -> Plan:
        """The plan of a call. windows: those of `plan`. strength is of no matter without a scheduler."""
        settings = self.changed(
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            context_frames=context_frames,
            context_overlap=context_overlap,
        )
        return settings.plan(settings.num_inference_steps, **windows)

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
    """The UNet on a window, with the prompt, or with and without it in one call.

    use_motion=False: every frame on its own.
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
        self.scale_channels = unet.config.time_cond_proj_dim
        """Channels in which a consistency model reads the guidance scale; None: it reads none."""

    def guided(self) -> Denoiser:
        """With classifier-free guidance, unless the scale is 1 or the network reads it itself."""
        return TextGuidance(self, self.scale) if self.scale > 1 and self.scale_channels is None else self

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        return self._predict(latents, window, unprompted=False)

    def pair(self, latents: torch.Tensor, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        unprompted, prompted = self._predict(latents, window, unprompted=True).chunk(2)
        return unprompted, prompted

    def _predict(self, latents: torch.Tensor, window: Window, unprompted: bool) -> torch.Tensor:
        """unprompted: an unprompted half before the prompted one."""
        level, frames = window.levels[0], list(window.frames)
        # Half precision where the UNet has it; the solver's own state stays float32.
        sample = self.solver.model_input(latents, level).to(self.unet.dtype)
        sample = torch.cat([sample, sample]) if unprompted else sample
        timestep = self.solver.timesteps[level].to(latents.device)
        inputs = self.prompts.inputs(frames, guided=unprompted)
        if self.residuals is not None:
            inputs |= self.residuals(sample, timestep, inputs["encoder_hidden_states"], frames)
        if self.scale_channels is not None:
            scale = torch.full((len(sample),), self.scale - 1, device=latents.device)
            inputs["timestep_cond"] = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
                None, scale, self.scale_channels, sample.dtype
            )
        return self.unet(sample, timestep, **inputs, use_motion=self.use_motion).sample.to(latents.dtype)
