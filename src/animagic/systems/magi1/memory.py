"""MAGI-1 without its weights, from which the memory of its videos is predicted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...layers.cache import KeyValueCache
from ...pipelines.memory import Call, Networks
from ...pipelines.meta import cast
from ...pipelines.text import TextEmbedding
from ...timeline import Window
from ...weights.files import read_json
from ...weights.fit import changed_twin
from .denoiser import Magi1Denoiser, Magi1Sampling
from .pipeline import Magi1Pipeline
from .prompts import ChunkPrompts
from .published import config_of
from .weights import autoencoder_from_config, transformer_from_config

T5_XXL_PARAMETERS = 4_762_310_656
"""Of the encoder of T5 v1.1 XXL, which the published models read text with."""
_STEADY = 12  # chunks after which every further one is like those before it
_TEXT = 128  # tokens of a long prompt


class MemoryNetworks(Networks):
    denoiser = "transformer"
    texts = ("keep", "drop", "cpu")
    offloads = (
        *((None, False), ("model", False), (None, True), ("model", True)),
        *(("block", False), ("block", True), ("leaf", False), ("leaf", True)),
    )
    published = {
        "MAGI-1 4.5B": {"bfloat16": "4.5B_base", "fp8": "4.5B_distill_quant"},
        "MAGI-1 24B": {"bfloat16": "24B_base", "fp8": "24B_distill_quant"},
    }
    advice = ", or an FP8 checkpoint (animagic quantize)"

    @classmethod
    def of_published(cls, model: str, dtype: torch.dtype) -> Networks | None:
        """Its transformer in that dtype, the published autoencoder, and T5."""
        try:
            config = read_json(Path(model)) if model.endswith(".json") else config_of(model)
        except InputError:
            return None
        with torch.device("meta"):
            transformer, vae = transformer_from_config(config), autoencoder_from_config({})
        pipe = Magi1Pipeline(cast(transformer, dtype), vae, config=config)
        return cls(pipe, T5_XXL_PARAMETERS * dtype.itemsize)

    def settings(self, height: int | None, width: int | None, frames: int | None, steps: int | None) -> Magi1Sampling:
        own = self.pipe.configure(steps)
        settings = own.changed(video_size_h=height, video_size_w=width, num_frames=frames)
        self.pipe.check_size(settings.height, settings.width)
        settings.chunks_of(settings.num_frames)
        return settings

    def calls(self, settings: Magi1Sampling, kv_offload: bool) -> list[Call]:
        config, unit = self.pipe.transformer.config, self.pipe.size_unit
        tokens = (settings.height // unit) * (settings.width // unit)  # of a frame
        # Layers take the same memory one after another. The first and the last one of a quantised model differ.
        transformer = self._twin("transformer", num_layers=min(3, config.num_layers))
        plan = settings.plan(min(settings.chunks_of(settings.num_frames), _STEADY))
        text = TextEmbedding(torch.empty(1, _TEXT, config.caption_channels, device="meta"), torch.ones(1, _TEXT))
        denoiser = Magi1Denoiser(transformer, ChunkPrompts(((0, text),), text), plan, settings)

        def keys(frames: int) -> torch.Tensor:
            shape = (1, config.num_query_groups, frames * tokens, config.kv_channels)
            return torch.empty(shape, dtype=transformer.dtype, device="meta")

        def seen(window: Window) -> int:
            again = denoiser._nearly_clean(list(window.levels[:: settings.chunk_width])) is not None
            return len(window.frames) + again * settings.chunk_width

        def held(window: Window) -> int:
            return len(window.context) + len(window.commit)

        def denoise(window: Window, cache: KeyValueCache) -> Any:
            # The window, what comes of it, and what the branches of guidance make of it.
            latents = [self.latents(settings, len(window.frames)) for _ in range(settings.cfg_number)]
            denoiser.cache = cache
            return denoiser(latents[0], window), latents

        windows = [window for step in plan.steps() for window in step.windows]
        of_frame = 2 * keys(1).nbytes  # in a layer: keys and values
        layers = min(2, config.num_layers) if kv_offload else config.num_layers  # on the device
        calls: list[Call] = []
        for window in (max(windows, key=seen), max(windows, key=held)):
            cache = _OneLayer(window.context.start)
            if len(window.context):
                cache.append(window.context, [(keys(len(window.context)), keys(len(window.context)))])
            size = of_frame * held(window)
            calls.append((partial(denoise, window, cache), layers * size, config.num_layers * size * kv_offload))
        # Without offloading, the cache is made anew while the old one is there.
        fullest = 0 if kv_offload else max((held(window) for window in windows if len(window.commit)), default=0)
        whole = layers * of_frame * fullest
        return [*calls, (lambda: torch.empty(whole, dtype=torch.uint8, device="meta"), whole, 0)]

    def decode(self, settings: Magi1Sampling, tiling: bool) -> Callable[[], torch.Tensor]:
        vae = self._twin("vae", depth=1, encoder_depth=0)
        if tiling:
            vae.enable_tiling()
        pipe = Magi1Pipeline(self.pipe.transformer, vae, config=self.pipe.config.config)

        def decode() -> torch.Tensor:
            # Beside the chunk, those that are still denoised, in the timeline and where their next step is made.
            others = [self.latents(settings, settings.chunk_width) for _ in range(3 * settings.window_size)]
            pixels = pipe.decode_frames(self.latents(settings, settings.chunk_width))
            del others
            return pixels

        return decode

    def _twin(self, name: str, **changes: Any) -> Any:
        network = getattr(self.pipe, name)
        known = {field: value for field, value in changes.items() if field in network.config}
        return cast(changed_twin(network, **known), network.dtype)


class _OneLayer(KeyValueCache):
    """A cache of which each layer is the same, and which keeps nothing."""

    def read(self, layer: int) -> Any:
        return super().read(0)

    def write(self, *_: Any) -> None:
        pass

    def commit(self, *_: Any) -> None:
        pass
