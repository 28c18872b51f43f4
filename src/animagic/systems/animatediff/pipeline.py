"""Text, an image or a video to video with AnimateDiff: any text-to-image model and a motion module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    MotionAdapter,
    MultiControlNetModel,
    SchedulerMixin,
    SparseControlNetModel,
    UNet2DConditionModel,
    UNetMotionModel,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from ...errors import InputError
from ...layers.autoencoder import ConvAutoencoder
from ...media.frames import resize
from ...pipelines.base import Call, Run, frames_of
from ...timeline import FreeInit, Plan, Sampler, SchedulerSolver, Timeline, build_scheduler, free_noise
from ...timeline.free_init import FreeInitSolver, Rounds
from ...timeline.noise import Generators, randn
from .adapter import animated, sparse_network
from .controls import FrameControl, IPAdapterVideoMixin, motion_scales
from .denoiser import AnimateDiffDenoiser, AnimateDiffSampling
from .habits import NOISES, HabitsMixin
from .lora import AnimateDiffLoraMixin
from .prompts import AnimateDiffPromptMixin
from .sparse import SparseControl, SparseControlNet
from .unet import AnimateDiffUNet


class AnimateDiffPipeline(HabitsMixin, IPAdapterVideoMixin, AnimateDiffLoraMixin, AnimateDiffPromptMixin):
    """Text, image or video to video with AnimateDiff (arXiv 2307.04725).

    Args:
        unet, vae, text_encoder, tokenizer: the parts; those that a call does not need may be None. A UNet of a
            text-to-image model needs a motion adapter; the two become one AnimateDiffUNet, and share their weights.
        scheduler: any of diffusers; None: DDIM with AnimateDiff's linear betas.
        text_encoder_2, tokenizer_2: the second ones of SDXL.
        sparse_controlnet: SparseCtrl, in our layout or diffusers'. controlnet: a ControlNet of pictures, or several (a
            list).
        motion_adapter: motion modules for the UNet, in place of its own.
        image_encoder, feature_extractor: of IP-Adapters.
        config: fields of AnimateDiffSampling, the defaults of a call.
    Raises: InputError for a UNet without motion, CheckpointError for parts that do not fit each other.
    """

    sampling = AnimateDiffSampling()
    _optional_components = ["vae", "text_encoder", "tokenizer", "scheduler", "text_encoder_2", "tokenizer_2",
                            "sparse_controlnet", "motion_adapter", "controlnet", "image_encoder",
                            "feature_extractor"]  # fmt: skip
    _callback_tensor_inputs = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    model_cpu_offload_seq = "text_encoder->text_encoder_2->image_encoder->unet->vae"
    _exclude_from_cpu_offload = ["sparse_controlnet", "controlnet"]

    def __init__(
        self,
        unet: AnimateDiffUNet | UNet2DConditionModel | UNetMotionModel | None,
        vae: AutoencoderKL | ConvAutoencoder | None = None,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        scheduler: SchedulerMixin | None = None,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        sparse_controlnet: SparseControlNet | SparseControlNetModel | None = None,
        config: dict[str, Any] | None = None,
        motion_adapter: MotionAdapter | None = None,
        controlnet: ControlNetModel | MultiControlNetModel | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
    ):
        super().__init__()
        if isinstance(controlnet, SparseControlNet | SparseControlNetModel):
            sparse_controlnet, controlnet = controlnet, None
        if isinstance(sparse_controlnet, SparseControlNetModel):
            sparse_controlnet = sparse_network(sparse_controlnet)
        self._register_parts(
            config,
            unet=unet if unet is None else animated(unet, motion_adapter),
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=build_scheduler("ddim") if scheduler is None else scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            sparse_controlnet=sparse_controlnet,
            motion_adapter=None,  # in the UNet
            controlnet=MultiControlNetModel(controlnet) if isinstance(controlnet, list | tuple) else controlnet,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        if (
            unet is not None
            and not {"height", "width"} & set(config or {})
            and isinstance(unet.config.sample_size, int)
        ):
            side = unet.config.sample_size * self.pixels_per_latent
            self.sampling = self.sampling.changed(height=side, width=side)

    @classmethod
    def from_published(cls, base: Any, motion_module: Any = None, **arguments: Any) -> AnimateDiffPipeline:
        """The pipeline of published files; the arguments are those of `weights.load_published`."""
        from .weights import load_published

        return load_published(cls, base, motion_module, **arguments)

    def configure(self, **values: Any) -> AnimateDiffSampling:
        """The settings of a call. Raises InputError.

        Without context_frames, a clip that is not too long for the motion module is one window.
        """
        settings = self.sampling.changed(**values)
        unset = values.get("context_frames") is None and "context_frames" not in (self.config.config or {})
        most = self.unet.config.motion_max_length
        if unset and (not most or settings.num_frames <= most):
            settings = settings.changed(context_frames=max(settings.num_frames, settings.context_frames))
        return settings

    def prepare(
        self,
        call: Call,
        *,
        strength: float = 0.8,
        prompts_at: Mapping[int, str] | None = None,
        sparse_controlnet: SparseControlNet | None = None,
        control_images: Any = None,
        control_indexes: Sequence[int] = (0,),
        control_scale: float = 1.0,
        conditioning_frames: Any = None,
        controlnet_conditioning_scale: float | Sequence[float] = 1.0,
        control_guidance_start: float | Sequence[float] = 0.0,
        control_guidance_end: float | Sequence[float] = 1.0,
        guess_mode: bool = False,
        ip_adapter_image: Any = None,
        ip_adapter_image_embeds: Sequence[torch.Tensor] | None = None,
        context_frames: int | None = None,
        context_overlap: int | None = None,
        context_stride: int = 1,
        context_weights: str | None = None,
        closed_loop: bool = False,
        shared_noise: bool | str | None = None,
        free_init: FreeInit | None = None,
        eta: float = 0.0,
        use_motion: bool = True,
        motion_scale: float | Sequence[float] | Mapping[int, float] = 1.0,
        motion_mask: Any = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        decode_chunk_size: int | None = None,
        **texts: Any,
    ) -> Run:
        """The run of a call. All frames become clean together, at the last step. Raises InputError.

        Args:
            call: all frames begin from its image; its video is changed. strength: how much, in (0, 1].
            prompts_at: frame -> prompt that holds there; in between, prompts are blended.
            sparse_controlnet: None: the pipeline's own. control_images, control_indexes, control_scale: the images of
                single frames, and how strictly they hold: see `SparseControl.of`.
            conditioning_frames: for the pipeline's ControlNet a picture of every frame, for several a list of such
                clips; with controlnet_conditioning_scale, control_guidance_start and _end (shares of the steps) and
                guess_mode as in diffusers.
            ip_adapter_image: a picture whose look is followed, or frame -> picture; of several IP-Adapters a list.
            ip_adapter_image_embeds: in its place, as in diffusers.
            context_frames, context_overlap, context_stride, context_weights, closed_loop: see OverlappingWindows.
            shared_noise: the noise of the first window again in later ones, shuffled (FreeNoise); or one of `NOISES`.
            free_init: sample several times, each from the low frequencies of the last result (FreeInit).
            eta: of DDIM.
            use_motion: False: the text-to-image model makes every frame on its own.
            motion_scale: how strongly the frames move: one number, one for each frame, or frame -> number, blended in
                between. 0: they stand still, 1: as trained.
            motion_mask: a picture, or one of each frame: white moves so, black stands still.
            cross_attention_kwargs: as in diffusers: "scale" of the LoRAs, "ip_adapter_masks".
            decode_chunk_size: frames that are decoded at once; None: 16.
            texts: see `embed_prompts`.
        """
        windows: dict[str, Any] = {
            "context_frames": context_frames,
            "context_overlap": context_overlap,
            "context_weights": context_weights,
            "shared_noise": shared_noise,
        }
        if not any(value is not None for value in windows.values()):
            windows |= self._free_noise or {}
        self.frames_decoded_together = decode_chunk_size or type(self).frames_decoded_together
        num_frames = call.num_frames
        if (latents := call.latents) is not None:
            if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
                needed = f"(videos, {self.latent_channels}, frames, height, width)"
                raise InputError(f"latents must have the shape {needed}, not {tuple(latents.shape)}.")
            num_frames = latents.shape[2]
        size = self.size_of(call)
        given = frames_of(call.image, call.video)
        if given is not None and call.video is not None:
            if num_frames is not None and num_frames > len(given):
                raise InputError(f"the video has {len(given)} frames; {num_frames} cannot be made of it.")
            num_frames = len(given := given[:num_frames])
        asked = call.settings(height=size[0], width=size[1], num_frames=num_frames)
        settings = self.configure(**asked, **{name: windows[name] for name in ("context_frames", "context_overlap")})
        frames = None if given is None else self.encode_frames(resize(given, *size, call.fit))
        with self.weighing_text_loras((cross_attention_kwargs or {}).get("scale")):
            prompts = self.embed_prompts(
                call.prompt,
                num_frames=settings.num_frames,
                size=size,
                prompts_at=prompts_at,
                closed_loop=closed_loop,
                num_videos_per_prompt=call.num_videos_per_prompt,
                **texts,
            )
        videos, device = len(prompts.motion), self._execution_device
        guided = settings.guidance_scale > 1
        follow, leave = self._pictures(
            ip_adapter_image, ip_adapter_image_embeds, videos, settings.num_frames, guided, closed_loop
        )
        prompts = replace(prompts, pictures=follow, no_pictures=leave).to(device, self.unet.dtype)
        generator = self.generator_of(call, videos)
        shape = (videos, self.latent_channels, settings.num_frames, *(side // self.pixels_per_latent for side in size))
        if latents is not None:
            noise = self.noise(call, videos, size)
        else:
            noise = self._fresh_noise(shape, generator, windows["shared_noise"], settings).to(device)
        clean = None if frames is None else frames.to(device).expand(shape)

        counts = [settings.num_inference_steps]
        free_init = free_init or self._free_init
        if free_init is not None:
            counts = [free_init.steps(counts[0], i) for i in range(free_init.iterations)]
        share = 1.0 if clean is None else strength
        rounds = [SchedulerSolver(self.scheduler, count, generator, share, eta) for count in counts]
        layout: Any = {"context_stride": context_stride, "context_weights": windows["context_weights"] or "pyramid"}
        plans = tuple(settings.plan(one.num_steps, closed_loop=closed_loop, **layout) for one in rounds)
        plan, solver = plans[0], cast(Any, rounds[0])
        if free_init is not None:
            plan, solver = Rounds(plans), FreeInitSolver(free_init, rounds, noise, clean, generator)

        controls: list[Any] = []
        where: Any = {"num_frames": settings.num_frames, "size": size, "fit": call.fit}
        if control_images is not None:
            network = sparse_controlnet or self.sparse_controlnet
            if network is None:
                raise InputError("pictures for single frames need a SparseCtrl network; give sparse_controlnet.")
            kept = (control_images, control_indexes, control_scale)
            controls.append(SparseControl.of(network, *kept, unet=self.unet, encode=self.encode_frames, **where))
        if conditioning_frames is not None:
            if self.controlnet is None:
                raise InputError("conditioning_frames need a ControlNet; give the pipeline a controlnet.")
            bounds: Any = {"start": control_guidance_start, "end": control_guidance_end}
            how: Any = {"scale": controlnet_conditioning_scale, "guess": guess_mode}
            controls.append(FrameControl.of(self.controlnet, conditioning_frames, **how, **bounds, **where))
        scale, more = settings.guidance_scale, cross_attention_kwargs
        moves = motion_scales(motion_scale, motion_mask, **where)
        denoiser = AnimateDiffDenoiser(self.unet, solver, prompts, scale, controls, use_motion, more, moves)
        return Run(plan, denoiser.guided(), solver, Timeline(rounds[0].begin(noise, clean)), videos)

    @staticmethod
    def _fresh_noise(shape: tuple[int, ...], generator: Generators, kind: bool | str | None, settings: Any) -> Any:
        """kind: see `shared_noise`. Raises InputError."""
        window, hop = settings.context_frames, settings.context_frames - settings.context_overlap
        if kind in (None, False, "random"):
            return randn(shape, generator)
        if kind == "repeat_context":
            first = randn((*shape[:2], min(window, shape[2]), *shape[3:]), generator)
            return first[:, :, torch.arange(shape[2]) % window]
        if kind not in (True, "shuffle_context"):
            raise InputError(f"the noise {kind!r} is unknown; choose {', '.join(NOISES)}.")
        return free_noise(shape, generator, window, hop)

    def callback_tensors(self, run: Run) -> dict[str, torch.Tensor]:
        inner: Any = getattr(run.denoiser, "denoiser", run.denoiser)
        return inner.prompts.tensors(self.do_classifier_free_guidance)

    def take_back(self, run: Run, tensors: Mapping[str, torch.Tensor]) -> None:
        inner: Any = getattr(run.denoiser, "denoiser", run.denoiser)
        given = (tensors.get("prompt_embeds"), tensors.get("negative_prompt_embeds"))
        inner.prompts = inner.prompts.changed(*given)

    def restore(self, sampler: Sampler, state: dict[str, torch.Tensor]) -> None:
        if "round" in state and isinstance(sampler.solver, FreeInitSolver):
            # Kept when each round of FreeInit was a run of its own.
            done = sum(schedule.num_steps for schedule in sampler.solver.rounds[: int(state["round"])])
            moved = {"steps_done": state["steps_done"] + done}
            state = state | moved | {f"solver.{name}": state[name] for name in ("round", "first_noise")}
        super().restore(sampler, state)

    def plan(
        self,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        *,
        strength: float = 1.0,
        context_frames: int | None = None,
        **windows: Any,
    ) -> Plan:
        """The plan of a call with these arguments; windows: those of `AnimateDiffSampling.plan_for`."""
        asked = {"num_frames": num_frames, "num_inference_steps": num_inference_steps}
        settings = self.configure(**asked, context_frames=context_frames)
        solver = SchedulerSolver(self.scheduler, settings.num_inference_steps, torch.Generator(), strength)
        return settings.plan_for(None, solver.num_steps, context_frames=context_frames, **windows)
