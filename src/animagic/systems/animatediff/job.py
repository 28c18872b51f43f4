"""Requests for AnimateDiff."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from ...media import read_image
from ...pipelines.job import Job
from ...timeline import FreeInit, build_scheduler
from .pipeline import AnimateDiffPipeline
from .weights import with_files

STRENGTH = 0.8
"""How far a picture or clip is left behind if the request does not say it."""


class AnimateDiffJob(Job):
    """A request for text, image or video to video with AnimateDiff."""

    def __init__(self, request: Any, models: Any, live: Any = None):
        super().__init__(request, models, live)
        self.pictures = {frame: read_image(file) for frame, file in sorted(request.controls.items())}

    def read(self, device: str, allow_pickle: bool, fitted: Any) -> Any:
        request = self.request
        files: dict[str, Any] = {
            "motion_module": request.motion_module,
            "dreambooth": request.dreambooth,
            "sparse_controlnet": request.controlnet,
            "embeddings": request.embeddings,
        }
        if request.motion_module is not None and self.models.is_base(request.model):
            dtype = self.models.dtype_on(request.model, device)
            folder = self.models.folder_of(request.model)
            return AnimateDiffPipeline.from_published(folder, **files, torch_dtype=dtype, allow_pickle=allow_pickle)
        pipe = super().read(device, allow_pickle, fitted)
        return with_files(pipe, **files, allow_pickle=allow_pickle) if any(files.values()) else pipe

    def begin(self, pipe: Any) -> None:
        super().begin(pipe)
        if self.image is not None or self.clip is not None:
            self.request = self.request.changed(strength=self.request.strength or STRENGTH)
        if self.pictures and pipe.sparse_controlnet is None:
            raise InputError(
                f"the model {self.request.model} has no network that reads --control; give a --controlnet."
            )

    def default_frames(self) -> int:
        return super().default_frames() if self.clip is None else len(self.clip)

    @contextlib.contextmanager
    def adapted(self, allow_pickle: bool) -> Iterator[None]:
        pipe, sampler = self.pipe, self.request.sampler
        with super().adapted(allow_pickle), contextlib.ExitStack() as stack:
            if sampler is not None:
                stack.callback(pipe.register_modules, scheduler=pipe.scheduler)
                pipe.register_modules(scheduler=build_scheduler(sampler, pipe.scheduler))
            yield

    def arguments(self) -> dict[str, Any]:
        request = self.request
        more: dict[str, Any] = {}
        if self.pictures:
            more = {"control_images": list(self.pictures.values()), "control_indexes": list(self.pictures)}
            more |= {} if request.control_scale is None else {"control_scale": request.control_scale}
        if request.free_init > 1:
            more["free_init"] = FreeInit(request.free_init)
        return super().arguments() | more
