"""Text, an image or a video to video with MAGI-1, streamed chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...media.frames import resize
from ...pipelines.base import Run, VideoPipeline, frames_of
from ...timeline import FlowEuler, Staircase, Timeline
from ...timeline.engine import Clean
from .autoencoder import AutoencoderKLMagi1
from .denoiser import Magi1Denoiser, Magi1Sampling
from .live import LivePrompts, PromptSource
from .lora import Magi1LoraLoaderMixin
from .offload import Magi1OffloadMixin
from .prompts import ChunkPrompts, Magi1SpecialTokens, TextEmbedding, enhanced, negative_caption, null_caption
from .transformer import Magi1Transformer3DModel


class Magi1Pipeline(Magi1OffloadMixin, Magi1LoraLoaderMixin, VideoPipeline):
    """Text, image or video to video with MAGI-1 (arXiv 2505.13211).

    Args:
        transformer, vae, text_encoder, tokenizer: the parts; those that a call does not need may be None.
        special_tokens: the table of special tokens of the published models.
        config: the sampling settings, in the form of the original JSON (`runtime_config`, `engine_config`).
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["vae", "text_encoder", "tokenizer", "special_tokens"]

    def __init__(
        self,
        transformer: Magi1Transformer3DModel,
        vae: AutoencoderKLMagi1 | None = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        special_tokens: Magi1SpecialTokens | None = None,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            special_tokens=special_tokens,
        )
        self.register_to_config(config=config)
        self.sampling = Magi1Sampling.from_config(config)

    @classmethod
    def from_original(cls, source: Any, **arguments: Any) -> Any:
        """The pipeline of a model as it was published, read shard by shard.

        Args:
            source: an original configuration (JSON file), or the folder of a published transformer.
            config: the configuration where `source` is a folder; without it, the six published models are recognised.
            transformer, vae, t5, special_tokens: paths in place of those that the configuration names or that lie
                beside the transformer. vae=None or t5=None: do without.
            torch_dtype: of the weights; None: as stored. FP8 stays FP8.
            allow_pickle: read the text encoder from pickles; no code in them is run.
        Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
        """
        from .weights import load_original

        return load_original(cls, source, **arguments)

    # ---------------------------------------------------------------- what goes in

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        *,
        prompts_at: dict[int, str] | None = None,
        negative_prompt: str | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        special_tokens: Sequence[str] = (),
        negative_special_tokens: Sequence[str] = (),
        num_chunks: int | None = None,
        hand_over: int = 0,
    ) -> ChunkPrompts:
        """The text of every chunk.

        Args:
            prompt: one text, or one a video of the batch.
            prompts_at: chunk -> text that holds from there on (for every video of the batch).
            negative_prompt: read in place of the learned null caption.
            prompt_embeds, prompt_embeds_mask: (batch, length, channels), (batch, length) instead of `prompt`.
            special_tokens: names of tokens in front of every prompt; negative_special_tokens: in front of what is
                read in place of it (NEGATIVE_TOKENS).
            hand_over: chunks over which one prompt turns into the next; 0: at once.
        Raises: InputError.
        """
        if prompt_embeds is not None:
            if prompt is not None:
                raise InputError("give either prompt or prompt_embeds, not both.")
            if prompt_embeds_mask is None:
                raise InputError("prompt_embeds needs its prompt_embeds_mask.")
            first = TextEmbedding(prompt_embeds, prompt_embeds_mask)
        elif prompt is not None:
            first = self._encode([prompt] if isinstance(prompt, str) else prompt)
        else:
            raise InputError("give a prompt: say what the video should show.")
        batch = len(first.mask)
        prompts = [(0, first)]
        for chunk, text in sorted((prompts_at or {}).items()):
            if chunk < 0:
                raise InputError(f"a prompt cannot begin at chunk {chunk}; chunks count from 0.")
            later = self._encode([text] * batch)
            prompts = [(c, t) for c, t in prompts if c != chunk] + [(chunk, later)]
        if negative_prompt is not None and negative_prompt.strip():
            null = self._encode([negative_prompt] * batch)
        else:
            null = null_caption(self.transformer.y_embedder(), batch)
        null = negative_caption(null, negative_special_tokens, self.special_tokens)
        return ChunkPrompts(
            prompts=tuple((c, text.repeated(num_videos_per_prompt)) for c, text in prompts),
            null=null.repeated(num_videos_per_prompt),
            special=tuple(special_tokens),
            table=self.special_tokens,
            num_chunks=num_chunks,
            hand_over=hand_over,
        ).to(self._execution_device)

    def _live(self, prompts: ChunkPrompts, source: PromptSource, enhancer, batch: int, videos: int) -> LivePrompts:
        def encode(text: str) -> TextEmbedding:
            text = text if enhancer is None else enhancer(text)
            embedding = self._encode([text] * batch).repeated(videos).to(self._execution_device)
            return embedding.trimmed(spare=len(prompts.special))

        return LivePrompts(prompts, source, encode)

    def to_latents(self, video: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(video).latent_dist.mode().float() * self.sampling.scale_factor

    def to_video(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.vae.dtype) / self.sampling.scale_factor
        return self.vae.decode(latents.to(self._execution_device)).sample

    def _given(self, image: Any, video: Any, size: tuple[int, int], fit: Any) -> np.ndarray | None:
        """The pixels to go on from: an image, or the end of a video in whole latent frames."""
        frames = frames_of(image, video)
        if frames is not None and video is not None:
            ratio = self.sampling.frames_per_latent
            if len(frames) < ratio:
                raise InputError(f"the video has {len(frames)} frames; at least {ratio} are needed.")
            frames = frames[-(len(frames) // ratio * ratio) :]
        return None if frames is None else resize(frames, *size, fit)

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
        """The sampling settings of a call: the model's own, changed where something is given.

        enable_distillation: whether a distilled model is told its step size; shortcut_mode: how 12 steps divide each
        quarter, "8,16,16" or "16,16,8".
        """
        sampling = self.sampling.with_steps(num_inference_steps)
        if shortcut_mode is not None:
            sampling = replace(sampling, shortcut_mode=shortcut_mode)
        if guidance_scale is not None:
            if not 0 <= guidance_scale <= 100:
                raise InputError(f"the guidance scale must lie between 0 and 100, not {guidance_scale}.")
            # The ranges keep their proportions: the scale given is that of the strongest.
            strongest = max(max(sampling.text_scales), 1e-9)
            scales = tuple(scale * guidance_scale / strongest for scale in sampling.text_scales)
            sampling = replace(sampling, text_scales=scales)
        if enable_distillation is not None and enable_distillation != sampling.distill:
            if enable_distillation:
                raise InputError("this checkpoint is not distilled; leave enable_distillation out.")
            sampling = replace(sampling, distill=False)
        return sampling

    # ---------------------------------------------------------------- the work

    @torch.no_grad()
    def prepare(  # type: ignore[override]
        self,
        prompt: str | Sequence[str] | PromptSource | None = None,
        *,
        image: Any = None,
        video: Any = None,
        prompts_at: dict[int, str] | None = None,
        hand_over: int = 0,
        negative_prompt: str | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        endless: bool = False,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        enable_distillation: bool | None = None,
        shortcut_mode: str | None = None,
        special_tokens: Sequence[str] = (),
        negative_special_tokens: Sequence[str] = (),
        prompt_enhancer: Callable[[str], str] | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prefix_latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
        fit: Any = "crop",
    ) -> Run:
        """What a call decides before the first step. The memory of a run does not grow with the length of the video.

        Args:
            prompt: what to show; a list makes one video each. A `LivePrompt`, or any function from a chunk's index to
                its text (None: no change), is asked when a chunk begins, so the prompt may change while this runs.
            image: first frame (PIL or uint8 (H, W, 3)); video: frames to go on from (PIL list or uint8 (F, H, W, 3)),
                shown again at the front and counted in `num_frames`.
            prompts_at: chunk -> prompt that holds from that chunk on. hand_over: chunks over which it takes over.
            height, width: pixels; num_frames: frames to yield; None: the model's own. endless: never stop.
            num_inference_steps, guidance_scale, enable_distillation, shortcut_mode: see `configure`.
            special_tokens, negative_special_tokens: see `encode_prompt`.
            prompt_enhancer: rewrites every prompt before it is read, for example animagic.enhancement's.
            generator: one, or one for each video; None: the model's own seed.
            latents: (videos, channels, latent frames, h, w) noise of the whole timeline, prefix included.
            prefix_latents: (videos, channels, latent frames, h, w) given clean frames: one (a picture) or more.
            fit: how image or video are brought to size: "crop", "pad" or "stretch".

        Raises: InputError.
        """
        sampling = self.configure(num_inference_steps, guidance_scale, enable_distillation, shortcut_mode)
        size = self.size_of(latents, height, width)
        source: Any = prompt if callable(prompt) else None
        if source is not None:
            if prompts_at:
                raise InputError("give later prompts by prompts_at or by a live prompt, not by both.")
            prompt = source(0)
            if prompt is None:
                raise InputError("the live prompt has nothing for the first chunk; say what the video should show.")
        texts: Any = [prompt] if isinstance(prompt, str) else prompt
        batch = len(texts) if texts is not None else 1 if prompt_embeds is None else len(prompt_embeds)
        videos = batch * num_videos_per_prompt

        given = self._given(image, video, size, fit)
        shown = given if video is not None else None
        if given is not None:
            prefix_latents = self.encode_frames(given).expand(videos, -1, -1, -1, -1)
        prefix_frames = 0 if prefix_latents is None else prefix_latents.shape[2]
        wanted: int | None
        chunks: int | None
        if latents is not None:
            wanted, chunks = None, latents.shape[2] // sampling.chunk_width
        else:
            wanted = None if endless else sampling.num_frames if num_frames is None else num_frames
            chunks = None if wanted is None else self._chunks(sampling, wanted, prefix_frames, shown)
        late = max(prompts_at or {0: ""})
        if chunks is not None and late >= chunks:
            raise InputError(f"no prompt can begin at chunk {late}: the video has {chunks}, counted from 0.")
        plan = sampling.plan(chunks, prefix_frames)

        if prompt_enhancer is not None:
            prompt, prompts_at = enhanced(prompt, prompts_at, prompt_enhancer)
        prompts: Any = self.encode_prompt(
            prompt,  # type: ignore[arg-type]  # a source has been asked by now
            prompts_at=prompts_at,
            negative_prompt=negative_prompt,
            prompt_embeds=prompt_embeds,
            prompt_embeds_mask=prompt_embeds_mask,
            num_videos_per_prompt=num_videos_per_prompt,
            special_tokens=special_tokens,
            negative_special_tokens=negative_special_tokens,
            num_chunks=chunks,
            hand_over=hand_over,
        )
        if source is not None:
            prompts = self._live(prompts, source, prompt_enhancer, batch, num_videos_per_prompt)
        if generator is None:
            generator = torch.Generator().manual_seed(sampling.seed)
        noise = self.noise(latents, videos, size, generator, sampling.chunk_width)
        prefix = None if prefix_latents is None else prefix_latents.to(self._execution_device, torch.float32)
        denoiser = Magi1Denoiser(self.transformer, prompts, plan, sampling, self.kv_offload)
        solver = FlowEuler(sampling.times())
        return Run(plan, sampling.guide(denoiser), solver, Timeline(noise, prefix), videos, wanted, shown)

    def _chunks(self, sampling: Magi1Sampling, wanted: int, prefix_frames: int, shown: np.ndarray | None) -> int:
        """Chunks of the timeline of a video that ends. Raises InputError."""
        if wanted < 1:
            raise InputError(f"the number of frames must be at least 1, not {wanted}.")
        before = 0 if shown is None else len(shown)
        if wanted <= before:
            raise InputError(f"the given clip already has {before} of the {wanted} frames; ask for more frames.")
        # A picture is shown as the first of the new frames; a clip only stands before them.
        return sampling.chunks_of(wanted - before, prefix_frames if prefix_frames > 1 or shown is not None else 0)

    def decodable(self, clean: Clean, run: Run) -> tuple[torch.Tensor, int]:
        latents, _ = super().decodable(clean, run)
        prefix, hidden = run.timeline.prefix, clean.frames.start % self.sampling.chunk_width
        if prefix is not None and hidden:
            # Given frames in front of it in its chunk are decoded with it: it is their continuation, and a latent
            # frame alone would be taken for a picture.
            latents = torch.cat([prefix[:, :, -hidden:], latents], dim=2)
        if prefix is not None and run.shown is not None:
            # A clip of one latent frame, which plans take for a picture, was shown already.
            hidden = max(hidden, prefix.shape[2] - clean.frames.start)
        return latents, hidden * self.sampling.frames_per_latent

    def plan(  # type: ignore[override]
        self, num_frames: int | None = None, num_inference_steps: int | None = None, endless: bool = False
    ) -> Staircase:
        """The plan that a call with these numbers would follow."""
        return self.sampling.plan_for(num_frames, num_inference_steps, endless)


class Magi1ImageToVideoPipeline(Magi1Pipeline):
    """A picture that begins to move. `pipe(image, prompt, ...)`; the rest is as in Magi1Pipeline."""

    def __call__(self, image: Any = None, prompt: str | Sequence[str] | None = None, **arguments):  # type: ignore[override]
        if image is None and arguments.get("prefix_latents") is None:
            raise InputError("image to video needs an image.")
        return super().__call__(prompt, image=image, **arguments)


class Magi1VideoToVideoPipeline(Magi1Pipeline):
    """A clip that goes on. `pipe(video, prompt, ...)`; `num_frames` counts the given frames too."""

    def __call__(self, video: Any = None, prompt: str | Sequence[str] | None = None, **arguments):  # type: ignore[override]
        if video is None and arguments.get("prefix_latents") is None:
            raise InputError("video to video needs a video.")
        return super().__call__(prompt, video=video, **arguments)
