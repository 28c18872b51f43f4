"""MAGI-1's settings, and the denoiser that turns windows of a plan into calls of the transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from diffusers.utils.torch_utils import is_compiled_module
from pydantic import ConfigDict

from ...errors import InputError
from ...layers.cache import KeyValueCache, OffloadedKeyValueCache
from ...pipelines.text import TextEmbedding
from ...timeline import ChunkGuidance, Denoiser, Staircase, Window, flow_levels, shortcut_intervals
from .prompts import ChunkPrompts
from .schema import EngineSampling, RuntimeSampling
from .transformer import Magi1Transformer3DModel

# A compiled transformer needs one graph for each kind of call: a chunk or several, without a cache, with one, adding to
# it; and again for the second size of video. The default of 8 is soon passed, which fails under fullgraph=True.
_MOST_GRAPHS = 64


class Magi1Sampling(RuntimeSampling, EngineSampling):
    """The sampling fields of a published configuration, under their published names."""

    model_config = ConfigDict(frozen=True)

    # Under the names of every system's settings.
    height = property(attrgetter("video_size_h"))
    width = property(attrgetter("video_size_w"))
    num_inference_steps = property(attrgetter("num_steps"))
    frames_per_latent = property(attrgetter("temporal_downsample_factor"))

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> Magi1Sampling:
        """Read the original JSON (`runtime_config` and `engine_config`); what it does not name keeps its default.
        Raises InputError for a value that cannot be."""
        given = {**(config or {}).get("engine_config", {}), **(config or {}).get("runtime_config", {})}
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        return cls.read({n: list(v) if isinstance(v, tuple) else v for n, v in known.items()}, "the model's ")

    def changed(self, **values: Any) -> Magi1Sampling:
        """A copy with every value that is not None. Raises InputError for fewer steps than chunks in flight."""
        changed = self.model_copy(update={name: value for name, value in values.items() if value is not None})
        if changed.num_steps < self.window_size:
            raise InputError(f"the number of steps must be at least {self.window_size}, not {changed.num_steps}.")
        return changed

    def chunks_of(self, num_frames: int, prefix_frames: int = 0) -> int:
        """Chunks of the timeline for `num_frames` new frames after a prefix of latent frames. Raises InputError."""
        if num_frames < 1:
            raise InputError(f"the number of frames must be at least 1, not {num_frames}.")
        return math.ceil((math.ceil(num_frames / self.temporal_downsample_factor) + prefix_frames) / self.chunk_width)

    def plan_for(
        self, num_frames: int | None = None, num_inference_steps: int | None = None, endless: bool = False
    ) -> Staircase:
        """The plan of a call, without a network. Raises InputError."""
        sampling = self.changed(num_steps=num_inference_steps, num_frames=num_frames)
        return sampling.plan(None if endless else sampling.chunks_of(sampling.num_frames))

    def plan(self, num_chunks: int | None, prefix_frames: int = 0) -> Staircase:
        return Staircase(
            num_chunks=num_chunks,
            num_steps=self.num_steps,
            window_size=self.window_size,
            chunk_width=self.chunk_width,
            prefix_frames=prefix_frames,
            look_back=tuple(self.noise2clean_kvrange),
            clean_look_back=self.clean_chunk_kvrange,
        )

    def times(self) -> torch.Tensor:
        return flow_levels(self.num_steps, self.shortcut_mode)

    def guide(self, denoiser: Magi1Denoiser) -> Denoiser:
        """The denoiser with the model's guidance: none for distilled models."""
        if self.cfg_number == 1:
            return denoiser
        return ChunkGuidance(denoiser, self.times(), self.cfg_t_range, self.prev_chunk_scales, self.text_scales)


class Magi1Denoiser:
    """The transformer on a window, with each chunk's text, time and keys, and its cache (kv_offload: in CPU memory)."""

    def __init__(
        self,
        transformer: Magi1Transformer3DModel,
        prompts: ChunkPrompts,
        plan: Staircase,
        sampling: Magi1Sampling,
        kv_offload: bool = False,
    ):
        self.transformer, self.prompts, self.plan, self.sampling = transformer, prompts, plan, sampling
        if kv_offload and is_compiled_module(transformer):
            raise InputError(
                "the key/value cache cannot be offloaded under a transformer that is compiled as a whole; "
                "compile its blocks instead, with pipe.transformer.compile_repeated_blocks()."
            )
        self.cache = OffloadedKeyValueCache() if kv_offload else KeyValueCache()
        # A clean chunk has a time just below 1.
        self.times = torch.cat([sampling.times()[:-1], torch.tensor([sampling.clean_t])])
        # The step size of each level, which distilled models read; a clean chunk gets the first one.
        base = 8.0 if plan.num_steps == 12 else plan.num_steps / 2
        shortcuts = base / shortcut_intervals(plan.num_steps, sampling.shortcut_mode)
        self.shortcuts = torch.cat([shortcuts, shortcuts[:1]])

    def __call__(
        self, latents: torch.Tensor, window: Window, *, text: bool = True, history: bool = True, commit: bool = True
    ) -> torch.Tensor:
        width, clean, batch = self.plan.chunk_width, self.plan.num_steps, len(latents)
        levels = list(window.levels[::width])
        if not history:
            alone = latents.unflatten(2, (len(levels), width)).transpose(1, 2).flatten(0, 1)
            level = torch.tensor(levels).repeat(batch)[:, None]
            null = self.prompts.null
            if (null.embeds == null.embeds[:1]).all() and (null.mask == null.mask[:1]).all():
                null = TextEmbedding(null.embeds[:1], null.mask[:1])
            else:
                null = null.repeated(len(levels))
            velocity = self._call(alone, level, [null], text, 0, [range(width)])
            return velocity.unflatten(0, (batch, len(levels))).transpose(1, 2).flatten(2, 3)

        first = window.span.start // width
        cache = self.cache
        cache.forget(window.context.start)
        if not cache.layers:
            cache.start = cache.stop = window.span.start
        chunks = list(range(first, first + len(levels)))
        keys = [self.plan.seen_by(chunk, level) for chunk, level in zip(chunks, levels, strict=True)]
        prompted = [text and level < clean for level in levels]
        texts = [self.prompts.at(c) if yes else self.prompts.null for c, yes in zip(chunks, prompted, strict=True)]
        extra = self._nearly_clean(levels)
        if extra is not None:
            # Again at the end, where it sees only itself.
            rows = slice(extra * width, (extra + 1) * width)
            latents = torch.cat([latents, latents[:, :, rows]], dim=2)
            levels.append(levels[extra])
            texts.append(texts[extra])
            keys.append(range(chunks[-1] + 1, chunks[-1] + 2))
        if (seen := min(k.start for k in keys) * width) < cache.start:
            raise ValueError(f"a chunk sees frame {seen}, the cache begins at {cache.start}")
        committed = len(window.commit) if commit else 0
        velocity = self._call(
            latents,
            torch.tensor(levels)[None],
            texts,
            text,
            window.span.start,
            [range(k.start * width - cache.start, k.stop * width - cache.start) for k in keys],
            cache=cache if cache.layers or committed else None,
            commit=committed,
        )
        if committed:
            cache.commit(window.commit)
        if extra is not None:
            velocity, alone = velocity[:, :, :-width].clone(), velocity[:, :, -width:]
            velocity[:, :, rows] = 0.7 * velocity[:, :, rows] + 0.3 * alone
        return velocity

    def _nearly_clean(self, levels: list[int]) -> int | None:
        """The chunk of the window that is nearly clean, if any: distilled models read it twice."""
        if self.sampling.cfg_number != 1:
            return None
        oldest = next((i for i, level in enumerate(levels) if level < self.plan.num_steps), None)
        # The schedule equals the threshold up to rounding, which counts as above it.
        threshold = self.sampling.distill_nearly_clean_chunk_threshold - 1e-6
        return oldest if oldest is not None and self.times[levels[oldest]] > threshold else None

    def _call(self, latents, levels, texts, text, first_frame, key_frames, **arguments) -> torch.Tensor:
        device, length = latents.device, max(t.mask.shape[1] for t in texts)
        texts = [t.padded(length) for t in texts]
        caption = torch.stack([t.embeds for t in texts], dim=1)
        arguments |= {
            "encoder_attention_mask": torch.stack([t.mask for t in texts], dim=1) != 0,
            "caption_dropped": torch.full(levels.shape, not text, device=device),
            "shortcut": self.shortcuts[levels].to(device) if self.sampling.distill else None,
            # Tensors, so that a compiled transformer need not be compiled anew when the window moves on.
            "first_frame": torch.tensor(float(first_frame), device=device),
            "key_frames": torch.tensor([[r.start, r.stop] for r in key_frames]),
        }
        latents = latents.clone(memory_format=torch.contiguous_format)  # of a view, a graph would know the whole
        with torch._dynamo.config.patch(cache_size_limit=_MOST_GRAPHS):
            return self.transformer(latents, self.times[levels].to(device), caption, return_dict=False, **arguments)[0]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.cache.state_dict() | self.prompts.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.cache = type(self.cache)()
        self.cache.load_state_dict(state)
        self.prompts.load_state_dict(state)
