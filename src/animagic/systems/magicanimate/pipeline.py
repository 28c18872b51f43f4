"""A person in a picture, moved as a sequence of poses says, with MagicAnimate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin

from ...errors import InputError
from ...media.frames import check_frames, resize
from ...pipelines.base import Call, Run, frames_of
from ...pipelines.stable_diffusion import StableDiffusionVideoPipeline
from ...timeline import Plan, SchedulerSolver, Timeline, build_scheduler
from ...timeline.noise import randn
from ...weights.lora import LoraMixin
from ...weights.lora_names import CLIP, UNET
from .appearance import AppearanceEncoder
from .denoiser import MagicAnimateDenoiser, MagicAnimateSampling, returning_frames
from .unet import MagicAnimateUNet


@runtime_checkable
class PosePictures(Protocol):
    """Pictures of poses that need not all be in memory."""

    def __len__(self) -> int: ...

    def masks(self, frames: Sequence[int]) -> np.ndarray:
        """Where people are, bool (frames, height, width)."""
        ...

    def __getitem__(self, frames: Sequence[int]) -> np.ndarray:
        """uint8 (frames, height, width, 3)."""
        ...


class MagicAnimatePipeline(LoraMixin, StableDiffusionLoraLoaderMixin, StableDiffusionVideoPipeline):
    """A picture of a person and a video of poses to a video of that person (arXiv 2311.16498).

    Args:
        unet, appearance_encoder, controlnet, vae, text_encoder, tokenizer: the parts; those that a call does not need
            may be None. The ControlNet is diffusers' `ControlNetModel`.
        scheduler: any of diffusers; None: DDIM as published.
        config: fields of MagicAnimateSampling, the defaults of a call.
    """

    sampling = MagicAnimateSampling()
    lora_parts = (UNET, *CLIP)
    tokenizer_2 = text_encoder_2 = None
    _optional_components = ["vae", "text_encoder", "tokenizer", "scheduler"]
    model_cpu_offload_seq = "text_encoder->appearance_encoder->controlnet->unet->vae"

    def __init__(
        self,
        unet: MagicAnimateUNet,
        appearance_encoder: AppearanceEncoder,
        controlnet: Any,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
        scheduler: Any = None,
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self._register_parts(
            config,
            unet=unet,
            appearance_encoder=appearance_encoder,
            controlnet=controlnet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=build_scheduler("ddim", steps_offset=0) if scheduler is None else scheduler,
        )

    @classmethod
    def from_published(cls, base: Any, folder: Any = None, **arguments: Any) -> MagicAnimatePipeline:
        """The pipeline of published files; the arguments are those of `weights.load_published`."""
        from .weights import load_published

        return load_published(cls, base, folder, **arguments)

    def prepare(  # type: ignore[override]  # it knows its arguments
        self,
        call: Call,
        *,
        pose_frames: Any = None,
        reference_latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt: str | None = None,
        windows: str | None = None,
        context_frames: int | None = None,
        context_overlap: int | None = None,
        context_stride: int = 1,
        context_weights: str | None = None,
        closed_loop: bool = False,
        repeat_noise: bool = True,
        clip_sample: bool = False,
    ) -> Run:
        """The run of a call. All frames become clean together, at the last step. Raises InputError.

        Args:
            call: its image is the person, its video the poses; there is no prompt to speak of: the published model has
                only known the empty one.
            pose_frames: the poses, too: pictures as the ControlNet reads them, uint8 (frames, height, width, 3), or
                PosePictures of the video's size.
            reference_latents: (1, channels, height, width), in place of the image.
            prompt_embeds, negative_prompt_embeds: (1, length, channels).
            windows: see MagicAnimateSampling. context_frames, context_overlap, context_stride, context_weights,
                closed_loop: see OverlappingWindows.
            repeat_noise: frames that lie `context_frames` apart begin from the same noise.
            clip_sample: clip predicted latents to -1..1, as the published scheduler does.
        """
        if (pose_frames is None) == (call.video is None):
            raise InputError("give the poses: either as a video or as pose_frames.")
        poses = pose_frames
        if not isinstance(poses, PosePictures):
            poses = frames_of(None, call.video if poses is None else poses)
            check_frames(poses)  # type: ignore[arg-type]  # it refuses what is none
        if (call.image is None) == (reference_latents is None):
            raise InputError("give the picture of the person: either as image or as reference_latents.")
        num_frames = len(poses) if call.num_frames is None else call.num_frames
        if call.latents is not None:
            if call.latents.ndim != 5 or call.latents.shape[1] != self.latent_channels:
                needed = f"(videos, {self.latent_channels}, frames, height, width)"
                raise InputError(f"latents must have the shape {needed}, not {tuple(call.latents.shape)}.")
            num_frames = call.latents.shape[2]
        if num_frames > len(poses):
            raise InputError(f"there are poses for {len(poses)} frames; {num_frames} cannot be made of them.")
        size = self.size_of(call)
        asked = call.settings(height=size[0], width=size[1], num_frames=num_frames)
        settings = self.sampling.changed(
            **asked, windows=windows, context_frames=context_frames, context_overlap=context_overlap
        )
        self._check_window(settings)
        texts = self._texts(call.prompt, negative_prompt, prompt_embeds, negative_prompt_embeds)
        videos, device = call.num_videos_per_prompt, self._execution_device
        generator = self.generator_of(call, videos)
        if call.latents is not None:
            noise: Any = self.noise(call, videos, size)
        else:
            drawn = min(num_frames, settings.context_frames) if repeat_noise else num_frames
            shape = (videos, self.latent_channels, drawn, *(side // self.pixels_per_latent for side in size))
            noise = randn(shape, generator, device)[:, :, [i % drawn for i in range(num_frames)]]
        if reference_latents is None:
            picture = frames_of(call.image, None)
            assert picture is not None
            reference_latents = self.encode_frames(resize(picture, *size, call.fit))[:, :, 0]
        if isinstance(poses, np.ndarray):
            poses = resize(poses[:num_frames], *size, call.fit)

        def poses_of(frames: Any) -> torch.Tensor:
            return torch.from_numpy(poses[list(frames)]).to(device).permute(0, 3, 1, 2).float() / 255

        scheduler: Any = self.scheduler
        if clip_sample:
            scheduler = type(scheduler).from_config(scheduler.config, clip_sample=True)
        solver = SchedulerSolver(scheduler, settings.num_inference_steps, generator)
        plan = settings.plan(
            solver.num_steps,
            closed_loop=closed_loop,
            context_stride=context_stride,
            context_weights=context_weights,
        )
        denoiser = MagicAnimateDenoiser(
            self.unet,
            self.appearance_encoder,
            self.controlnet,
            solver,
            *texts,
            picture=reference_latents.to(device, self.unet.dtype),
            poses=poses_of,
            returning=partial(returning_frames, plan),
        )
        return Run(plan, denoiser.guided(settings.guidance_scale), solver, Timeline(solver.begin(noise)), videos)

    def _check_window(self, settings: MagicAnimateSampling) -> None:
        most = self.unet.config.motion_max_length
        if most and min(settings.context_frames, settings.num_frames) > most:
            raise InputError(
                f"the motion module sees at most {most} frames together, not {settings.context_frames}; "
                f"use windows of at most {most} frames."
            )

    def _texts(
        self,
        prompt: str | None,
        negative_prompt: str | None,
        embeds: torch.Tensor | None,
        negative_embeds: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The text of the half that looks at the picture and that of the other, each (1, length, channels)."""
        for name, given in (("prompt_embeds", embeds), ("negative_prompt_embeds", negative_embeds)):
            if given is not None and (given.ndim != 3 or len(given) != 1):
                raise InputError(f"{name} must have the shape (1, length, channels), not {tuple(given.shape)}.")
        if not (prompt is None or isinstance(prompt, str)):
            raise InputError("give one prompt, or none: one picture makes one video.")
        if embeds is None and self.sampling.text_tokens:
            if prompt or negative_prompt:
                raise InputError("this model reads no prompt; leave it out.")
            embeds = torch.zeros(1, self.sampling.text_tokens, self.unet.config.cross_attention_dim)
        if embeds is None:
            embeds = self.encode([prompt or ""]).sequence
        if negative_embeds is None:
            negative_embeds = self.encode([negative_prompt or ""]).sequence if self.text_encoders else embeds
        device, dtype = self._execution_device, self.unet.dtype
        return embeds.to(device, dtype), negative_embeds.to(device, dtype)

    def plan(
        self,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        *,
        windows: str | None = None,
        **laid: Any,
    ) -> Plan:
        """The plan of a call with these arguments; laid: those of `WindowedSampling.plan_for`."""
        return self.sampling.changed(windows=windows).plan_for(num_frames, num_inference_steps, **laid)
