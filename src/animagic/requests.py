"""A request for a video and how it is carried out: the one way that command line, app and server share."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, zoo
from .errors import AnimagicError, CheckpointError, InputError, MediaError

if TYPE_CHECKING:
    import numpy as np

    from .systems.magi1.live import LivePrompt
    from .systems.magi1.pipeline import Magi1Pipeline
    from .zoo.fitting import Fit

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Request:
    """What a video is made from; stored in the file, so that it can be made again.

    None means: as the model does by itself. `endless`: the plan has no end, and `frames` says where it was stopped
    (None: not yet). `image` and `video` are paths; `prompts_at` maps chunk -> prompt, and `hand_over` says over how
    many chunks such a prompt takes over.
    `model` may be an original configuration file (.json), with `settings` ("SECTION.FIELD=VALUE") in place of its own.
    `special_tokens` and `negative_special_tokens` are names of tokens, `special_token_file` has their table.
    `tiling`: the autoencoder works tile by tile, which takes less memory and changes pixels a little.
    `video_part` "first" is the published code's way with a clip: its first frames are gone on from, and not shown
    again; else its last ones are, and are kept in front. `prompt_given` and `prompts_at_given` are the words that an
    enhancer made the prompts from. `loras` maps file, folder or hub id -> weight.
    Raises: InputError for values that no model could use.
    """

    prompt: str
    model: str = zoo.DEFAULT
    image: str | None = None
    video: str | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = field(default_factory=lambda: secrets.randbelow(2**32))
    fps: float | None = None
    negative_prompt: str | None = None
    prompts_at: dict[int, str] = field(default_factory=dict)
    fit: str = "crop"
    loras: dict[str, float] = field(default_factory=dict)
    endless: bool = False
    hand_over: int = 0
    special_tokens: tuple[str, ...] = ()
    negative_special_tokens: tuple[str, ...] = ()
    special_token_file: str | None = None
    settings: tuple[str, ...] = ()
    tiling: bool = False
    video_part: str | None = None
    prompt_given: str | None = None
    prompts_at_given: dict[int, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.prompt.strip():
            raise InputError("the prompt is empty; say what the video should show.")
        if any(not text.strip() for text in self.prompts_at.values()):
            raise InputError("a prompt of a later chunk is empty; say what it should show.")
        if self.image is not None and self.video is not None:
            raise InputError("give an image or a video, not both.")
        for name in ("image", "video"):
            if getattr(self, name) == "":
                raise InputError(f"the name of the {name} is empty; give a file, or leave it out.")
        for name in ("frames", "height", "width", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}.")
        if self.hand_over < 0:
            raise InputError(f"hand_over must be at least 0, not {self.hand_over}.")
        if self.fps is not None and not 0 < self.fps <= 240:
            raise InputError(f"fps must lie between 0 and 240, not {self.fps:g}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"the seed must lie between 0 and 2^63 - 1, not {self.seed}.")
        if self.fit not in ("crop", "pad", "stretch"):
            raise InputError(f"fit {self.fit!r} is unknown; choose crop, pad or stretch.")
        for name, weight in self.loras.items():
            if not name or not math.isfinite(weight):
                raise InputError(f"a LoRA is a file with a number as its weight, not {name!r} with {weight}.")
        if self.video_part not in (None, "first", "last"):
            raise InputError(f"video_part {self.video_part!r} is unknown; choose first or last.")
        if self.settings and not self.is_original:
            raise InputError(f"settings such as {self.settings[0]} need an original configuration file as the model.")

    @property
    def is_original(self) -> bool:
        """Whether the model is an original configuration file."""
        return self.model.endswith(".json")

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any], source: str = "the file") -> Request:
        """The request that a file was made from. Raises InputError if it has none."""
        stored = metadata.get("request")
        if not isinstance(stored, dict) or "prompt" not in stored:
            raise InputError(f"{source} was not made by animagic: it has no request inside.")
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in stored.items() if k in known}
        try:
            for name in ("prompts_at", "prompts_at_given"):
                values[name] = {int(k): v for k, v in (stored.get(name) or {}).items()}
            values["loras"] = {str(k): float(v) for k, v in (stored.get("loras") or {}).items()}
            for name in ("special_tokens", "negative_special_tokens", "settings"):
                values[name] = tuple(stored.get(name) or ())
            return cls(**values)
        except InputError:
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{source} holds a request that cannot be understood: {error}.") from error


@dataclass(frozen=True)
class Result:
    """What came out."""

    output: str
    frames: int
    height: int
    width: int
    fps: float
    seed: int
    seconds: float
    contact_sheet: str | None = None


@dataclass(frozen=True)
class Report:
    """Where a request stands, for a progress bar."""

    step: int
    total_steps: int | None
    frames: int
    """Frames that are final."""
    total_frames: int | None
    frames_per_second: float
    seconds_left: float | None


def default_device() -> str:
    """The best device of this machine: "cuda", "mps" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _be_quiet() -> None:
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def load_pipeline(model: str, device: str | None = None) -> Magi1Pipeline:
    """The pipeline of a model, quietly, on a device, as `zoo.dtype_on` says."""
    _be_quiet()
    device = device or default_device()
    with _refusing(device):
        pipe = zoo.load(model, dtype=zoo.dtype_on(model, device))
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)


@contextmanager
def _refusing(device: str) -> Iterator[None]:
    """What PyTorch raises where a device is not there, or too small, becomes an InputError."""
    try:
        yield
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # AssertionError: PyTorch without CUDA
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"the device {device} cannot be used here: {reason}.") from error


def fit_request(request: Request, memory: int, device: str | None = None, *, live: bool = False) -> Fit:
    """Choose what makes a request fit into `memory` bytes. live: whether prompts come while the video is made.

    Raises: InputError, which says the least that would do; CheckpointError.
    """
    from .zoo.fitting import fit

    _be_quiet()
    device = device or default_device()
    with _refusing(device):
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


def pipeline_for(
    request: Request, device: str | None = None, *, allow_pickle: bool = False, fitted: Fit | None = None
) -> Magi1Pipeline:
    """The pipeline that a request names: a model's, or that of an original configuration file, on a device.

    Args:
        allow_pickle: read original weights that are pickle files, too.
        fitted: how it is made to fit into memory, from `fit_request`.
    Raises: InputError, CheckpointError.
    """
    if fitted is not None:
        from .zoo.fitting import load_fitting

        texts = [request.prompt, *request.prompts_at.values(), *filter(None, [request.negative_prompt])]
        device = device or default_device()
        with _refusing(device):
            pipe = load_fitting(fitted, device, texts)
        pipe.set_progress_bar_config(disable=True)
    elif request.is_original:
        import torch

        from .systems.magi1 import original

        _be_quiet()
        device = device or default_device()
        with _refusing(device):
            torch.ones(1, device=device).item()  # before gigabytes are read
        pipe = original.load_pipeline(request.model, request.settings, device=device, allow_pickle=allow_pickle)
        pipe.set_progress_bar_config(disable=True)
    else:
        pipe = load_pipeline(request.model, device)
    if request.special_token_file is not None:
        from .systems.magi1.files import read_special_tokens

        channels = pipe.transformer.config.caption_channels
        pipe.register_modules(special_tokens=read_special_tokens(Path(request.special_token_file), channels))
    return pipe


def slug(prompt: str) -> str:
    """A file name from a prompt."""
    return re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")[:60].strip("-") or "video"


def free_name(folder: Path, prompt: str, suffix: str = ".mp4") -> Path:
    """A name for a video of `prompt` that no file in `folder` has yet."""
    name, count = folder / f"{slug(prompt)}{suffix}", 1
    while name.exists():
        count += 1
        name = folder / f"{slug(prompt)}-{count}{suffix}"
    return name


def _fingerprint(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else ""


def _input_files(request: Request) -> dict[str, str]:
    """The files that the request names, by what they are. Raises InputError for a LoRA that is not there."""
    names = ("image", "video", "special_token_file", *(("model",) if request.is_original else ()))
    files = {name: path for name in names if (path := getattr(request, name))}
    if request.loras:
        from .systems.magi1.lora import find_lora_file

        files |= {f"LoRA {name}": str(find_lora_file(name)) for name in request.loras}
    return files


def _fingerprints(request: Request) -> dict[str, str]:
    return {name: _fingerprint(path) for name, path in _input_files(request).items()}


def metadata(request: Request, plan: Any) -> dict[str, Any]:
    """What is stored in the file: request, plan, versions, fingerprints of the inputs."""
    import diffusers
    import torch

    return {
        "made_with": f"animagic {__version__}",
        "versions": {"animagic": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        "request": asdict(request),
        "plan": {"kind": type(plan).__name__, **{k: v for k, v in vars(plan).items() if not k.startswith("_")}},
        "inputs": _fingerprints(request),
    }


def check_inputs(request: Request, stored: dict[str, Any]) -> None:
    """Raises InputError if an input file is no longer the one that `stored` metadata speaks of."""
    files = _input_files(request)
    for name, fingerprint in (stored.get("inputs") or {}).items():
        path = files.get(name)
        if path and fingerprint and _fingerprint(path) != fingerprint:
            what = name.replace("_", " ")
            raise InputError(f"the {what} {path} is missing or has changed since; the same frames cannot be made.")


class _Sampled:
    """About twelve evenly spaced frames of a video of any length, in little memory."""

    def __init__(self, count: int = 12):
        self.count, self.every, self.index = count, 1, 0
        self.frames: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        for frame in frames:
            if self.index % self.every == 0:
                self.frames.append(frame)
            self.index += 1
            if len(self.frames) == 2 * self.count:  # too dense: every second one goes
                self.frames, self.every = self.frames[::2], self.every * 2


def generate(
    request: Request,
    output: str | Path,
    *,
    pipe: Magi1Pipeline | None = None,
    device: str | None = None,
    contact_sheet: str | Path | None = None,
    preview: str | Path | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
    on_report: Callable[[Report], None] | None = None,
    live: LivePrompt | None = None,
    stop: Callable[[], bool] | None = None,
    memory: int | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Result:
    """Carry out a request and write the video while it is made.

    Args:
        output: where; the suffix chooses the format.
        pipe: a loaded pipeline of the request's model, to save loading it; else it is loaded on `device`.
        contact_sheet: a PNG of evenly spaced frames, to look at.
        preview: a PNG that shows what is being made, renewed about every second, removed at the end.
        resume: keep the run in `<output>.resume`, and continue from it if it is there.
        allow_pickle: see `pipeline_for`.
        on_report: called after every step.
        live: asked for the prompt while the video is made, in place of the request's; what it says goes into the file.
        stop: asked after every step of an endless video; True ends it with the frames that are final.
        memory: bytes that may be used on the device (by this process, on a processor); what makes the video fit is
            chosen, and told to `on_note`. It changes no frame but by `tiling`, which the stored request then has.

    Nothing is left half-written: the file appears under its name when it is whole.
    Raises: InputError, MediaError, CheckpointError; KeyboardInterrupt passes through.
    """
    import numpy as np
    from safetensors import SafetensorError

    from .media import VideoWriter, read_image, read_video, write_image
    from .media import contact_sheet as draw_sheet
    from .media.files import check_writable
    from .systems.magi1.pipeline import to_bytes
    from .timeline import RunFolder

    began = time.monotonic()
    for path in (contact_sheet, preview):  # now, not after hours of work
        if path is not None:
            if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
                raise MediaError(f"{path} ends in {Path(path).suffix!r}: a picture is written as .png or .jpg.")
            check_writable(Path(path))
    VideoWriter(output, fps=24)  # refuses what it could not write
    image = read_image(request.image) if request.image else None
    _input_files(request)  # refuses a LoRA that is not there before a large model is loaded
    fitted = None
    if memory is not None:
        if pipe is not None:
            raise InputError("memory is for loading a model; give either that or a loaded pipe.")
        fitted = fit_request(request, memory, device, live=live is not None)
        request = replace(request, tiling=fitted.techniques.tiling)
        if on_note is not None:
            on_note(str(fitted))
    pipe = pipe or pipeline_for(request, device, allow_pickle=allow_pickle, fitted=fitted)
    fps = pipe.sampling.fps
    # As many frames as the published code takes, but the last ones: the video is to go on where the clip ends.
    as_published = request.video_part == "first"
    clip = read_video(request.video, fps=fps, max_frames=32, last=not as_published).frames if request.video else None
    given = 0 if clip is None else len(clip) - len(clip) % pipe.sampling.temporal_downsample_factor
    hidden = given if as_published else 0
    if not request.endless:
        request = replace(request, frames=request.frames or pipe.sampling.num_frames + given)
    elif request.frames is None and Path(output).suffix.lower() not in (".mp4", ".webm"):
        raise MediaError(f"{output} cannot hold a video without an end; write an .mp4 or .webm.")
    # Everything that can be wrong is refused before a file is begun.
    pipe.configure(request.steps, request.guidance)
    height, width = request.height or pipe.sampling.video_size_h, request.width or pipe.sampling.video_size_w
    pipe.check_size(height, width)

    import torch

    sampled, frames, size = _Sampled(), 0, (height, width)
    total_frames = None if request.frames is None else request.frames - hidden
    ratio = pipe.sampling.temporal_downsample_factor
    last_preview = 0.0

    def report(progress: Any) -> None:
        if request.endless and stop is not None and stop():
            pipe.interrupt = True
        done = progress.clean_frames * ratio
        done = done if total_frames is None else min(done, total_frames)
        if on_report is not None:
            speed = done / progress.seconds if progress.seconds else 0.0
            on_report(Report(progress.step, progress.total_steps, done, total_frames, speed, progress.seconds_left))

    def show(decode: Callable[[], np.ndarray]) -> None:
        nonlocal last_preview
        if preview is not None and time.monotonic() - last_preview >= 1:
            write_image(preview, draw_sheet(decode()))
            last_preview = time.monotonic()

    with ExitStack() as stack:
        notes = {**asdict(request), "inputs": _fingerprints(request)}
        kept = RunFolder(resume_folder(Path(output)), notes) if resume else None
        if kept is not None:
            stack.push(partial(_forget_unbegun, kept))
        if preview is not None:
            stack.callback(Path(preview).unlink, missing_ok=True)
        stack.enter_context(pipe.using_loras(request.loras, allow_pickle=allow_pickle))
        if request.tiling and not pipe.vae.use_tiling:
            pipe.enable_vae_tiling()
            stack.callback(pipe.disable_vae_tiling)
        plan = pipe.plan(request.frames, request.steps, endless=request.endless)
        writer = stack.enter_context(VideoWriter(output, request.fps or fps, metadata=metadata(request, plan)))
        chunks: Iterator = pipe.stream(
            request.prompt if live is None else live,
            image=image,
            video=clip,
            prompts_at=request.prompts_at,
            hand_over=request.hand_over,
            endless=request.endless,
            negative_prompt=request.negative_prompt,
            special_tokens=request.special_tokens,
            negative_special_tokens=request.negative_special_tokens,
            height=height,
            width=width,
            num_frames=request.frames,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            generator=torch.Generator().manual_seed(request.seed),
            fit=request.fit,
            output_type="np",
            on_progress=report,
            on_preview=show if preview is not None else None,
            resume=kept,
        )
        try:
            for chunk in chunks:
                pixels = to_bytes(chunk.frames[0])[max(hidden - chunk.start, 0) :]
                if total_frames is not None:
                    pixels = pixels[: total_frames - frames]
                if not len(pixels):
                    continue
                writer.write(pixels)
                sampled.add(pixels)
                frames += len(pixels)
                if frames == total_frames:
                    break
            else:
                if not frames:
                    raise KeyboardInterrupt  # stopped before anything was final
                if request.endless:
                    request = replace(request, frames=frames + hidden)
            if live is not None:
                request = replace(request, prompt=live.said[0], prompts_at={k: v for k, v in live.said.items() if k})
            writer.metadata = metadata(request, plan)
        except SafetensorError as error:
            full = "No space left" in str(error)
            reason = "the disk is full, so free some space and try again" if full else str(error)
            raise MediaError(f"the run cannot be kept in {resume_folder(Path(output))}: {reason}.") from error
    if contact_sheet is not None:
        write_image(contact_sheet, draw_sheet(np.stack(sampled.frames)))
    if kept is not None and not (request.endless and stop is not None and stop()):  # that one can still go on
        kept.remove()
    return Result(
        output=str(output),
        frames=frames,
        height=size[0],
        width=size[1],
        fps=request.fps or fps,
        seed=request.seed,
        seconds=round(time.monotonic() - began, 3),
        contact_sheet=None if contact_sheet is None else str(contact_sheet),
    )


def _forget_unbegun(kept: Any, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Remove the folder of a run that was refused before anything was made: a corrected one must be able to begin."""
    if isinstance(error, AnimagicError) and not (kept.folder / "state.safetensors").exists():
        kept.remove()


def enhance(request: Request, enhancer: Callable[[str], str], kept: str | Path | None = None) -> Request:
    """The request with its prompts as an enhancer writes them; the words given stay in it as `prompt_given`.

    kept: an output whose unfinished run is to go on; what these very words became then is taken again.
    """
    as_given = replace(request, prompt_given=request.prompt, prompts_at_given=request.prompts_at)
    note = resume_folder(Path(kept)) / "request.json" if kept is not None else None
    if note is not None and note.exists():
        earlier = Request.from_metadata({"request": _read_note(note)}, str(note))
        if (earlier.prompt_given, earlier.prompts_at_given) == (request.prompt, request.prompts_at):
            return replace(as_given, prompt=earlier.prompt, prompts_at=earlier.prompts_at)
    prompts_at = {chunk: enhancer(text) for chunk, text in request.prompts_at.items()}
    return replace(as_given, prompt=enhancer(request.prompt), prompts_at=prompts_at)


def _read_note(note: Path) -> dict[str, Any]:
    """What a run that is kept was asked for."""
    import json

    try:
        fields = json.loads(note.read_text("utf-8"))
        if not isinstance(fields, dict):
            raise TypeError
        return fields
    except (TypeError, ValueError) as error:
        raise InputError(f"{note} is damaged; delete {note.parent} and start again.") from error


def resume_folder(output: Path) -> Path:
    """Where an unfinished run of `output` is kept."""
    return output.with_name(output.name + ".resume")


def kept_seed(output: Path) -> int:
    """The seed of the unfinished run of `output`, or a new one."""
    note = resume_folder(output) / "request.json"
    if note.exists():
        try:
            return int(_read_note(note)["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{note} is damaged; delete {note.parent} and start again.") from error
    return secrets.randbelow(2**32)


def count_equal_frames(first: str | Path, second: str | Path) -> tuple[int, int]:
    """How many frames of two videos are equal, and of how many (the longer one's)."""
    from itertools import zip_longest

    import numpy as np

    from .media import iter_video

    equal = total = 0
    for a, b in zip_longest(iter_video(first), iter_video(second)):
        total += 1
        equal += a is not None and b is not None and np.array_equal(a, b)
    return int(equal), total


def draw_plan(model: str, kind: str, frames: int | None, steps: int | None, output: str | Path) -> dict[str, int]:
    """Draw the plan that a model would follow; returns its counts. Raises InputError, MediaError."""
    from dataclasses import asdict

    import numpy as np

    from .media import write_image
    from .systems.magi1.sampling import Magi1Sampling
    from .timeline import WholeClip
    from .timeline.drawing import draw_plan as draw

    if kind not in ("staircase", "whole"):
        raise InputError(f"plan {kind!r} is unknown; choose staircase or whole.")
    try:
        sampling = Magi1Sampling.from_config(zoo.settings(model)).with_steps(steps)
        chunks = sampling.chunks_of(sampling.num_frames if frames is None else frames)
        plan: Any = sampling.plan(chunks)
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"the settings of {model} cannot be understood: {error}.") from error
    if kind == "whole":
        plan = WholeClip(chunks * sampling.chunk_width, sampling.num_steps)
    write_image(output, np.asarray(draw(plan, sampling.chunk_width)))
    return asdict(plan.describe())
