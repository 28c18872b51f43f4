"""Requests for AnimateDiff."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..errors import CheckpointError, InputError
from ..media import read_image, read_video
from ..systems.animatediff.denoiser import AnimateDiffSampling
from ..systems.animatediff.noise import FreeInit
from ..systems.animatediff.pipeline import AnimateDiffPipeline
from ..systems.animatediff.weights import with_files
from ..timeline import Plan, WholeClip, build_scheduler
from ..weights.lora import find_lora_file
from ..zoo.fitting import Fit
from .job import Job
from .loading import default_device, refusing
from .request import Request, foreign

STRENGTH = 0.8
"""How far a picture or clip is left behind if the request does not say it."""


class AnimateDiffJob(Job):
    """A request for words, a picture or a clip to video with AnimateDiff."""

    clip = None

    def __init__(self, request: Request, live: Any = None):
        super().__init__(request)
        if live is not None:
            raise foreign("--live", request.model, "magi1")
        if request.endless:
            raise InputError(f"the model {request.model} makes videos that end: give the number of their --frames.")
        self.pictures = {frame: read_image(file) for frame, file in sorted(request.controls.items())}

    @classmethod
    def input_files(cls, request: Request) -> dict[str, str]:
        files = super().input_files(request)
        for name in ("motion_module", "dreambooth", "controlnet"):
            if path := getattr(request, name):
                files[name] = path
        files |= {f"picture of frame {frame}": path for frame, path in request.controls.items()}
        files |= {f"embedding {path}": path for path in request.embeddings}
        for kind, given in _loras(request).items():
            what = kind.removesuffix("s").replace("_", " ").replace("lora", "LoRA")
            files |= {f"{what} {name}": str(_lora_file(request.model, name, kind)) for name in given}
        return files

    @classmethod
    def load(cls, request: Request, device: str | None, allow_pickle: bool, fitted: Fit | None) -> Any:
        device = device or default_device()
        with refusing(device):
            dtype = zoo.dtype_on(request.model, device)
        files: dict[str, Any] = {
            "motion_module": request.motion_module,
            "dreambooth": request.dreambooth,
            "sparse_controlnet": request.controlnet,
            "embeddings": request.embeddings,
        }
        if request.motion_module is not None and zoo.makes_pictures(request.model):
            folder = zoo.folder_of(request.model)
            pipe = AnimateDiffPipeline.from_published(folder, **files, torch_dtype=dtype, allow_pickle=allow_pickle)
        else:
            pipe = zoo.load(request.model, dtype=dtype)
            if any(files.values()):
                pipe = with_files(pipe, **files, allow_pickle=allow_pickle)
        pipe.set_progress_bar_config(disable=True)
        with refusing(device):
            return pipe.to(device)

    @classmethod
    def settings_of(cls, request: Request) -> AnimateDiffSampling:
        """Those of the model, without its weights. Raises InputError, CheckpointError."""
        return AnimateDiffSampling.from_config(zoo.settings(request.model))

    @classmethod
    def drawn_plan(cls, request: Request, kind: str | None) -> tuple[Plan, int]:
        if kind not in (None, "whole"):
            raise InputError(f"AnimateDiff has no plan {kind!r}; choose whole, or leave it out for its own.")
        try:
            settings = _changed(cls.settings_of(request), request)
            plan = settings.plan(settings.num_inference_steps, **_windows(request))
        except (AttributeError, TypeError) as error:
            raise CheckpointError(f"the settings of {request.model} cannot be understood: {error}.") from error
        if kind == "whole":
            plan = WholeClip(settings.num_frames, settings.num_inference_steps)
        return plan, settings.context_frames

    def begin(self, pipe: Any) -> None:
        request = self.request
        self.pipe, self.fps = pipe, pipe.sampling.fps
        if request.video is not None:
            self.clip = read_video(request.video, fps=self.fps, max_frames=request.frames).frames
        frames = request.frames or (pipe.sampling.num_frames if self.clip is None else len(self.clip))
        begun = self.image is not None or self.clip is not None
        self.request = replace(request, frames=frames, strength=request.strength or (STRENGTH if begun else None))
        self.height = request.height or pipe.sampling.height
        self.width = request.width or pipe.sampling.width
        pipe.check_size(self.height, self.width)
        _changed(pipe.sampling, self.request)
        if self.pictures and pipe.sparse_controlnet is None:
            raise InputError(f"the model {request.model} has no network that reads --control; give a --controlnet.")

    def plan(self) -> Plan:
        return self.pipe.plan(**_sizes(self.request), **_windows(self.request), strength=self.request.strength or 1.0)

    @contextlib.contextmanager
    def adapted(self, allow_pickle: bool) -> Iterator[None]:
        request, pipe = self.request, self.pipe
        with contextlib.ExitStack() as stack:
            files = [
                {str(_lora_file(request.model, name, kind)): weight for name, weight in given.items()}
                for kind, given in _loras(request).items()
            ]
            stack.enter_context(pipe.using_loras(*files, allow_pickle=allow_pickle))
            if request.sampler is not None:
                stack.callback(pipe.register_modules, scheduler=pipe.scheduler)
                pipe.register_modules(scheduler=build_scheduler(request.sampler, pipe.scheduler))
            if request.tiling and not pipe.vae.use_tiling:
                pipe.vae.enable_tiling()
                stack.callback(pipe.vae.disable_tiling)
            yield

    def stream(self, on_progress: Any, on_preview: Any, resume: Any) -> Iterator[Any]:
        request = self.request
        controls: dict[str, Any] = {}
        if self.pictures:
            controls = {"control_images": list(self.pictures.values()), "control_indexes": list(self.pictures)}
            if request.control_scale is not None:
                controls["control_scale"] = request.control_scale
        return self.pipe.stream(
            request.prompt,
            motion_prompt=request.motion_prompt,
            negative_prompt=request.negative_prompt,
            prompts_at=request.prompts_at,
            image=self.image,
            video=self.clip,
            strength=request.strength or 1.0,
            height=self.height,
            width=self.width,
            **_sizes(request),
            **_windows(request),
            **controls,
            guidance_scale=request.guidance,
            clip_skip=request.clip_skip,
            generator=torch.Generator().manual_seed(request.seed),
            shared_noise=request.free_noise,
            free_init=FreeInit(request.free_init) if request.free_init > 1 else None,
            fit=request.fit,
            output_type="np",
            on_progress=on_progress,
            on_preview=on_preview,
            resume=resume,
        )


def _sizes(request: Request) -> dict[str, Any]:
    """What a call, a plan and the settings of a model name alike."""
    return {
        "num_frames": request.frames,
        "num_inference_steps": request.steps,
        "context_frames": request.window,
        "context_overlap": request.overlap,
    }


def _changed(settings: AnimateDiffSampling, request: Request) -> AnimateDiffSampling:
    """The settings of a model with what the request says. Raises InputError for what cannot be."""
    changed = settings.changed(**_sizes(request), guidance_scale=request.guidance)
    if request.overlap is not None and request.overlap >= changed.context_frames:
        raise InputError(f"the overlap must be less than the window's {changed.context_frames} frames.")
    return changed


def _windows(request: Request) -> dict[str, Any]:
    weights = {} if request.window_weights is None else {"context_weights": request.window_weights}
    return {"closed_loop": request.loop, **weights}


def _loras(request: Request) -> dict[str, dict[str, float]]:
    """The folder in which a model has such LoRAs -> what the request wants of them."""
    return {"loras": request.loras, "motion_loras": request.motion_loras}


def _lora_file(model: str, name: str, kind: str = "loras") -> Path:
    """The file of a LoRA: the model's own of that name, else what `find_lora_file` finds. Raises InputError."""
    own = zoo.loras(model, kind)
    if name in own:
        return own[name]
    try:
        return find_lora_file(name)
    except InputError as error:
        has = f"; the model {model} has {', '.join(own)}." if own else "."
        raise InputError(str(error).removesuffix(".") + has) from error
