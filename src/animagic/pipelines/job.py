"""A request in the hands of its system: from options to a loaded pipeline, its arguments and its plan."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CheckpointError, InputError
from ..media import read_image
from ..timeline import WholeClip
from ..weights.lora import find_lora_file
from .devices import default_device, refusing
from .options import VideoOptions

if TYPE_CHECKING:
    import numpy as np

    from ..media import Sound
    from ..media.sound import ArrivingSound
    from ..timeline import Plan, Progress, RunFolder


class LiveVoice(Protocol):
    """A voice, 16 kHz, that arrives while a video is made."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Its samples, float32 (n,), from the beginning on; waits for those that have not arrived."""

    @property
    def seconds(self) -> float | None:
        """How long it is; None: it has not ended."""

    def keep(self) -> str:
        """The file that it is kept in, after its end."""


@dataclass(frozen=True)
class Video:
    """One of several videos that an original configuration file asks for.

    Args:
        request: what it is made from.
        weights: what is loaded for it; equal ones in a row are loaded once.
        open_seed: whether its seed was chosen here, so that a video that is there already may have another.
    """

    request: VideoOptions
    weights: Any
    open_seed: bool = False


class Job:
    """Carries out one request. A system has a subclass with what is its own.

    Making one refuses what can be refused without the model's weights; `begin` takes the loaded pipeline and refuses
    the rest. `request` is then complete: with the number of frames, if it ends.

    Args:
        request: the options.
        models: the register of models: `load`, `settings`, `folder_of`, `dtype_on`, `loras` of `animagic.zoo`.
        live: a prompt that may change while the video is made, in place of the request's; None: there is none.
    """

    plans: dict[str, str] = {}
    """Plans that can be drawn beside the system's own -> what they are."""
    can_be_endless = False
    can_be_continued = False
    """Whether a video goes on from the latents that were kept of another one (`KeptLatents`)."""

    pipe: Any
    fps: float
    height: int
    width: int
    clip: np.ndarray | None = None
    places_parts = False
    """Whether `read` puts the parts of the pipeline on their devices."""
    hidden = 0
    """Frames at the front of the stream that are not shown."""
    sound: str | Sound | ArrivingSound | None = None
    """Sound that the video gets, if its format has any: that of a file, or in memory."""
    sound_start = 0.0
    """Seconds of it that are left out."""
    voice: LiveVoice | None = None
    """A voice that arrives while the video is made."""
    on_note: Callable[[str], None] = staticmethod(lambda line: None)
    """Told in a line what was found in the input."""

    def __init__(self, request: Any, models: Any, live: Any = None):
        self.request, self.models, self.live = request, models, live
        if live is not None and "live" not in type(request).model_fields:
            raise InputError(f"the prompt of the model {request.model} cannot change while the video is made.")
        if live is not None and request.prompts_at:
            raise InputError("give later prompts by prompts_at or by a live prompt, not by both.")
        if request.endless and not self.can_be_endless:
            raise InputError(f"the model {request.model} makes videos that end: give the number of their --frames.")
        self.input_files(request, models)  # refuses what is not there
        self.image = read_image(request.image) if request.image else None

    # ------------------------------------------------------------ before the model is loaded

    @classmethod
    def input_files(cls, request: Any, models: Any) -> dict[str, str]:
        """The files that a request names, by what they are. Raises InputError for a LoRA that cannot be found."""
        return {
            called: str(_lora_file(path, field, request.model, models)) if field.endswith("loras") else path
            for field, called, path in request.files()
        }

    def fit(self, memory: int, device: str | None, process: int | None = None) -> Any:
        """Choose the techniques that make the request fit into `memory` bytes; process: see `Predictor`.

        Raises: InputError, CheckpointError.
        """
        request, device = self.request, device or default_device()
        if Path(request.model).is_file():
            raise InputError(
                f"a budget of memory needs a model folder; make one from {request.model} with animagic convert."
            )
        with refusing(device):
            predictor = self._predictor(device, request.height, request.width, tight=True, process=process)
            return predictor.fit(memory, drop_text=self.live is None, tiling=request.tiling)

    def _predictor(self, device: str, height: int | None, width: int | None, **how: Any) -> Any:
        import torch

        from .memory import Predictor

        request = self.request
        model = request.model if request.model in self.models.names() else str(self.models.folder_of(request.model))
        networks = self.models.networks_of(model, self.models.dtype_on(model, device))
        kind = torch.device(device).type
        return Predictor(networks, kind, height, width, request.frames, request.steps, **how)

    def check_memory(self, device: str | None) -> None:
        """Raises InputError for pictures far larger than the model's own that the machine cannot hold: the system would
        end the process in the middle of its work."""
        from .memory import Techniques, room_on

        request, device = self.request, device or default_device()
        if request.height is None or request.width is None or Path(request.model).is_file():
            return
        usual = self.settings()
        ratio = request.height * request.width / (usual.height * usual.width)
        if ratio <= 4:
            return  # predicting takes its time
        techniques = Techniques(tiling=request.tiling)

        def peak(times: int) -> int:
            return self._predictor(device, usual.height * times, usual.width * times).predict(techniques).peak

        try:
            with refusing(device):
                small, large = peak(1), peak(2)
        except InputError:  # of a kind whose memory nobody can predict
            return
        # On from two small sizes, because to predict a large one takes minutes. Memory grows at least so fast.
        needed = small + (ratio - 1) * (large - small) / 3
        if needed > (room := room_on(device)):
            raise InputError(
                f"{request.width}x{request.height} takes about {needed / 1e9:.0f} GB, and {device} has "
                f"{room / 1e9:.0f} GB; give a smaller --size, or --memory."
            )

    def load(self, device: str | None = None, allow_pickle: bool = False, fitted: Any = None) -> Any:
        """The pipeline that the request names, on a device. Raises InputError, CheckpointError."""
        device = device or default_device()
        with refusing(device):
            pipe = self.read(device, allow_pickle, fitted)
            pipe.set_progress_bar_config(disable=True)
            return pipe if fitted is not None or self.places_parts else pipe.to(device)

    def read(self, device: str, allow_pickle: bool, fitted: Any) -> Any:
        """The pipeline of the model, with weights in the dtype that suits the device."""
        request, dtype = self.request, self.models.dtype_on(self.request.model, device)
        safe = None if allow_pickle else True  # None: safetensors where there are some, else pickles
        load = functools.partial(self.models.load, request.model, dtype=dtype, use_safetensors=safe)
        if fitted is None:
            return load()
        from .memory import load_fitting

        texts = [request.prompt, *request.prompts_at.values(), *filter(None, [request.negative_prompt])]
        return load_fitting(fitted, load, device, texts)

    def settings(self) -> Any:
        """The sampling settings of the model, without its weights. Raises InputError, CheckpointError."""
        model = self.request.model
        return self.models.pipeline_class(model).sampling_of(self.models.settings(model) or None)

    def drawn_plan(self, kind: str | None) -> tuple[Plan, int]:
        """The plan of that kind (None: the request's own), and latent frames between the lines of its picture.

        No weights are read. Raises: InputError, CheckpointError.
        """
        if self.request.endless:
            raise InputError("a plan without an end cannot be drawn; give the number of --frames.")
        if kind not in (None, "whole", *self.plans):
            raise InputError(f"plan {kind!r} is unknown; choose {' or '.join((*self.plans, 'whole'))}.")
        try:
            own = self.settings().plan_for(**self.request.arguments(plan=True))
        except (AttributeError, TypeError) as error:
            raise CheckpointError(f"the settings of {self.request.model} cannot be understood: {error}.") from error
        counts = own.describe()
        spacing = getattr(own, "chunk_width", getattr(own, "size", counts.frames))
        return (WholeClip(counts.frames, own.num_steps) if kind == "whole" else own), spacing

    # ------------------------------------------------------------ with the model

    def read_clip(self, path: str) -> np.ndarray:
        """The frames of a given clip, uint8 (frames, height, width, 3). Raises MediaError."""
        from ..media import read_video

        return read_video(path, fps=self.fps, max_frames=self.request.frames).frames

    def begin(self, pipe: Any) -> None:
        """Take the loaded pipeline. Raises InputError for what it cannot make."""
        request, sampling = self.request, pipe.sampling
        self.pipe, self.fps, self.frames_per_latent = pipe, sampling.fps, sampling.frames_per_latent
        if request.video is not None:
            self.clip = self.read_clip(request.video)
        if not request.endless and request.frames is None:
            self.request = request.changed(frames=self.default_frames())
        self.height, self.width = request.height or sampling.height, request.width or sampling.width
        pipe.check_size(self.height, self.width)
        self.plan()  # refuses what no plan can be made of

    def default_frames(self) -> int:
        """Frames of the video where the request does not say it."""
        return self.pipe.sampling.num_frames

    def plan(self) -> Plan:
        """The plan that the pipeline will follow."""
        return self.pipe.plan(**self.request.arguments(plan=True))

    @contextlib.contextmanager
    def adapted(self, allow_pickle: bool) -> Iterator[None]:
        """Inside, the pipeline has what the request adds to it (LoRAs, tiles); afterwards it is as it was."""
        request, pipe = self.request, self.pipe
        loras = [
            {
                str(_lora_file(name, kind, request.model, self.models)): weight
                for name, weight in getattr(request, kind).items()
            }
            for kind in type(request).model_fields
            if kind.endswith("loras")
        ]
        with contextlib.ExitStack() as stack:
            stack.enter_context(pipe.using_loras(*loras, allow_pickle=allow_pickle))
            if request.tiling and not getattr(pipe.vae, "use_tiling", False):
                pipe.enable_vae_tiling()
                stack.callback(pipe.disable_vae_tiling)
            yield

    def as_made(self, frames: int) -> Any:
        """The request with what only came out when the video of so many frames was made."""
        request = self.request
        return request.changed(frames=frames + self.hidden) if request.frames is None or request.endless else request

    def arguments(self) -> dict[str, Any]:
        """The arguments of the pipeline's `stream`, but for the prompt."""
        import torch

        return self.request.arguments() | {
            "image": self.image,
            "video": self.clip,
            "height": self.height,
            "width": self.width,
            "generator": torch.Generator().manual_seed(self.request.seed),
            "output_type": "np",
        }

    def stream(
        self,
        on_progress: Callable[[Progress], None],
        on_preview: Callable[[Callable[[], np.ndarray]], None] | None,
        resume: RunFolder | None,
    ) -> Iterator[Any]:
        """Pieces of the video (`Chunk`, output_type "np") as they become clean. The arguments are the pipeline's."""
        watched = {"on_progress": on_progress, "on_preview": on_preview, "resume": resume}
        return self.pipe.stream(self.request.prompt if self.live is None else self.live, **self.arguments(), **watched)

    # ------------------------------------------------------------ what was made

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the frames that are written."""
        return self.height, self.width

    def shown(self, frames: np.ndarray, start: int) -> np.ndarray:
        """Frames as they are written, uint8 (F, height, width, 3); `start` is the number of the first. Each comes once,
        in order."""
        return frames

    def measured(self) -> dict[str, Any]:
        """Facts about the video for its metadata."""
        return {}

    def summary(self) -> list[str]:
        """Lines for people at the end."""
        return []


def _lora_file(name: str, kind: str, model: str, models: Any) -> Path:
    """The file of a LoRA: the model's own of that name in its folder `kind`, else what `find_lora_file` finds."""
    own = {} if Path(model).is_file() else models.loras(model, kind)
    if name in own:
        return own[name]
    try:
        return find_lora_file(name)
    except InputError as error:
        has = f"; the model {model} has {', '.join(own)}." if own else "."
        raise InputError(str(error).removesuffix(".") + has) from error
