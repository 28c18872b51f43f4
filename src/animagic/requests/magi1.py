"""Requests for MAGI-1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..errors import CheckpointError, InputError
from ..media import read_video
from ..systems.magi1 import original
from ..systems.magi1.denoiser import Magi1Sampling
from ..systems.magi1.weights import read_special_tokens
from ..timeline import Plan, WholeClip
from ..weights.lora import find_lora_file
from ..zoo.fitting import Fit, fit, load_fitting
from .job import Job
from .loading import default_device, load_pipeline, refusing
from .request import Request


class Magi1Job(Job):
    """A request for words, a picture or a clip to video with MAGI-1."""

    clip = None

    @classmethod
    def input_files(cls, request: Request) -> dict[str, str]:
        files = super().input_files(request)
        if request.is_original:
            files["model"] = request.model
        if request.special_token_file:
            files["special_token_file"] = request.special_token_file
        return files | {f"LoRA {name}": str(find_lora_file(name)) for name in request.loras}

    @classmethod
    def fit(cls, request: Request, memory: int, device: str | None, live: bool) -> Fit:
        device = device or default_device()
        with refusing(device):
            return fit(
                request.model,
                memory,
                device,
                request.height,
                request.width,
                request.frames,
                request.steps,
                drop_text=not live,
                tiling=request.tiling,
            )

    @classmethod
    def load(cls, request: Request, device: str | None, allow_pickle: bool, fitted: Fit | None) -> Any:
        device = device or default_device()
        if fitted is not None:
            texts = [request.prompt, *request.prompts_at.values(), *filter(None, [request.negative_prompt])]
            with refusing(device):
                pipe = load_fitting(fitted, device, texts)
        elif request.is_original:
            with refusing(device):
                torch.ones(1, device=device).item()  # before gigabytes are read
            pipe = original.load_pipeline(request.model, request.settings, device=device, allow_pickle=allow_pickle)
        else:
            pipe = load_pipeline(request.model, device)
        pipe.set_progress_bar_config(disable=True)
        if request.special_token_file is not None:
            channels = pipe.transformer.config.caption_channels
            pipe.register_modules(special_tokens=read_special_tokens(Path(request.special_token_file), channels))
        return pipe

    @classmethod
    def drawn_plan(cls, request: Request, kind: str | None) -> tuple[Plan, int]:
        if kind not in (None, "staircase", "whole"):
            raise InputError(f"plan {kind!r} is unknown; choose staircase or whole.")
        try:
            sampling = Magi1Sampling.from_config(zoo.settings(request.model)).with_steps(request.steps)
            chunks = sampling.chunks_of(sampling.num_frames if request.frames is None else request.frames)
            plan: Plan = sampling.plan(chunks)
        except (AttributeError, TypeError) as error:
            raise CheckpointError(f"the settings of {request.model} cannot be understood: {error}.") from error
        if kind == "whole":
            plan = WholeClip(chunks * sampling.chunk_width, sampling.num_steps)
        return plan, sampling.chunk_width

    def begin(self, pipe: Any) -> None:
        request, sampling = self.request, pipe.sampling
        self.pipe, self.fps = pipe, sampling.fps
        self.frames_per_latent = sampling.temporal_downsample_factor
        given = 0
        if request.video is not None:
            # As many frames as the published code takes, but the last ones: the video is to go on where the clip ends.
            as_published = request.video_part == "first"
            self.clip = read_video(request.video, fps=self.fps, max_frames=32, last=not as_published).frames
            given = len(self.clip) - len(self.clip) % self.frames_per_latent
            self.hidden = given if as_published else 0
        if not request.endless:
            self.request = replace(request, frames=request.frames or sampling.num_frames + given)
        pipe.configure(request.steps, request.guidance)
        self.height = request.height or sampling.video_size_h
        self.width = request.width or sampling.video_size_w
        pipe.check_size(self.height, self.width)

    def plan(self) -> Plan:
        return self.pipe.plan(self.request.frames, self.request.steps, endless=self.request.endless)

    @contextlib.contextmanager
    def adapted(self, allow_pickle: bool) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.pipe.using_loras(self.request.loras, allow_pickle=allow_pickle))
            if self.request.tiling and not self.pipe.vae.use_tiling:
                self.pipe.enable_vae_tiling()
                stack.callback(self.pipe.disable_vae_tiling)
            yield

    def stream(self, on_progress: Any, on_preview: Any, resume: Any) -> Iterator[Any]:
        request = self.request
        return self.pipe.stream(
            request.prompt if self.live is None else self.live,
            image=self.image,
            video=self.clip,
            prompts_at=request.prompts_at,
            hand_over=request.hand_over,
            endless=request.endless,
            negative_prompt=request.negative_prompt,
            special_tokens=request.special_tokens,
            negative_special_tokens=request.negative_special_tokens,
            height=self.height,
            width=self.width,
            num_frames=request.frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator().manual_seed(request.seed),
            fit=request.fit,
            output_type="np",
            on_progress=on_progress,
            on_preview=on_preview,
            resume=resume,
        )
