"""Text, an image or a video to video with MAGI-1, streamed chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers.loaders import HunyuanVideoLoraLoaderMixin

from ...errors import InputError
from ...media.frames import resize
from ...pipelines.base import Call, Run, VideoPipeline, frames_of
from ...timeline import FlowEuler, Timeline
from ...timeline.engine import Clean
from ...weights.lora import LoraMixin, LoraPart
from .autoencoder import AutoencoderKLMagi1
from .denoiser import Magi1Denoiser, Magi1Sampling
from .prompts import Magi1PromptMixin, Magi1SpecialTokens
from .transformer import Magi1Transformer3DModel


class Magi1LoraLoaderMixin(LoraMixin, HunyuanVideoLoraLoaderMixin):
    """LoRA in MAGI-1's pipelines, whose transformer has the layer names of the published checkpoints; files are
    written as those of any diffusers pipeline with one transformer."""

    lora_parts = (LoraPart("transformer", norm="videodit_blocks.layers.0.mlp.layer_norm"),)


class Magi1Pipeline(Magi1PromptMixin, Magi1LoraLoaderMixin, VideoPipeline):
    """Text, image or video to video with MAGI-1 (arXiv 2505.13211).

    Parts that a call does not need may be None. config: the sampling settings, in the form of the original JSON
    (`runtime_config`, `engine_config`).
    """

    sampling = Magi1Sampling()
    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["vae", "text_encoder", "tokenizer", "special_tokens"]
    # Only its rows are read: no call, so no hook would bring it back.
    _exclude_from_cpu_offload = ["special_tokens"]

    kv_offload = False
    """Whether the key/value cache lies in CPU memory."""

    def __init__(
        self,
        transformer: Magi1Transformer3DModel,
        vae: AutoencoderKLMagi1 | None = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        special_tokens: Magi1SpecialTokens | None = None,
        config: dict[str, Any] | None = None,
    ):
        texts = {"text_encoder": text_encoder, "tokenizer": tokenizer, "special_tokens": special_tokens}
        super().__init__()
        self._register_parts(config, transformer=transformer, vae=vae, **texts)
        if transformer is not None and "chunk_width" not in ((config or {}).get("runtime_config") or {}):
            self.sampling = self.sampling.changed(chunk_width=transformer.config.chunk_width)

    @classmethod
    def from_original(cls, source: Any, *, torch_dtype: torch.dtype | None = None, **arguments: Any) -> Any:
        """The pipeline of a published model, read shard by shard. Raises InputError or CheckpointError.

        Args:
            source: an original configuration (JSON file, or its fields), or the folder of a published transformer.
            config: the configuration where `source` is a folder; without it, the six published models are recognised.
            transformer: its folder, in place of `load` in the configuration.
            vae, t5, special_tokens: folder, folder and .npz file in place of those in the configuration or beside the
                transformer; None: do without. Special tokens that are nowhere are left out: a model works without.
            torch_dtype: of the weights; None: as stored. FP8 stays FP8.
            allow_pickle: read the text encoder from pickles (`pytorch_model*.bin`); no code in them is run.
        """
        from .weights import open_original

        opened = open_original(cls, source, **arguments)
        for part in opened.parts.values():
            part.load(torch_dtype)
        if torch_dtype is not None and opened.pipeline.special_tokens is not None:
            opened.pipeline.special_tokens.to(torch_dtype)
        return opened.pipeline

    def to_latents(self, video: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(video).latent_dist.mode().float() * self.sampling.scale_factor

    def to_video(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.vae.dtype) / self.sampling.scale_factor
        return self.vae.decode(latents.to(self._execution_device)).sample

    def _given(self, call: Call, size: tuple[int, int]) -> np.ndarray | None:
        """The pixels to continue: an image, or the end of a video in whole latent frames."""
        frames = frames_of(call.image, call.video)
        if frames is not None and call.video is not None:
            ratio = self.sampling.frames_per_latent
            if len(frames) < ratio:
                raise InputError(f"the video has {len(frames)} frames; at least {ratio} are needed.")
            frames = frames[-(len(frames) // ratio * ratio) :]
        return None if frames is None else resize(frames, *size, call.fit)

    @property
    def latent_channels(self) -> int:  # type: ignore[override]
        return self.transformer.latent_channels

    @property
    def pixels_per_latent(self) -> int:  # type: ignore[override]
        return 8 if self.vae is None else self.vae.config.patch_size

    @property
    def size_unit(self) -> int:
        return self.pixels_per_latent * self.transformer.config.patch_size

    def configure(
        self,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        enable_distillation: bool | None = None,
        shortcut_mode: str | None = None,
    ) -> Magi1Sampling:
        """The sampling settings of a call.

        enable_distillation: whether a distilled model reads its step size; shortcut_mode: how 12 steps divide each
        quarter, "8,16,16" or "16,16,8".
        """
        sampling = self.sampling
        if enable_distillation and not sampling.distill:
            raise InputError("this checkpoint is not distilled; leave enable_distillation out.")
        scales = None
        if guidance_scale is not None:
            if not 0 <= guidance_scale <= 100:
                raise InputError(f"the guidance scale must lie between 0 and 100, not {guidance_scale}.")
            # The ranges keep their proportions: the scale given is that of the strongest.
            strongest = max(*sampling.text_scales, 1e-9)
            scales = [scale * guidance_scale / strongest for scale in sampling.text_scales]
        return sampling.changed(
            num_steps=num_inference_steps, text_scales=scales, distill=enable_distillation, shortcut_mode=shortcut_mode
        )

    def enable_kv_offload(self) -> None:
        """Keep the key/value cache in CPU memory; on CUDA, each layer's is fetched while the layer before computes."""
        self.kv_offload = True

    def disable_kv_offload(self) -> None:
        """Keep the key/value cache on the device of the transformer."""
        self.kv_offload = False

    def enable_group_offload(self, *arguments: Any, exclude_modules: Any = None, **named: Any) -> None:
        """As in diffusers (`DiffusionPipeline.enable_group_offload`), but for the table of special tokens."""
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or ())
        excluded += [name for name in self._exclude_from_cpu_offload if name in self.components]
        super().enable_group_offload(*arguments, exclude_modules=excluded, **named)

    def prepare(
        self,
        call: Call,
        *,
        endless: bool = False,
        enable_distillation: bool | None = None,
        shortcut_mode: str | None = None,
        prefix_latents: torch.Tensor | None = None,
        **texts: Any,
    ) -> Run:
        """The run of a call; its memory does not grow with the length of the video. Raises InputError.

        Args:
            call: its image is the first frame; its video is continued, output again at the front and counted in
                `num_frames`. Its latents are the noise of the whole timeline, prefix included. Without a generator:
                the model's seed.
            endless: never stop.
            enable_distillation, shortcut_mode: see `configure`.
            prefix_latents: (videos, channels, latent frames, h, w) given clean frames: one (an image) or more.
            texts: see `embed_prompts`, which takes the prompt of the call.
        """
        sampling = self.configure(call.num_inference_steps, call.guidance_scale, enable_distillation, shortcut_mode)
        size = self.size_of(call)
        given = self._given(call, size)
        shown = given if call.video is not None else None
        if given is not None:
            prefix_latents = self.encode_frames(given)
        prefix_frames = 0 if prefix_latents is None else prefix_latents.shape[2]
        wanted = sampling.num_frames if call.num_frames is None else call.num_frames
        chunks: int | None = None
        if call.latents is not None:
            chunks, left = divmod(call.latents.shape[2], sampling.chunk_width)
            if left:
                raise InputError(
                    f"latents of {call.latents.shape[2]} frames are no whole chunks; give a multiple of "
                    f"{sampling.chunk_width}."
                )
        elif not endless:
            before = 0 if shown is None else len(shown)
            if before and wanted <= before:
                raise InputError(f"the given clip already has {before} of the {wanted} frames; ask for more frames.")
            # An image is the first of the new frames; a clip stands before them.
            not_new = prefix_frames if prefix_frames > 1 or before else 0
            chunks = sampling.chunks_of(wanted - before, not_new)
        plan = sampling.plan(chunks, prefix_frames)
        prompts = self.embed_prompts(call.prompt, chunks, num_videos_per_prompt=call.num_videos_per_prompt, **texts)
        denoiser = Magi1Denoiser(self.transformer, prompts, plan, sampling, self.kv_offload)
        videos = len(prompts.null.mask)
        if call.generator is None:
            call = replace(call, generator=torch.Generator().manual_seed(sampling.seed))
        noise, prefix = self.noise(call, videos, size, sampling.chunk_width), None
        if prefix_latents is not None:
            prefix = prefix_latents.expand(videos, -1, -1, -1, -1).to(self._execution_device, torch.float32)
        limit = None if endless or call.latents is not None else wanted
        solver = FlowEuler(sampling.times())
        return Run(plan, sampling.guide(denoiser), solver, Timeline(noise, prefix), videos, limit, shown)

    def decodable(self, clean: Clean, run: Run) -> tuple[torch.Tensor, int]:
        latents, _ = super().decodable(clean, run)
        prefix, hidden = run.timeline.prefix, clean.frames.start % self.sampling.chunk_width
        if prefix is not None and hidden:
            # Decoded with the given frames of its chunk, which it continues: a latent frame alone would be an image.
            latents = torch.cat([prefix[:, :, -hidden:], latents], dim=2)
        if prefix is not None and run.shown is not None:
            # A clip of one latent frame, which plans take for an image, was output already.
            hidden = max(hidden, prefix.shape[2] - clean.frames.start)
        return latents, hidden * self.sampling.frames_per_latent


class Magi1ImageToVideoPipeline(Magi1Pipeline):
    """Magi1Pipeline called as `pipe(image, prompt, ...)`: an image begins to move."""

    def __call__(self, image: Any = None, prompt: str | Sequence[str] | None = None, **arguments):  # type: ignore[override]
        if image is None and arguments.get("prefix_latents") is None:
            raise InputError("image to video needs an image.")
        return super().__call__(prompt, image=image, **arguments)


class Magi1VideoToVideoPipeline(Magi1Pipeline):
    """Magi1Pipeline called as `pipe(video, prompt, ...)`: a clip goes on; `num_frames` counts its frames too."""

    def __call__(self, video: Any = None, prompt: str | Sequence[str] | None = None, **arguments):  # type: ignore[override]
        if video is None and arguments.get("prefix_latents") is None:
            raise InputError("video to video needs a video.")
        return super().__call__(prompt, video=video, **arguments)
