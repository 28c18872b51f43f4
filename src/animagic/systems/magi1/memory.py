"""MAGI-1 without its weights, from which the memory of its videos is predicted."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError, InputError
from ...layers.cache import KeyValueCache
from ...pipelines.memory import ALL_MOVES, Call, Networks, Video
from ...pipelines.meta import cast
from ...timeline import Window
from .denoiser import Magi1Denoiser
from .pipeline import Magi1Pipeline
from .prompts import ChunkPrompts, TextEmbedding
from .published import config_of
from .weights import autoencoder_from_config, transformer_from_config

T5_XXL_PARAMETERS = 4_762_310_656
"""Of the encoder of T5 v1.1 XXL, which the published models read text with."""
_STEADY = 12  # chunks after which every further one is like those before it
_TEXT = 128  # tokens of a long prompt


class MemoryNetworks(Networks):
    denoiser = "transformer"
    texts = ("keep", "drop", "cpu")
    moves = ALL_MOVES
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
        config, sampling, (height, width) = self.pipe.transformer.config, video.settings, self._latent(video)
        # Layers take the same memory one after another. The first and the last one of a quantised model differ.
        transformer = _changed(self.pipe.transformer, num_layers=min(3, config.num_layers))
        plan = sampling.plan(min(sampling.chunks_of(video.frames), _STEADY))
        text = TextEmbedding(torch.empty(1, _TEXT, config.caption_channels, device="meta"), torch.ones(1, _TEXT))
        denoiser = Magi1Denoiser(transformer, ChunkPrompts(((0, text),), text), plan, sampling)

        def seen(window: Window) -> int:
            again = denoiser._nearly_clean(list(window.levels[:: sampling.chunk_width])) is not None
            return len(window.frames) + again * sampling.chunk_width

        def held(window: Window) -> int:
            return len(window.context) + len(window.commit)

        def pairs(frames: range, layers: int) -> list[Any]:
            tokens = len(frames) * height * width // config.patch_size**2
            shape = (2, 1, config.num_query_groups, tokens, config.kv_channels)
            return [torch.empty(shape, dtype=transformer.dtype, device="meta").unbind() for _ in range(layers)]

        def size(frames: int, layers: int) -> int:
            return sum(keys.nbytes + values.nbytes for keys, values in pairs(range(frames), layers))

        def denoise(window: Window) -> Any:
            # The window, what comes of it, and what the branches of guidance make of it.
            shape = (1, transformer.latent_channels, len(window.frames), height, width)
            latents = [torch.empty(shape, device="meta") for _ in range(1 if sampling.cfg_number == 1 else 3)]
            denoiser.cache = _OneLayer(window.context.start)
            if len(window.context):
                denoiser.cache.append(window.context, pairs(window.context, 1))
            return denoiser(latents[0], window), latents

        def commit(window: Window) -> None:
            cache = KeyValueCache(window.context.start)
            if len(window.context):
                cache.append(window.context, pairs(window.context, config.num_layers))
            cache.written = pairs(window.commit, config.num_layers)
            cache.commit(window.commit)

        windows = [window for step in plan.steps() for window in step.windows]
        calls = [
            Call(partial(denoise, window), size(len(window.context), 1), size(held(window), config.num_layers))
            for window in (max(windows, key=seen), max(windows, key=held))
        ]
        committing = [window for window in windows if len(window.commit)]
        if committing and not kv_offload:  # the cache is made anew, layer by layer, while the old one is there
            fullest = max(committing, key=held)
            whole = size(held(fullest), config.num_layers)
            calls.append(Call(partial(commit, fullest), whole, whole))
        return calls

    @property
    def cache_layers(self) -> int:
        return self.pipe.transformer.config.num_layers

    def decode(self, video: Video, tiling: bool) -> Callable[[], torch.Tensor]:
        vae = _changed(self.pipe.vae, depth=1, encoder_depth=0)
        if tiling:
            vae.enable_tiling()
        pipe = Magi1Pipeline(self.pipe.transformer, vae, config=self.pipe.config.config)
        shape = (1, self.pipe.transformer.latent_channels, video.settings.chunk_width, *self._latent(video))

        def decode() -> torch.Tensor:
            # Beside the chunk, those that are still denoised, in the timeline and where their next step is made.
            others = [torch.empty(shape, device="meta") for _ in range(3 * video.settings.window_size)]
            pixels = pipe.decode_frames(torch.empty(shape, device="meta"))
            del others
            return pixels

        return decode

    def _latent(self, video: Video) -> tuple[int, int]:
        return video.height // self.pipe.pixels_per_latent, video.width // self.pipe.pixels_per_latent


def _changed(network: Any, **changes: Any) -> Any:
    """A network of the same configuration but for some fields, on the meta device."""
    with torch.device("meta"):
        other = type(network)(**{name: x for name, x in network.config.items() if name[0] != "_"} | changes)
    return cast(other, network.dtype)


class _OneLayer(KeyValueCache):
    """A cache of which each layer is the same, and which keeps nothing."""

    def read(self, layer: int) -> Any:
        return super().read(0)

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        pass

    def commit(self, frames: range) -> None:
        pass
