"""MAGI-1 without its weights, from which the memory of its videos is predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError, InputError
from ...layers.cache import KeyValueCache
from ...pipelines.memory import Call, Networks, Video, cast
from ...timeline import Window
from .denoiser import Magi1Denoiser
from .pipeline import Magi1Pipeline
from .prompts import ChunkPrompts, TextEmbedding
from .published import config_of
from .weights import autoencoder_from_config, transformer_from_config

T5_XXL_PARAMETERS = 4_762_310_656
"""Of the encoder of T5 v1.1 XXL, which the published models read text with."""
_STEADY = 12  # chunks after which every further one is like those before it
_TEXT, _NULL = 128, 50  # tokens of a long prompt, and of the null caption


class MemoryNetworks(Networks):
    denoiser = "transformer"
    drops_text = offloads_cache = True
    published = {
        "MAGI-1 4.5B": {"bfloat16": "4.5B_base", "fp8": "4.5B_distill_quant"},
        "MAGI-1 24B": {"bfloat16": "24B_base", "fp8": "24B_distill_quant"},
    }

    @classmethod
    def of_published(cls, model: str, dtype: torch.dtype) -> Networks | None:
        """Its transformer in that dtype, the published autoencoder, and T5."""
        try:
            config = json.loads(Path(model).read_text("utf-8")) if model.endswith(".json") else config_of(model)
        except InputError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the configuration {model} cannot be read: {error}.") from error
        with torch.device("meta"):
            transformer, vae = transformer_from_config(config), autoencoder_from_config({})
        pipe = Magi1Pipeline(cast(transformer, dtype), vae, config=config)
        return cls(pipe, T5_XXL_PARAMETERS * dtype.itemsize)

    @property
    def advice(self) -> str:
        return "" if self.fp8 else ", or an FP8 checkpoint (animagic quantize)"

    def video(self, height: int | None, width: int | None, frames: int | None, steps: int | None) -> Video:
        sampling = self.pipe.configure(steps)
        height, width = height or sampling.video_size_h, width or sampling.video_size_w
        self.pipe.check_size(height, width)
        frames = sampling.num_frames if frames is None else frames
        sampling.chunks_of(frames)
        return Video(height, width, frames, sampling.num_steps, sampling)

    def calls(self, video: Video, kv_offload: bool) -> list[Call]:
        config, sampling = self.pipe.transformer.config, video.settings
        plan = sampling.plan(min(sampling.chunks_of(video.frames), _STEADY))
        text, null = (
            TextEmbedding(torch.empty(1, tokens, config.caption_channels, device="meta"), torch.ones(1, tokens))
            for tokens in (min(_TEXT, config.caption_max_length), min(_NULL, config.caption_max_length))
        )
        denoiser = Magi1Denoiser(self.pipe.transformer, ChunkPrompts(((0, text),), null), plan, sampling)

        def frames(window: Window) -> int:
            """That the transformer sees at once."""
            again = denoiser._nearly_clean(list(window.levels[:: sampling.chunk_width])) is not None
            return len(window.span) + again * sampling.chunk_width

        def held(window: Window) -> int:
            return len(window.context) + len(window.commit)

        windows = [window for step in plan.steps() for window in step.windows]
        largest = max(windows, key=lambda window: (frames(window), held(window)))
        fullest = max(windows, key=lambda window: (held(window), frames(window)))
        return [self._call(video, denoiser, window, held(window), kv_offload) for window in (largest, fullest)]

    def _call(self, video: Video, denoiser: Magi1Denoiser, window: Window, held: int, kv_offload: bool) -> Call:
        transformer, config, (height, width) = self.pipe.transformer, self.pipe.transformer.config, self._latent(video)
        tokens = height * width // config.patch_size**2
        frame = 2 * config.num_query_groups * tokens * config.kv_channels * transformer.dtype.itemsize  # in one layer

        def run() -> Any:
            shape = (1, config.num_query_groups, len(window.context) * tokens, config.kv_channels)
            layers = [
                tuple(torch.empty(shape, dtype=transformer.dtype, device="meta") for _ in range(2))
                for _ in range(2 if kv_offload else config.num_layers)
            ]
            denoiser.cache = (_TwoLayers if kv_offload else KeyValueCache)(window.context.start)
            if len(window.context):
                denoiser.cache.append(window.context, layers)
            del layers
            # The window, what comes of it, and what the branches of guidance make of it.
            latents = [
                torch.empty(1, transformer.latent_channels, len(window.span), height, width, device="meta")
                for _ in range(1 if video.settings.cfg_number == 1 else 3)
            ]
            return denoiser(latents[0], window), latents

        if kv_offload:
            return Call(run, 2 * frame * held, config.num_layers * frame * held)
        return Call(run, config.num_layers * frame * held)

    def decode(self, video: Video) -> torch.Tensor:
        shape = (1, self.pipe.transformer.latent_channels, video.settings.chunk_width, *self._latent(video))
        return self.pipe._decode(torch.empty(shape, device="meta"), "pt")

    def _latent(self, video: Video) -> tuple[int, int]:
        return video.height // self.pipe._pixel_ratio, video.width // self.pipe._pixel_ratio


class _TwoLayers(KeyValueCache):
    """The part of an offloaded cache that is on the device: room for two layers."""

    def read(self, layer: int) -> Any:
        return super().read(layer % 2)

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        pass

    def commit(self, frames: range) -> None:
        pass
