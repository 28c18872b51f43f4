"""MagicInfinite without its weights, from which the memory of its videos is predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo

from ...layers.autoencoder import ConvAutoencoder
from ...pipelines.memory import Call, Networks
from ...pipelines.meta import cast
from .denoiser import MagicInfiniteDenoiser, MagicInfiniteSampling, Prompt, Voice, latents_of, shifted_times
from .pipeline import MagicInfinitePipeline
from .prompts import LLAMA_LENGTH, TEXT_LENGTH
from .transformer import MagicInfiniteTransformer3DModel

LLAVA_PARAMETERS, CLIP_PARAMETERS = 8_355_272_704, 123_060_480
"""Of HunyuanVideo's text encoders: LLaVA with Llama 3 8B, and the text half of CLIP-L."""
_PORTRAIT_TOKENS = 288  # that LLaVA gives of a portrait


class _Heard:
    """A voice of which only the shape is known."""

    def __init__(self, layers: int, channels: int):
        self.shape = layers, channels

    def speech(self, frames: range) -> torch.Tensor:
        return torch.empty(len(frames), 8, *self.shape, device="meta")


class MemoryNetworks(Networks):
    """With one speaker."""

    denoiser = "transformer"
    published = {"MagicInfinite 13B": {"bfloat16": "magicinfinite-13b"}}

    @classmethod
    def of_published(cls, model: str, dtype: torch.dtype) -> Networks | None:
        """Of HunyuanVideo's size, in that dtype, with its autoencoder and text encoders, and wav2vec 2.0 base."""
        if model != cls.published["MagicInfinite 13B"]["bfloat16"]:
            return None
        with torch.device("meta"):
            transformer, vae = MagicInfiniteTransformer3DModel(), AutoencoderKLHunyuanVideo()
        pipe = MagicInfinitePipeline(cast(transformer, dtype), cast(vae, dtype))
        return cls(pipe, (LLAVA_PARAMETERS + CLIP_PARAMETERS) * dtype.itemsize)

    def settings(
        self, height: int | None, width: int | None, frames: int | None, steps: int | None
    ) -> MagicInfiniteSampling:
        asked = {"height": height, "width": width, "num_frames": frames, "num_inference_steps": steps}
        settings = self.pipe.sampling.changed(**asked)
        self.pipe.check_size(settings.height, settings.width)
        return settings

    def calls(self, settings: MagicInfiniteSampling, kv_offload: bool) -> list[Call]:
        pipe, config = self.pipe, self.pipe.transformer.config
        plan = settings.plan_for()
        window = max(
            (w for step in plan.steps() for w in step.windows), key=lambda w: (len(w.frames), len({*w.levels}))
        )

        def run() -> Any:
            # The whole video: noise, as it is, and what is summed up of its windows; a front holds a part of it.
            whole = [self.latents(settings, latents_of(settings.num_frames)) for _ in range(3)]
            portrait = self.latents(settings, 1)[:, :, 0]

            def known(frames: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
                everywhere = torch.ones(1, 1, 1, *portrait.shape[-2:])
                return portrait[:, :, None].expand(-1, -1, len(frames), -1, -1), everywhere

            def face(frames: Sequence[int]) -> torch.Tensor:
                return torch.empty(len(frames), *portrait.shape[-2:])

            reads = LLAMA_LENGTH + _PORTRAIT_TOKENS if config.portrait_patch is None else TEXT_LENGTH
            embeds = torch.empty(1, reads, config.text_embed_dim, device="meta")
            pooled = torch.empty(1, config.pooled_projection_dim, device="meta")
            text, null = (Prompt(embeds, torch.ones(1, reads), pooled) for _ in range(2))
            voice = Voice(_Heard(config.audio_layers, config.audio_channels), face)
            times = shifted_times(settings.num_inference_steps, settings.shift)
            denoiser = MagicInfiniteDenoiser(pipe.transformer, times, {0: text}, null, portrait, known, [voice])
            guided = denoiser.guided(settings.portrait_scale, settings.guidance_scale, settings.voice_scale)
            return guided(self.latents(settings, len(window.frames)), window), whole

        return [(run, 0, 0)]

    def decode(self, settings: MagicInfiniteSampling, tiling: bool) -> Callable[[], torch.Tensor]:
        self.pipe.vae.enable_tiling() if tiling else self.pipe.vae.disable_tiling()
        before = 0 if isinstance(self.pipe.vae, ConvAutoencoder) else settings.decode_context
        together = min(latents_of(settings.num_frames), MagicInfinitePipeline.frames_decoded_together + before)
        return lambda: self.pipe.decode_frames(self.latents(settings, together))
