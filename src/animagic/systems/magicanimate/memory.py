"""MagicAnimate without its weights, from which the memory of its videos is predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...pipelines.memory import Call, Networks
from ...timeline import SchedulerSolver
from .denoiser import MagicAnimateDenoiser, returning_frames
from .pipeline import MagicAnimatePipeline

_TOKENS = 77  # that CLIP reads


class MemoryNetworks(Networks):
    denoiser = "unet"

    def settings(self, height: int | None, width: int | None, frames: int | None, steps: int | None) -> Any:
        asked = {"height": height, "width": width, "num_frames": frames, "num_inference_steps": steps}
        settings = self.pipe.sampling.changed(**asked)
        self.pipe.check_size(settings.height, settings.width)
        return settings

    def calls(self, settings: Any, kv_offload: bool) -> list[Call]:
        pipe = self.pipe
        solver = SchedulerSolver(pipe.scheduler, settings.num_inference_steps)
        plan = settings.plan(solver.num_steps)
        windows = next(iter(plan.steps())).windows

        def run() -> Any:
            length = settings.text_tokens or _TOKENS
            text = torch.empty(1, length, pipe.unet.config.cross_attention_dim, dtype=pipe.unet.dtype, device="meta")

            def poses(frames: Sequence[int]) -> torch.Tensor:
                return torch.empty(len(frames), 3, settings.height, settings.width, device="meta")

            # The whole clip: noise, as it is, and what is summed up of its windows.
            whole = [self.latents(settings, settings.num_frames) for _ in range(3)]
            picture = self.latents(settings, 1)[:, :, 0].to(pipe.unet.dtype)
            networks = (pipe.unet, pipe.appearance_encoder, pipe.controlnet)
            denoiser = MagicAnimateDenoiser(
                *networks, solver, text, text, picture, poses, lambda level: returning_frames(plan, level)
            )
            guided = denoiser.guided(settings.guidance_scale)
            # Later ones hold as much as the third: residuals of the window before, and of the first.
            return [guided(self.latents(settings, len(w.frames)), w) for w in (*windows[:3], *windows[3:][-1:])], whole

        return [(run, 0, 0)]

    def decode(self, settings: Any, tiling: bool) -> Callable[[], torch.Tensor]:
        self.pipe.vae.enable_tiling() if tiling else self.pipe.vae.disable_tiling()
        together = min(settings.num_frames, MagicAnimatePipeline.frames_decoded_together)
        return lambda: self.pipe.decode_frames(self.latents(settings, together))
