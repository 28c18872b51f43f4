"""Text, an image or a video to video with AnimateDiff: any text-to-image model and a motion module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin

from ...errors import InputError
from ...media.frames import resize
from ...pipelines.base import Run, VideoPipeline, frames_of
from ...timeline import FreeInit, Plan, Sampler, SchedulerSolver, Timeline, build_scheduler, free_noise
from ...timeline.free_init import FreeInitSolver, Rounds
from ...timeline.noise import Generators, randn
from ...weights.textual_inversion import TextualInversionMixin
from .denoiser import AnimateDiffDenoiser, AnimateDiffSampling
from .lora import AnimateDiffLoraMixin
from .prompts import PromptEmbeds, TextEmbeds, encode_texts, travel
from .sparse import SparseControl, SparseControlNet
from .unet import AnimateDiffUNet


def _one_each(name: str, embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Embeds of `count` texts, also from one for all. Raises InputError."""
    if embeds.ndim != 3 or len(embeds) not in (1, count):
        raise InputError(f"{name} must have the shape ({count}, length, channels), not {tuple(embeds.shape)}.")
    return embeds.expand(count, -1, -1)


class AnimateDiffPipeline(TextualInversionMixin, AnimateDiffLoraMixin, VideoPipeline, StableDiffusionMixin):
    """Text, image or video to video with AnimateDiff (arXiv 2307.04725).

    Args:
        unet, vae, text_encoder, tokenizer: the parts; those that a call does not need may be None.
        scheduler: any of diffusers (see `timeline.build_scheduler`); None: DDIM with AnimateDiff's linear betas.
        text_encoder_2, tokenizer_2: the second ones of SDXL.
        sparse_controlnet: keeps frames to given pictures or scribbles.
        config: fields of AnimateDiffSampling: what a call takes where it says nothing else.
    """

    frames_decoded_together = 16  # more take memory and save no time
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

    def to_latents(self, video: torch.Tensor) -> torch.Tensor:
        parts = video[0].transpose(0, 1).split(self.frames_decoded_together)
        latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in parts])
        return latents.float().transpose(0, 1)[None] * self.vae.config.scaling_factor

    def to_video(self, latents: torch.Tensor) -> torch.Tensor:
        flat = latents.transpose(1, 2).flatten(0, 1).to(self._execution_device, self.vae.dtype)
        parts = (flat / self.vae.config.scaling_factor).split(self.frames_decoded_together)
        return (
            torch.cat([self.vae.decode(part).sample for part in parts]).unflatten(0, (len(latents), -1)).transpose(1, 2)
        )

    @property
    def latent_channels(self) -> int:  # type: ignore[override]
        return self.unet.config.in_channels

    @property
    def pixels_per_latent(self) -> int:  # type: ignore[override]
        return 8 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

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
    def prepare(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        image: Any = None,
        video: Any = None,
        strength: float = 0.8,
        prompts_at: Mapping[int, str] | None = None,
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
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
        fit: Any = "crop",
        **texts: Any,
    ) -> Run:
        """What a call decides before the first step. All frames become clean together, at the last step.

        Args:
            prompt: what to show; a list makes one video each.
            prompts_at: frame -> prompt that holds there; in between, prompts are blended.
            texts: motion_prompt, negative_prompt, negative_motion_prompt, clip_skip, num_videos_per_prompt, and
                embeds in place of texts: see `encode_prompt`.
            image: a picture (PIL or uint8 (H, W, 3)) that all frames begin from; video: frames to change (PIL list or
                uint8 (F, H, W, 3)). strength: how much of them is made new, in (0, 1].
            num_frames, height, width (pixels), num_inference_steps, guidance_scale: None: the model's own.
            latents: (videos, 4, frames, h, w) noise of the whole clip.
            sparse_controlnet: None: the pipeline's own. control_images: pictures that the frames `control_indexes` are
                kept to: a list (PIL or uint8 (H, W, 3)), or a tensor as the network reads it, (1, channels, pictures,
                height, width). control_scale: how strictly.
            context_frames, context_overlap: frames of a window, and those that neighbours share; context_stride,
                context_weights: see OverlappingWindows. closed_loop: the last frame leads to the first.
            shared_noise: the noise of the first window again in later ones, shuffled (FreeNoise).
            free_init: make the video several times, each from the low frequencies of the last (FreeInit).
            use_motion: False: the text-to-image model makes every frame on its own.
            fit: how image or video are brought to size: "crop", "pad" or "stretch".

        Raises: InputError.
        """
        if latents is not None:
            if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
                needed = f"(videos, {self.latent_channels}, frames, height, width)"
                raise InputError(f"latents must have the shape {needed}, not {tuple(latents.shape)}.")
            num_frames = latents.shape[2]
        size = self.size_of(latents, height, width)
        given = frames_of(image, video)
        if given is not None and video is not None:
            if num_frames is not None and num_frames > len(given):
                raise InputError(f"the video has {len(given)} frames; {num_frames} cannot be made of it.")
            given = given[:num_frames]
            num_frames = len(given)
        settings = self.configure(
            height=size[0],
            width=size[1],
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            context_frames=context_frames,
            context_overlap=context_overlap,
        )
        frames = None if given is None else self.encode_frames(resize(given, *size, fit))
        prompts = self.encode_prompt(
            prompt,
            num_frames=settings.num_frames,
            size=size,
            prompts_at=prompts_at,
            closed_loop=closed_loop,
            **texts,
        )
        videos = len(prompts.motion)
        generator = self.generator_of(generator, videos)
        shape = (videos, self.latent_channels, settings.num_frames, *(side // self.pixels_per_latent for side in size))
        device = self._execution_device
        if latents is not None:
            noise = self.noise(latents, videos, size, generator)
        elif shared_noise:
            window, hop = settings.context_frames, settings.context_frames - settings.context_overlap
            noise = free_noise(shape, generator, window, hop).to(device)
        else:
            noise = randn(shape, generator, device)
        clean = None if frames is None else frames.to(device).expand(shape)
        control = self._control(sparse_controlnet, control_images, control_indexes, control_scale, settings, fit)

        def schedule(steps: int) -> SchedulerSolver:
            return SchedulerSolver(self.scheduler, steps, generator, 1.0 if clean is None else strength)

        def plan(solver: SchedulerSolver) -> Plan:
            return settings.plan(
                solver.num_steps,
                closed_loop=closed_loop,
                context_stride=context_stride,
                context_weights=context_weights,
            )

        if free_init is None:
            solver: Any = schedule(settings.num_inference_steps)
            whole, begin = plan(solver), solver.begin(noise, clean)
        else:
            steps = settings.num_inference_steps
            rounds = [schedule(free_init.steps(steps, i)) for i in range(free_init.iterations)]
            solver = FreeInitSolver(free_init, rounds, noise, clean, generator)
            whole, begin = Rounds(tuple(map(plan, rounds))), rounds[0].begin(noise, clean)
        denoiser = AnimateDiffDenoiser(self.unet, solver, prompts, settings.guidance_scale, control, use_motion)
        return Run(whole, denoiser.guided(), solver, Timeline(begin), videos)

    def restore(self, sampler: Sampler, state: dict[str, torch.Tensor]) -> None:
        if "round" in state and isinstance(sampler.solver, FreeInitSolver):
            # Kept when each round of FreeInit was a run of its own.
            done = sum(schedule.num_steps for schedule in sampler.solver.rounds[: int(state["round"])])
            moved = {"steps_done": state["steps_done"] + done}
            state = state | moved | {f"solver.{name}": state[name] for name in ("round", "first_noise")}
        super().restore(sampler, state)

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
