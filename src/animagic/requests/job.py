"""What the systems have in common when they carry out a request; which one does, is decided here and nowhere else."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .loading import be_quiet, load_pipeline
from .request import Request, foreign

if TYPE_CHECKING:
    import numpy as np

    from ..pipelines.memory import Fit
    from ..systems.magi1.live import LivePrompt
    from ..timeline import Plan, Progress, RunFolder


class Job(ABC):
    """A request in the hands of its system.

    Making one refuses what can be refused without the model; `begin` takes the model, and refuses the rest. `request`
    is then complete: with the number of frames, if it ends.
    """

    pipe: Any
    fps: float
    height: int
    width: int
    hidden = 0
    """Frames at the front of the stream that are not shown."""
    frames_per_latent = 1

    def __init__(self, request: Request, live: LivePrompt | None = None):
        from ..media import read_image

        request.refuse_foreign()
        self.request, self.live = request, live
        self.image = read_image(request.image) if request.image else None
        self.input_files(request)  # refuses what is not there

    @classmethod
    def input_files(cls, request: Request) -> dict[str, str]:
        """The files that the request names, by what they are. Raises InputError for one that cannot be found."""
        return {name: path for name in ("image", "video") if (path := getattr(request, name))}

    @classmethod
    def fit(cls, request: Request, memory: int, device: str | None, live: bool) -> Fit:
        """What makes the request fit into `memory` bytes. Raises InputError."""
        raise foreign("--memory", request.model, "magi1")

    @classmethod
    def load(cls, request: Request, device: str | None, allow_pickle: bool, fitted: Fit | None) -> Any:
        """The pipeline that the request names, on a device. Raises InputError, CheckpointError."""
        return load_pipeline(request.model, device)

    @classmethod
    @abstractmethod
    def drawn_plan(cls, request: Request, kind: str | None) -> tuple[Plan, int]:
        """The plan that the request would follow, and latent frames between the lines of its picture; no weights are
        read. kind: another plan than its own. Raises InputError, CheckpointError."""

    @abstractmethod
    def begin(self, pipe: Any) -> None:
        """Take the loaded model. Raises InputError for what it cannot make."""

    @abstractmethod
    def plan(self) -> Plan:
        """What will be done."""

    @abstractmethod
    def adapted(self, allow_pickle: bool) -> AbstractContextManager[None]:
        """Inside, the pipeline has what the request adds to it (LoRAs, tiles); afterwards it is as it was."""

    @abstractmethod
    def stream(
        self,
        on_progress: Callable[[Progress], None],
        on_preview: Callable[[Callable[[], np.ndarray]], None] | None,
        resume: RunFolder | None,
    ) -> Iterator[Any]:
        """Pieces of the video (`Chunk`, output_type "np") as they become clean. The arguments are the pipeline's."""


_JOBS = {"magi1": ("magi1", "Magi1Job"), "animatediff": ("animatediff", "AnimateDiffJob")}
_ORIGINAL_JOBS = _JOBS | {"animatediff": ("animatediff_yaml", "YamlJob")}


def job_class(request: Request) -> type[Job]:
    """How the system of the request's model carries it out. Raises InputError, CheckpointError."""
    be_quiet()  # before the systems' modules are imported: with them come libraries that warn
    module, name = (_ORIGINAL_JOBS if request.is_original else _JOBS)[request.system]
    return getattr(importlib.import_module(f".{module}", __package__), name)
