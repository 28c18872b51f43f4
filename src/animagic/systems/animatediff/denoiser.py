"""AnimateDiff's settings, and the UNet as the engine's denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import LatentConsistencyModelPipeline

from ...pipelines.windows import WindowedSampling
from ...timeline import Denoiser, SchedulerSolver, TextGuidance, Window
from .controls import Residuals, added_up
from .prompts import PromptEmbeds


class AnimateDiffSampling(WindowedSampling):
    """The settings of AnimateDiff (arXiv 2307.04725, section 5); windows are as long as clips of its training."""


class _Guidance(TextGuidance):
    """Text guidance that asks for one prediction only while its scale is 1."""

    def __call__(self, latents: torch.Tensor, window: Window) -> torch.Tensor:
        return self.denoiser(latents, window) if self.scale == 1 else super().__call__(latents, window)


class AnimateDiffDenoiser:
    """The UNet on a window, with the prompt, or with and without it in one call.

    residuals: see `Residuals`. use_motion=False: every frame on its own. attention: `cross_attention_kwargs` of
    diffusers. motion_scale: see MotionUNet, of all frames.
    """

    def __init__(
        self,
        unet: Any,
        solver: SchedulerSolver,
        prompts: PromptEmbeds,
        guidance_scale: float,
        residuals: Sequence[Residuals] = (),
        use_motion: bool = True,
        attention: Mapping[str, Any] | None = None,
        motion_scale: torch.Tensor | None = None,
    ):
        self.unet, self.solver, self.prompts, self.scale = unet, solver, prompts, guidance_scale
        self.residuals, self.use_motion = residuals, use_motion
        self.more = {} if attention is None else {"cross_attention_kwargs": dict(attention)}
        self.motion_scale = motion_scale
        self.scale_channels = unet.config.time_cond_proj_dim
        """Channels in which a consistency model reads the guidance scale; None: it reads none."""

    def guided(self) -> Denoiser:
        """With classifier-free guidance, unless the network reads the scale itself."""
        return _Guidance(self, max(self.scale, 1.0)) if self.scale_channels is None else self

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
        if self.residuals:
            given = (sample, timestep, inputs["encoder_hidden_states"], frames, self.solver.share(level))
            inputs |= added_up([one(*given) for one in self.residuals])
        if self.scale_channels is not None:
            scale = torch.full((len(sample),), self.scale - 1, device=latents.device)
            inputs["timestep_cond"] = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
                None, scale, self.scale_channels, sample.dtype
            )
        if self.motion_scale is not None:
            inputs["motion_scale"] = self.motion_scale[frames].to(sample)
        made = self.unet(sample, timestep, **inputs, **self.more, use_motion=self.use_motion)
        return made.sample.to(latents.dtype)
