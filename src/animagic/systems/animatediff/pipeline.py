"""Text, an image or a video to video with AnimateDiff: any text-to-image model and a motion module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from ...errors import InputError
from ...media.frames import resize
from ...pipelines.base import Call, Run, frames_of
from ...timeline import FreeInit, Plan, Sampler, SchedulerSolver, Timeline, build_scheduler, free_noise
from ...timeline.free_init import FreeInitSolver, Rounds
from ...timeline.noise import randn
from .denoiser import AnimateDiffDenoiser, AnimateDiffSampling
from .lora import AnimateDiffLoraMixin
from .prompts import AnimateDiffPromptMixin
from .sparse import SparseControl, SparseControlNet
from .unet import AnimateDiffUNet


class AnimateDiffPipeline(AnimateDiffLoraMixin, AnimateDiffPromptMixin):
    """Text, image or video to video with AnimateDiff (arXiv 2307.04725).

    Args:
        unet, vae, text_encoder, tokenizer: the parts; those that a call does not need may be None.
        scheduler: any of diffusers; None: DDIM with AnimateDiff's linear betas.
        text_encoder_2, tokenizer_2: the second ones of SDXL.
        config: fields of AnimateDiffSampling, the defaults of a call.
    """

    sampling = AnimateDiffSampling()
    _optional_components = ["vae", "text_encoder", "tokenizer", "scheduler", "text_encoder_2", "tokenizer_2",
                            "sparse_controlnet"]  # fmt: skip

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
        self._register_parts(
            config,
            unet=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=build_scheduler("ddim") if scheduler is None else scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            sparse_controlnet=sparse_controlnet,
        )

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
        context_frames: int | None = None,
        context_overlap: int | None = None,
        context_stride: int = 1,
        context_weights: str = "pyramid",
        closed_loop: bool = False,
        shared_noise: bool = False,
        free_init: FreeInit | None = None,
        use_motion: bool = True,
        **texts: Any,
    ) -> Run:
        """The run of a call. All frames become clean together, at the last step. Raises InputError.

        Args:
            call: all frames begin from its image; its video is changed. strength: how much, in (0, 1].
            prompts_at: frame -> prompt that holds there; in between, prompts are blended.
            sparse_controlnet: None: the pipeline's own. control_images, control_indexes, control_scale: the images of
                single frames, and how strictly they hold: see `SparseControl.of`.
            context_frames, context_overlap, context_stride, context_weights, closed_loop: see OverlappingWindows.
            shared_noise: the noise of the first window again in later ones, shuffled (FreeNoise).
            free_init: sample several times, each from the low frequencies of the last result (FreeInit).
            use_motion: False: the text-to-image model makes every frame on its own.
            texts: see `encode_prompt`.
        """
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
        settings = self.configure(**asked, context_frames=context_frames, context_overlap=context_overlap)
        frames = None if given is None else self.encode_frames(resize(given, *size, call.fit))
        prompts = self.encode_prompt(
            call.prompt,
            num_frames=settings.num_frames,
            size=size,
            prompts_at=prompts_at,
            closed_loop=closed_loop,
            num_videos_per_prompt=call.num_videos_per_prompt,
            **texts,
        )
        videos, device = len(prompts.motion), self._execution_device
        generator = self.generator_of(call, videos)
        shape = (videos, self.latent_channels, settings.num_frames, *(side // self.pixels_per_latent for side in size))
        if latents is not None:
            noise = self.noise(call, videos, size)
        elif shared_noise:
            window, hop = settings.context_frames, settings.context_frames - settings.context_overlap
            noise = free_noise(shape, generator, window, hop).to(device)
        else:
            noise = randn(shape, generator, device)
        clean = None if frames is None else frames.to(device).expand(shape)
        control, network = None, sparse_controlnet or self.sparse_controlnet
        if control_images is not None:
            if network is None:
                raise InputError("pictures for single frames need a SparseCtrl network; give sparse_controlnet.")
            control = SparseControl.of(
                network,
                control_images,
                control_indexes,
                control_scale,
                unet=self.unet,
                num_frames=settings.num_frames,
                size=size,
                encode=self.encode_frames,
                fit=call.fit,
            )

        counts = [settings.num_inference_steps]
        if free_init is not None:
            counts = [free_init.steps(counts[0], i) for i in range(free_init.iterations)]
        share = 1.0 if clean is None else strength
        rounds = [SchedulerSolver(self.scheduler, count, generator, share) for count in counts]
        windows: Any = {"context_stride": context_stride, "context_weights": context_weights}
        plans = tuple(settings.plan(one.num_steps, closed_loop=closed_loop, **windows) for one in rounds)
        plan, solver = plans[0], cast(Any, rounds[0])
        if free_init is not None:
            plan, solver = Rounds(plans), FreeInitSolver(free_init, rounds, noise, clean, generator)
        denoiser = AnimateDiffDenoiser(self.unet, solver, prompts, settings.guidance_scale, control, use_motion)
        return Run(plan, denoiser.guided(), solver, Timeline(rounds[0].begin(noise, clean)), videos)

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
