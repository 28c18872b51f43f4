"""Requests and their results. No network in sight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import zoo
from ..errors import InputError, first_line
from ..pipelines.job import Job
from ..pipelines.options import VideoOptions, default_of, flag_of
from ..systems import SYSTEMS, System, systems_with
from ..weights.original import SUFFIXES, read_file
from ..wording import listed, nearest
from ..zoo.words import advice


def system_of(model: str) -> System:
    """The system of a model, which may be an original configuration file. Raises InputError, CheckpointError."""
    if not is_original(model):
        return SYSTEMS[zoo.system_of(model)]
    content, known = read_file(model), [system for system in SYSTEMS.values() if system.recognises is not None]
    for system in known:
        if system.get(system.recognises)(content):
            return system
    titles = ", ".join(system.title for system in known)
    raise InputError(f"{model} is no configuration that is known; known are those of {titles}.")


def is_original(model: str) -> bool:
    """Whether a model is an original configuration file, which may be missing; see `system_of`."""
    return model.endswith(SUFFIXES) and not Path(model).is_dir()


def build_request(prompt: str, model: str = zoo.DEFAULT, **options: Any) -> VideoOptions:
    """A request: the options of the model's system, checked. None stands for an option that is not given.

    Raises: InputError for values that the system cannot use and for options that it does not have; CheckpointError.
    """
    system = system_of(model)
    kind = system.options_class
    for name, value in options.items():
        if name not in kind.model_fields:
            _refuse_foreign(name, value, model, system)
    given = {name: value for name, value in options.items() if value is not None and name in kind.model_fields}
    made = kind(prompt=prompt, model=model, **given)
    if made.settings and not is_original(model):
        raise InputError(f"settings such as {made.settings[0]} need an original configuration file as the model.")
    return made


def _refuse_foreign(name: str, value: Any, model: str, system: System) -> None:
    """Raises InputError for an option of another system, unless it has the value that it has by itself."""
    owners = list(systems_with(name))
    if not owners:
        raise InputError(f"{name} is unknown{nearest(name, system.options_class.model_fields)}")
    field = owners[0].options_class.model_fields[name]
    if value is not None and value != default_of(field):
        flag, titles = flag_of(name, field) or name, listed(owner.title for owner in owners)
        raise InputError(f"the model {model} has no {flag}: that is for {titles} models; leave it out.")


def from_metadata(metadata: dict[str, Any], source: str = "the file") -> VideoOptions:
    """The request that a file was made from, also by an earlier version. Raises InputError if it has none."""
    stored = metadata.get("request")
    if not isinstance(stored, dict) or "prompt" not in stored:
        raise InputError(f"{source} was not made by animagic: it has no request inside.")
    stored = {"model": zoo.DEFAULT, **stored}
    try:
        kind = system_of(str(stored["model"])).options_class
        return kind(**kind.upgraded(stored))
    except InputError as error:
        raise InputError(f"{source} holds a request that cannot be understood: {error}") from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # values of other kinds
        raise InputError(f"{source} holds a request that cannot be understood: {first_line(error)}.") from error


def job_for(request: VideoOptions, live: Any = None) -> Job:
    """The request in the hands of its system. Raises InputError, CheckpointError."""
    return _job_class(request)(request, zoo, live)


def input_files(request: VideoOptions) -> dict[str, str]:
    """The files that a request names, by what they are. Raises InputError, CheckpointError."""
    return _job_class(request).input_files(request, zoo)


def hint(request: VideoOptions) -> str | None:
    """One line about prompts that the model cannot draw; None: it knows them, or its folder lists no words."""
    words = None if is_original(request.model) else zoo.vocabulary(request.model)
    own = {name for kind in ("loras", "motion_loras") for name in zoo.loras(request.model, kind)} if words else set()
    added = {field for field, _, name in request.files() if name not in own}
    prompts = [prompt for prompt in (request.prompt, *request.prompts_at.values()) if prompt]
    # A LoRA and the like may bring words of its own.
    if words is None or not prompts or added - {"image", "video", "audio", "mask"}:
        return None
    return advice(request.model, words, prompts, not added)


def _job_class(request: VideoOptions) -> type[Job]:
    from ..pipelines.devices import be_quiet

    be_quiet()  # before the systems' modules are imported: with them come libraries that warn
    system = system_of(request.model)
    return system.get(system.original_job if is_original(request.model) else system.job)


@dataclass(frozen=True)
class Result:
    """A video that was made."""

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
    levels: tuple[int, ...] = ()
    """How far each latent frame in work has come: its index in the noise schedule, `num_levels`: clean."""
    start: int = 0
    """The first of these latent frames."""
    num_levels: int = 0


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
