"""Words, a picture or a clip to video with AnimateDiff: any personalised picture model and a motion module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from ...errors import InputError
from ...media.outputs import Chunk, in_form, to_bytes
from ...timeline import Plan, Progress, Sampler, SchedulerSolver, Timeline, build_scheduler
from ...timeline.resume import RunFolder
from ...timeline.streaming import Interrupted, StreamingPipeline, Watch, kept_clean
from ...weights.textual_inversion import TextualInversionMixin
from .denoiser import AnimateDiffDenoiser, AnimateDiffSampling
from .lora import AnimateDiffLoraMixin
from .noise import FreeInit, free_noise
from .prompts import PromptEmbeds, TextEmbeds, encode_texts, travel
from .sparse import SparseControl, SparseControlNet
from .unet import AnimateDiffUNet

DECODED_TOGETHER = 16  # frames; more take memory and save no time


def _one_each(name: str, embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Embeds of `count` texts, also from one for all. Raises InputError."""
    if embeds.ndim != 3 or len(embeds) not in (1, count):
        raise InputError(f"{name} must have the shape ({count}, length, channels), not {tuple(embeds.shape)}.")
    return embeds.expand(count, -1, -1)


def _picture(picture: Any) -> np.ndarray:
    """A PIL image or pixels as pixels."""
    return np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)


class AnimateDiffPipeline(
    StreamingPipeline, StableDiffusionMixin, TextualInversionMixin, AnimateDiffLoraMixin, DiffusionPipeline
):
    """Text, image or video to video with AnimateDiff (arXiv 2307.04725).

    Args:
        unet, vae, text_encoder, tokenizer: the parts; those that a call does not need may be None.
        scheduler: any of diffusers (see `timeline.build_scheduler`); None: DDIM with AnimateDiff's linear betas.
        text_encoder_2, tokenizer_2: the second ones of SDXL.
        sparse_controlnet: keeps frames to given pictures or scribbles.
        config: fields of AnimateDiffSampling: what a call takes where it says nothing else.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components = [
        "vae",
        "text_encoder",
        "tokenizer",
        "scheduler",
        "text_encoder_2",
        "tokenizer_2",
        "sparse_controlnet",
    ]

    def __init__(
        self,
        unet: AnimateDiffUNet,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        scheduler: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        sparse_controlnet: SparseControlNet | None = None,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.register_modules(
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=build_scheduler("ddim") if scheduler is None else scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            sparse_controlnet=sparse_controlnet,
        )
        self.register_to_config(config=config)
        self.sampling = AnimateDiffSampling.from_config(config)

    @classmethod
    def from_published(cls, base: Any, motion_module: Any = None, **arguments: Any) -> AnimateDiffPipeline:
        """The pipeline of published files; the arguments are those of `files.load_published`."""
        from .weights import load_published

        return load_published(cls, base, motion_module, **arguments)

    # ---------------------------------------------------------------- what goes in

    @property
    def reads_motion(self) -> bool:
        """Whether the motion modules read a text of their own."""
        return "Temporal_Cross" in self.unet.config.motion_attention_block_types

    @property
    def _encoders(self) -> list[tuple[Any, Any]]:
        pairs = ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2))
        return [(tokenizer, encoder) for tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]

    def encode(self, texts: Sequence[str], clip_skip: int | None = None) -> TextEmbeds:
        """Texts as the UNet reads them. Raises InputError."""
        if not self._encoders:
            raise InputError("this pipeline has no text encoder with a tokenizer; pass prompt_embeds.")
        return encode_texts(texts, self._encoders, clip_skip=clip_skip, convert=self.maybe_convert_prompt)

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        *,
        num_frames: int,
        size: tuple[int, int],
        prompts_at: Mapping[int, str] | None = None,
        motion_prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        negative_motion_prompt: str | None = None,
        clip_skip: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        motion_prompt_embeds: torch.Tensor | None = None,
        negative_motion_prompt_embeds: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        closed_loop: bool = False,
    ) -> PromptEmbeds:
        """The texts of a call; the arguments are those of `stream`. size: (height, width). Raises InputError."""
        if prompt_embeds is not None:
            if prompt is not None:
                raise InputError("give either prompt or prompt_embeds, not both.")
            if self.unet.config.addition_embed_type is not None:
                raise InputError("an SDXL model needs a prompt; prompt_embeds are for Stable Diffusion.")
            first = TextEmbeds(_one_each("prompt_embeds", prompt_embeds, len(prompt_embeds)))
        elif isinstance(prompt, str) or prompt:
            first = self.encode([prompt] if isinstance(prompt, str) else prompt, clip_skip)
        else:
            raise InputError("give a prompt: say what the video should show.")
        if num_videos_per_prompt < 1:
            raise InputError(f"num_videos_per_prompt must be at least 1, not {num_videos_per_prompt}.")
        count, repeats = len(first.sequence), num_videos_per_prompt

        def one_each(texts: str | Sequence[str], skip: int | None = None) -> TextEmbeds:
            if not isinstance(texts, str) and len(texts) != count:
                raise InputError(f"there are {count} prompts but {len(texts)} texts for them; give one, or one each.")
            return self.encode([texts] * count if isinstance(texts, str) else texts, skip)

        if negative_prompt_embeds is not None:
            negative = TextEmbeds(_one_each("negative_prompt_embeds", negative_prompt_embeds, count))
        elif negative_prompt is None and len(self._encoders) != 1:
            negative = first.zeros()  # SDXL was trained so; and without an encoder there is no other
        else:
            negative = one_each(negative_prompt or "", clip_skip)
        motion, unmoved = first.sequence, negative.sequence
        if motion_prompt_embeds is not None:
            motion = _one_each("motion_prompt_embeds", motion_prompt_embeds, count)
        if negative_motion_prompt_embeds is not None:
            unmoved = _one_each("negative_motion_prompt_embeds", negative_motion_prompt_embeds, count)
        given = (motion_prompt_embeds, negative_motion_prompt_embeds)
        spoken = motion_prompt or negative_motion_prompt or any(embeds is not None for embeds in given)
        if spoken and not self.reads_motion:
            raise InputError("this motion module reads no text of its own; say how things move in the prompt.")
        if motion_prompt:
            motion = one_each(motion_prompt).sequence
        if self.reads_motion and negative_motion_prompt_embeds is None and self._encoders:
            unmoved = one_each(negative_motion_prompt or "").sequence
        keys = {0: first.repeated(repeats).sequence}
        for frame, text in (prompts_at or {}).items():
            keys[frame] = one_each(text, clip_skip).repeated(repeats).sequence
        added, not_added = (self._size_conditions(text.repeated(repeats), size) for text in (first, negative))
        return PromptEmbeds(
            prompted=travel(keys, num_frames, closed_loop) if len(keys) > 1 else keys[0][:, None],
            unprompted=negative.repeated(repeats).sequence[:, None],
            motion=motion.repeat_interleave(repeats, dim=0),
            unmoved=unmoved.repeat_interleave(repeats, dim=0),
            added=added,
            not_added=not_added,
        ).to(self._execution_device, self.unet.dtype)

    def _size_conditions(self, text: TextEmbeds, size: tuple[int, int]) -> dict[str, torch.Tensor] | None:
        """What SDXL is told besides the prompt: the pooled text, and the size of the picture, uncropped."""
        if self.unet.config.addition_embed_type != "text_time":
            return None
        if text.pooled is None:
            raise InputError("an SDXL model needs both of its text encoders.")
        times = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32).expand(len(text.pooled), -1)
        return {"text_embeds": text.pooled, "time_ids": times.contiguous()}

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Pixels uint8 (frames, height, width, 3) to latents (1, 4, frames, h, w), without noise. Raises InputError."""
        if self.vae is None:
            raise InputError("this pipeline has no autoencoder; it cannot read pictures.")
        pixels = torch.tensor(frames).permute(0, 3, 1, 2).to(self._execution_device, self.vae.dtype) / 127.5 - 1
        latents = [self.vae.encode(part).latent_dist.mode() for part in pixels.split(DECODED_TOGETHER)]
        return torch.cat(latents).float().transpose(0, 1)[None] * self.vae.config.scaling_factor

    def _start_pixels(self, image: Any, video: Any, num_frames: int | None, size: tuple[int, int], fit: Any):
        """The pixels that a run begins from, uint8 (frames, height, width, 3), or None."""
        from ...media import resize

        if image is not None and video is not None:
            raise InputError("give an image or a video, not both.")
        if image is not None:
            return resize(_picture(image)[None], *size, fit)
        if video is None:
            return None
        if not len(video):
            raise InputError("the video has no frames.")
        clip = video if isinstance(video, np.ndarray) else np.stack([_picture(frame) for frame in video])
        if num_frames is not None and num_frames > len(clip):
            raise InputError(f"the video has {len(clip)} frames; {num_frames} cannot be made of it.")
        return resize(clip[:num_frames], *size, fit)

    @property
    def _pixel_ratio(self) -> int:
        return 8 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError if the model cannot make this size."""
        unit = self._pixel_ratio
        if height < unit or width < unit or height % unit or width % unit:
            near = tuple(max(unit, round(x / unit) * unit) for x in (width, height))
            raise InputError(
                f"{width}x{height} is not possible: width and height must be multiples of {unit}; "
                f"the nearest size is {near[0]}x{near[1]}."
            )

    def configure(self, **values: Any) -> AnimateDiffSampling:
        """The settings of a call: the model's own, with every value that is given (not None) in place of its own.

        Where neither says how many frames a window has, a clip that the motion module can tell apart is one window.
        Raises: InputError.
        """
        settings = self.sampling.changed(**values)
        open_size = values.get("context_frames") is None and "context_frames" not in (self.config.config or {})
        most = self.unet.config.motion_max_length
        if open_size and (not most or settings.num_frames <= most):
            settings = settings.changed(context_frames=max(settings.num_frames, settings.context_frames))
        return settings

    # ---------------------------------------------------------------- the work

    @torch.no_grad()
    def stream(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        motion_prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        negative_motion_prompt: str | None = None,
        prompts_at: Mapping[int, str] | None = None,
        image: Any = None,
        video: Any = None,
        strength: float = 0.8,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        clip_skip: int | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        motion_prompt_embeds: torch.Tensor | None = None,
        negative_motion_prompt_embeds: torch.Tensor | None = None,
        sparse_controlnet: SparseControlNet | None = None,
        control_images: Any = None,
        control_indexes: Sequence[int] = (0,),
        control_scale: float = 1.0,
        context_frames: int | None = None,
        context_overlap: int | None = None,
        context_stride: int = 1,
        context_weights: str = "pyramid",
        closed_loop: bool = False,
        shared_noise: bool = False,
        free_init: FreeInit | None = None,
        use_motion: bool = True,
        fit: str = "crop",
        output_type: str = "pil",
        on_progress: Callable[[Progress], None] | None = None,
        on_preview: Callable[[Callable[[], np.ndarray]], None] | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        resume: RunFolder | None = None,
    ) -> Iterator[Chunk]:
        """Yield pieces of the video as they are decoded; frames become clean all together, at the last step.

        Args:
            prompt: what to show; a list makes one video each.
            motion_prompt: how it moves, for motion modules that read a text of their own; None: the prompt.
            prompts_at: frame -> prompt that holds there; in between, prompts are blended.
            image: a picture (PIL or uint8 (H, W, 3)) that all frames begin from; video: frames to change (PIL list or
                uint8 (F, H, W, 3)). strength: how much of them is made new, in (0, 1].
            num_frames, height, width (pixels), num_inference_steps, guidance_scale: None: the model's own.
            clip_skip: layers of the text encoder that are left out at its end.
            latents: (videos, 4, frames, h, w) noise of the whole clip.
            prompt_embeds, negative_prompt_embeds: (videos, length, channels) instead of texts; likewise
                motion_prompt_embeds, negative_motion_prompt_embeds.
            sparse_controlnet: None: the pipeline's own. control_images: pictures that the frames `control_indexes` are
                kept to: a list (PIL or uint8 (H, W, 3)), or a tensor as the network reads it, (1, channels, pictures,
                height, width). control_scale: how strictly.
            context_frames, context_overlap: frames of a window, and those that neighbours share; context_stride,
                context_weights: see OverlappingWindows. closed_loop: the last frame leads to the first.
            shared_noise: the noise of the first window again in later ones, shuffled (FreeNoise).
            free_init: make the video several times, each from the low frequencies of the last (FreeInit).
            use_motion: False: the picture model makes every frame on its own.
            fit: how image or video are brought to size: "crop", "pad" or "stretch".
            output_type: "pil", "np", "pt" or "latent".
            on_progress: called after every step. on_preview: called after every step with a function that decodes
                what is being made right now, uint8 (frames, height, width, 3).
            callback_on_step_end: as in diffusers: (pipe, step, timestep, {"latents"}) -> dict.
            resume: a folder in which the run is kept, and continued from if it holds one.

        Raises: InputError.
        """
        self.check_call(output_type, callback_on_step_end_tensor_inputs)
        ratio, device = self._pixel_ratio, self._execution_device
        if latents is not None:
            channels = self.unet.config.in_channels
            if latents.ndim != 5 or latents.shape[1] != channels:
                needed = f"(videos, {channels}, frames, height, width)"
                raise InputError(f"latents must have the shape {needed}, not {tuple(latents.shape)}.")
            num_frames, height, width = latents.shape[2], latents.shape[3] * ratio, latents.shape[4] * ratio
        settings = self.sampling.changed(height=height, width=width)
        height, width = settings.height, settings.width
        self.check_size(height, width)
        given = self._start_pixels(image, video, num_frames, (height, width), fit)
        if video is not None and num_frames is None:
            num_frames = len(given)
        settings = self.configure(
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            context_frames=context_frames,
            context_overlap=context_overlap,
        )
        prompts = self.encode_prompt(
            prompt,
            num_frames=settings.num_frames,
            size=(height, width),
            prompts_at=prompts_at,
            motion_prompt=motion_prompt,
            negative_prompt=negative_prompt,
            negative_motion_prompt=negative_motion_prompt,
            clip_skip=clip_skip,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            motion_prompt_embeds=motion_prompt_embeds,
            negative_motion_prompt_embeds=negative_motion_prompt_embeds,
            num_videos_per_prompt=num_videos_per_prompt,
            closed_loop=closed_loop,
        )
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        videos = len(prompts.motion)
        if isinstance(generator, list) and len(generator) != videos:
            raise InputError(f"there are {len(generator)} generators, but {videos} videos; give one, or one each.")
        if latents is not None and len(latents) != videos:
            raise InputError(f"there are latents of {len(latents)} videos, but {videos} are asked for.")
        shape = (
            videos,
            self.unet.config.in_channels,
            settings.num_frames,
            height // ratio,
            width // ratio,
        )
        if latents is not None:
            noise = latents.to(device, torch.float32)
        elif shared_noise:
            window, hop = settings.context_frames, settings.context_frames - settings.context_overlap
            noise = free_noise(shape, generator, window, hop).to(device)
        else:
            noise = randn_tensor(shape, generator, device, torch.float32)
        start = None if given is None else self.encode_frames(given).to(device).expand(shape)
        control = self._control(sparse_controlnet, control_images, control_indexes, control_scale, settings, fit)

        self.interrupt = False
        with contextlib.suppress(Interrupted):
            for clean in self._sample(
                settings,
                prompts,
                noise,
                start,
                strength,
                generator,
                free_init,
                {"closed_loop": closed_loop, "context_stride": context_stride, "context_weights": context_weights},
                {"residuals": control, "use_motion": use_motion},
                {"callback": callback_on_step_end, "on_preview": on_preview, "on_progress": on_progress},
                resume,
            ):
                yield from self._emit(clean, output_type)
        self.maybe_free_model_hooks()

    def _control(self, network, images, indexes, scale, settings, fit) -> SparseControl | None:
        network = network or self.sparse_controlnet
        if images is None:
            return None
        if network is None:
            raise InputError("pictures for single frames need a SparseCtrl network; give sparse_controlnet.")
        return SparseControl.of(
            network,
            images,
            indexes,
            scale,
            unet=self.unet,
            num_frames=settings.num_frames,
            size=(settings.height, settings.width),
            encode=self.encode_frames,
            fit=fit,
        )

    def _sample(
        self, settings, prompts, noise, start, strength, generator, free_init, windows, options, watched, resume
    ) -> Iterator[Any]:
        """Run the engine, several times with FreeInit; yields what is clean at the end of the last time."""
        rounds = 1 if free_init is None else free_init.iterations
        loaded: Any = (None, []) if resume is None else resume.load(noise.device)
        kept = loaded[0]
        first, begin = noise, 0
        if kept is not None and "round" in kept:
            begin, first = int(kept["round"]), kept["first_noise"].to(noise.device)
        counts = [settings.num_inference_steps] * rounds
        if free_init is not None:
            counts = [free_init.steps(settings.num_inference_steps, i) for i in range(rounds)]
        share = 1.0 if start is None else strength
        solvers = [SchedulerSolver(self.scheduler, count, generator, share) for count in counts]
        steps = [solver.num_steps for solver in solvers]

        def prepare(i: int, noise: torch.Tensor) -> tuple[Sampler, Callable[[], dict[str, torch.Tensor]]]:
            """The run of a round, and a function that gives what must be kept of it."""
            solver = solvers[i]
            latents = solver.initial_noise(noise) if start is None else solver.add_noise(start, noise)
            timeline = Timeline(lambda frames: latents[:, :, frames.start : frames.stop])
            denoiser = AnimateDiffDenoiser(self.unet, solver, prompts, settings.guidance_scale, **options)
            sampler = Sampler(settings.plan(solver.num_steps, **windows), denoiser.guided(), solver, timeline)
            more = {} if free_init is None else {"round": torch.tensor(i), "first_noise": first}

            def state() -> dict[str, torch.Tensor]:
                return sampler.state_dict() | more

            sampler.on_step = Watch(
                self,
                sampler,
                lambda level: solver.timesteps[level],
                lambda latents: to_bytes(self._decode(latents[:1])[0]),
                resume=resume,
                state=state,
                done=sum(steps[:i]),
                total=sum(steps),
                **watched,
            )
            return sampler, state

        for i in range(begin, rounds - 1):
            sampler, _ = prepare(i, noise)
            if kept is not None and i == begin:
                sampler.load_state_dict(kept)
            result = torch.cat([clean.latents for clean in sampler.run()], dim=2)
            fresh = randn_tensor(noise.shape, generator, noise.device, torch.float32)
            noise = free_init.mix(result, first, fresh, float(self.scheduler.alphas_cumprod[-1]))
        sampler, state = prepare(rounds - 1, noise)
        # What an earlier round of this very run has kept is not to be loaded.
        yield from kept_clean(sampler, resume, noise.device, state, loaded if begin == rounds - 1 else (None, []))

    def _emit(self, clean: Any, output_type: str) -> Iterator[Chunk]:
        if output_type == "latent":
            yield Chunk(clean.latents, clean.frames.start, self.sampling.fps)
            return
        for start in range(0, len(clean.frames), DECODED_TOGETHER):
            part = clean.latents[:, :, start : start + DECODED_TOGETHER]
            yield Chunk(in_form(self._decode(part), output_type), clean.frames.start + start, self.sampling.fps)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (videos, 4, frames, h, w) to pixels (videos, frames, 3, height, width) in [0, 1]."""
        videos = len(latents)
        flat = latents.transpose(1, 2).flatten(0, 1).to(self._execution_device, self.vae.dtype)
        parts = (flat / self.vae.config.scaling_factor).split(DECODED_TOGETHER)
        pixels = torch.cat([self.vae.decode(part).sample.float() for part in parts])
        return (pixels / 2 + 0.5).clamp(0, 1).unflatten(0, (videos, -1))

    def plan(
        self,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        *,
        context_frames: int | None = None,
        context_overlap: int | None = None,
        strength: float = 1.0,
        **windows: Any,
    ) -> Plan:
        """The plan that such a call would follow. windows: closed_loop, context_stride, context_weights."""
        settings = self.configure(
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            context_frames=context_frames,
            context_overlap=context_overlap,
        )
        steps = SchedulerSolver(self.scheduler, settings.num_inference_steps, torch.Generator(), strength).num_steps
        return settings.plan(steps, **windows)
