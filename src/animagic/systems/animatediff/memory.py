"""AnimateDiff without its weights, from which the memory of its videos is predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...pipelines.memory import Call, Networks
from ...timeline import SchedulerSolver
from .denoiser import AnimateDiffDenoiser
from .pipeline import AnimateDiffPipeline
from .prompts import PromptEmbeds

_TOKENS = 77  # that CLIP reads


class MemoryNetworks(Networks):
    denoiser = "unet"

    def settings(self, height: int | None, width: int | None, frames: int | None, steps: int | None) -> Any:
        settings = self.pipe.configure(height=height, width=width, num_frames=frames, num_inference_steps=steps)
        self.pipe.check_size(settings.height, settings.width)
        return settings

    def calls(self, settings: Any, kv_offload: bool) -> list[Call]:
        unet, solver = self.pipe.unet, SchedulerSolver(self.pipe.scheduler, settings.num_inference_steps)
        window = next(settings.plan(solver.num_steps).steps()).windows[0]

        def run() -> Any:
            text = torch.empty(1, _TOKENS, unet.config.cross_attention_dim, dtype=unet.dtype, device="meta")
            added = None
            if unet.config.addition_embed_type == "text_time":
                pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
                added = {"text_embeds": text.new_empty(1, pooled), "time_ids": text.new_empty(1, 6)}
            prompts = PromptEmbeds(text[:, None], text[:, None], text, text, added, added)
            # The whole clip: as it is, and what is summed up of its windows.
            whole = [self.latents(settings, settings.num_frames) for _ in range(2)]
            denoiser = AnimateDiffDenoiser(unet, solver, prompts, settings.guidance_scale).guided()
            return denoiser(self.latents(settings, len(window.frames)), window), whole

        return [(run, 0, 0)]

    def decode(self, settings: Any, tiling: bool) -> Callable[[], torch.Tensor]:
        self.pipe.vae.enable_tiling() if tiling else self.pipe.vae.disable_tiling()
        together = min(settings.num_frames, AnimateDiffPipeline.frames_decoded_together)
        return lambda: self.pipe.decode_frames(self.latents(settings, together))
