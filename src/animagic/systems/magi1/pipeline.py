"""Words, a picture or a clip to video with MAGI-1, streamed chunk by chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from ...errors import InputError
from ...media.outputs import Chunk, in_form, to_bytes
from ...timeline import FlowEuler, Progress, Sampler, Staircase, Timeline
from ...timeline.resume import RunFolder
from ...timeline.streaming import Interrupted, StreamingPipeline, Watch, kept_clean
from .autoencoder import AutoencoderKLMagi1
from .denoiser import Magi1Denoiser, Magi1Sampling
from .live import LivePrompts, PromptSource
from .lora import Magi1LoraLoaderMixin
from .offload import Magi1OffloadMixin
from .prompts import (
    ChunkPrompts,
    Magi1SpecialTokens,
    TextEmbedding,
    negative_caption,
    null_caption,
)
from .transformer import Magi1Transformer3DModel


class Noise:
    """Fresh noise for a timeline, drawn chunk after chunk: a longer video begins like a shorter one."""

    def __init__(self, shape: tuple[int, int, int, int], generator, device: torch.device, chunk_width: int):
        self.shape, self.generator, self.device, self.chunk_width = shape, generator, device, chunk_width

    def __call__(self, frames: range) -> torch.Tensor:
        batch, channels, height, width = self.shape
        pieces = [
            randn_tensor((batch, channels, self.chunk_width, height, width), self.generator, self.device, torch.float32)
            for _ in range(len(frames) // self.chunk_width)
        ]
        return torch.cat(pieces, dim=2)

    def _generators(self) -> list[torch.Generator]:
        return list(self.generator) if isinstance(self.generator, (list, tuple)) else [self.generator]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {str(i): generator.get_state() for i, generator in enumerate(self._generators())}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for i, generator in enumerate(self._generators()):
            generator.set_state(state[str(i)])


def _enhanced(prompt: Any, prompts_at: dict[int, str] | None, enhancer: Callable[[str], str]) -> tuple[Any, Any]:
    """Prompt (a text or several) and later prompts, as an enhancer writes them."""

    def one(text: str) -> str:
        better = enhancer(text)
        if not isinstance(better, str):
            raise InputError(f"prompt_enhancer must return a text, not {type(better).__name__}.")
        return better

    if prompt is None:
        raise InputError("prompt_enhancer needs a prompt; with prompt_embeds, enhance the text before encoding it.")
    prompt = one(prompt) if isinstance(prompt, str) else [one(text) for text in prompt]
    return prompt, {chunk: one(text) for chunk, text in (prompts_at or {}).items()}


class Magi1Pipeline(StreamingPipeline, Magi1OffloadMixin, Magi1LoraLoaderMixin, DiffusionPipeline):
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

    def encode_frames(self, frames: np.ndarray, batch: int = 1) -> torch.Tensor:
        """Pixels uint8 (frames, height, width, 3) to latents (batch, channels, latent frames, height/8, width/8)."""
        if self.vae is None:
            raise InputError("this pipeline has no autoencoder; pass prefix_latents.")
        video = torch.tensor(frames).permute(3, 0, 1, 2)[None].to(self._execution_device, self.vae.dtype)
        latents = self.vae.encode(video / 127.5 - 1).latent_dist.mode().float() * self.sampling.scale_factor
        return latents.expand(batch, *latents.shape[1:])

    def _prefix(self, image, video, size: tuple[int, int], fit: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The given pixels as (what is encoded, what is shown before the new frames)."""
        from ...media import resize

        height, width = size
        if image is not None and video is not None:
            raise InputError("give an image or a video, not both.")
        if image is not None:
            if isinstance(image, Image.Image):
                image = np.asarray(image.convert("RGB"))
            return resize(np.asarray(image)[None], height, width, fit), None
        if video is not None:
            if not isinstance(video, np.ndarray):
                video = np.stack([np.asarray(frame.convert("RGB")) for frame in video])
            whole = len(video) // self._frame_ratio * self._frame_ratio
            if not whole:
                raise InputError(f"the video has {len(video)} frames; at least {self._frame_ratio} are needed.")
            clip = resize(video[-whole:], height, width, fit)
            return clip, clip
        return None, None

    @property
    def _frame_ratio(self) -> int:
        return self.sampling.temporal_downsample_factor

    @property
    def _pixel_ratio(self) -> int:
        return 8 if self.vae is None else self.vae.config.patch_size

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError if the model cannot make this size."""
        unit = self._pixel_ratio * self.transformer.config.patch_size
        if height < unit or width < unit or height % unit or width % unit:
            near = tuple(max(unit, round(x / unit) * unit) for x in (width, height))
            raise InputError(
                f"{width}x{height} is not possible: width and height must be multiples of {unit}; "
                f"the nearest size is {near[0]}x{near[1]}."
            )

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
    def stream(
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
        fit: str = "crop",
        output_type: str = "pil",
        on_progress: Callable[[Progress], None] | None = None,
        on_preview: Callable[[Callable[[], np.ndarray]], None] | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        resume: RunFolder | None = None,
    ) -> Iterator[Chunk]:
        """Yield pieces of the video as they become clean. Memory does not grow with the length.

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
            latents: (videos, channels, latent frames, h, w) noise of the whole timeline, prefix included.
            prefix_latents: (videos, channels, latent frames, h, w) given clean frames: one (a picture) or more.
            fit: how image or video are brought to size: "crop", "pad" or "stretch".
            output_type: "pil", "np", "pt" or "latent".
            on_progress: called after every step. on_preview: called after every step with a function that decodes
                what is being made right now, uint8 (frames, height, width, 3).
            callback_on_step_end: as in diffusers: (pipe, step, timestep, {"latents"}) -> dict.
            resume: a folder in which the run is kept, and continued from if it holds one.

        Raises: InputError.
        """
        self.check_call(output_type, callback_on_step_end_tensor_inputs)
        sampling = self.configure(num_inference_steps, guidance_scale, enable_distillation, shortcut_mode)
        ratio, device = self._pixel_ratio, self._execution_device
        if latents is not None:
            height, width = latents.shape[-2] * ratio, latents.shape[-1] * ratio
        height, width = height or sampling.video_size_h, width or sampling.video_size_w
        self.check_size(height, width)

        source: Any = prompt if callable(prompt) else None
        if source is not None:
            if prompts_at:
                raise InputError("give later prompts by prompts_at or by a live prompt, not by both.")
            prompt = source(0)
            if prompt is None:
                raise InputError("the live prompt has nothing for the first chunk; say what the video should show.")
        texts: Any = [prompt] if isinstance(prompt, str) else prompt
        batch = len(texts) if texts is not None else 1 if prompt_embeds is None else len(prompt_embeds)
        batch *= num_videos_per_prompt
        given, shown = self._prefix(image, video, (height, width), fit)
        if given is not None:
            prefix_latents = self.encode_frames(given, batch)
        prefix_frames = 0 if prefix_latents is None else prefix_latents.shape[2]
        if latents is not None:
            chunks: int | None = latents.shape[2] // sampling.chunk_width
            wanted = None
        else:
            wanted = None if endless else (sampling.num_frames if num_frames is None else num_frames)
            if wanted is not None and wanted < 1:
                raise InputError(f"the number of frames must be at least 1, not {wanted}.")
            before = 0 if shown is None else len(shown)
            # A picture is shown as the first of the new frames; a clip only stands before them.
            hidden = prefix_frames if prefix_frames > 1 or shown is not None else 0
            new = None if wanted is None else wanted - before
            if new is not None and new < 1:
                raise InputError(f"the given clip already has {before} of the {wanted} frames; ask for more frames.")
            chunks = None if new is None else sampling.chunks_of(new, hidden)
        late = max(prompts_at or {0: ""})
        if chunks is not None and late >= chunks:
            raise InputError(f"no prompt can begin at chunk {late}: the video has {chunks}, counted from 0.")
        plan = sampling.plan(chunks, prefix_frames)

        if prompt_enhancer is not None:
            prompt, prompts_at = _enhanced(prompt, prompts_at, prompt_enhancer)
        known = self.encode_prompt(
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
        prompts: ChunkPrompts | LivePrompts = known
        if source is not None:
            prompts = self._live(known, source, prompt_enhancer, len(texts), num_videos_per_prompt)
        if latents is not None:
            whole = latents.to(device, torch.float32)
            noise: Any = lambda frames: whole[:, :, frames.start : frames.stop].clone()  # noqa: E731
        else:
            generator = generator if generator is not None else torch.Generator().manual_seed(sampling.seed)
            shape = (batch, self.transformer.latent_channels, height // ratio, width // ratio)
            noise = Noise(shape, generator, device, sampling.chunk_width)
        denoiser = Magi1Denoiser(self.transformer, prompts, plan, sampling, self.kv_offload)
        timeline = Timeline(noise, None if prefix_latents is None else prefix_latents.to(device, torch.float32))
        sampler = Sampler(plan, sampling.guide(denoiser), FlowEuler(sampling.times()), timeline)
        sampler.on_step = Watch(
            self,
            sampler,
            lambda level: sampling.times()[level] * 1000,
            lambda latents: to_bytes(self._decode(latents, "np")[0]),
            callback=callback_on_step_end,
            resume=resume,
            on_preview=on_preview,
            on_progress=on_progress,
        )
        self.interrupt = False
        with contextlib.suppress(Interrupted):
            yield from self._emit(sampler, resume, shown, wanted, output_type, batch)
        self.maybe_free_model_hooks()

    def _emit(self, sampler: Sampler, resume: RunFolder | None, shown, wanted, output_type, batch) -> Iterator[Chunk]:
        """Clean latents to pixels, cut to the frames asked for, behind the clip that was given."""
        start = 0
        if shown is not None and output_type != "latent":
            start = len(shown)
            given = torch.from_numpy(shown[None, :wanted]).permute(0, 1, 4, 2, 3).float() / 255
            yield Chunk(in_form(given.repeat(batch, 1, 1, 1, 1), output_type), 0, self.sampling.fps)
        for clean in kept_clean(sampler, resume, self._execution_device):
            if output_type == "latent":
                frames: Any = clean.latents
                yield Chunk(frames, clean.frames.start, self.sampling.fps)
            else:
                latents, prefix = clean.latents, sampler.timeline.prefix
                if prefix is not None and clean.frames.start < prefix.shape[2]:  # the picture, as it was given
                    latents = torch.cat([prefix[:, :, clean.frames.start :], latents[:, :, prefix.shape[2] :]], dim=2)
                # Given frames in front of it in its chunk are decoded with it: it is their continuation, and a latent
                # frame alone would be taken for a picture.
                hidden = clean.frames.start % self.sampling.chunk_width
                if hidden and prefix is not None:
                    latents = torch.cat([prefix[:, :, -hidden:], latents], dim=2)
                if shown is not None and prefix is not None:
                    # A clip of one latent frame, which plans take for a picture, was shown already.
                    hidden = max(hidden, prefix.shape[2] - clean.frames.start)
                left = None if wanted is None else wanted - start
                frames = self._decode(latents, output_type, hidden * self._frame_ratio, left)
                yield Chunk(frames, start, self.sampling.fps)
                start += len(frames[0])
                if wanted is not None and start >= wanted:
                    return
            if self.interrupt:
                return

    def _decode(self, latents: torch.Tensor, output_type: str, skip: int = 0, limit: int | None = None) -> Any:
        latents = latents.to(self.vae.dtype) / self.sampling.scale_factor
        video = self.vae.decode(latents.to(self._execution_device)).sample.float()
        return in_form((video / 2 + 0.5).clamp(0, 1).transpose(1, 2)[:, skip:][:, :limit], output_type)

    def __call__(self, prompt: str | Sequence[str] | None = None, return_dict: bool = True, **arguments):  # type: ignore[override]
        """Make the whole video; the arguments are those of `stream`. Returns VideoOutput (`.frames`, `.save`).

        Raises: InputError.
        """
        if arguments.get("endless"):
            raise InputError("an endless video cannot be returned as a whole; use stream().")
        return super().__call__(prompt, return_dict=return_dict, **arguments)

    def plan(
        self, num_frames: int | None = None, num_inference_steps: int | None = None, endless: bool = False
    ) -> Staircase:
        """The plan that a call with these numbers would follow."""
        sampling = self.configure(num_inference_steps)
        if endless:
            return sampling.plan(None)
        return sampling.plan(sampling.chunks_of(sampling.num_frames if num_frames is None else num_frames))


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
