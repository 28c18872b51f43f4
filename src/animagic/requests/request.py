"""What can be asked for, and what came of it. No network in sight."""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import zoo
from ..errors import InputError

MAX_SEED = 2**64 - 1
_YAML = (".yaml", ".yml")


_LEAST = {
    "frames": 1,
    "height": 1,
    "width": 1,
    "steps": 1,
    "hand_over": 0,
    "window": 1,
    "overlap": 0,
    "free_init": 0,
    "clip_skip": 0,
    "entry": 0,
}


def _of(system: str, option: str = "") -> dict[str, str]:
    """Marks a field that models of one system alone have, with the option that sets it."""
    return {"system": system, "option": option}


def _is_default(part: Field, value: Any) -> bool:
    return value == (part.default if part.default_factory is MISSING else part.default_factory())


def foreign(option: str, model: str, owner: str) -> InputError:
    """For an option that a model does not have: it is one of another system."""
    return InputError(f"the model {model} has no {option}: that is for {zoo.SYSTEMS[owner]} models; leave it out.")


@dataclass(frozen=True)
class Request:
    """What a video is made from; stored in the file, so that it can be made again.

    None means: as the model does by itself. `endless`: the plan has no end, and `frames` says where it was stopped
    (None: not yet). `image` and `video` are paths; `prompts_at` maps chunk (MAGI-1) or frame (AnimateDiff) -> prompt,
    and `hand_over` says over how many chunks such a prompt takes over.
    `model` may be an original configuration file, with `settings` in place of its own: of MAGI-1 (.json,
    "SECTION.FIELD=VALUE") or of AnimateDiff (.yaml, "FIELD=VALUE"), whose `entry` (from 0) is then the model.
    `special_tokens` and `negative_special_tokens` are names of tokens, `special_token_file` has their table.
    `tiling`: the autoencoder works tile by tile, which takes less memory and changes pixels a little.
    `video_part` "first" is the published code's way with a clip: its first frames are gone on from, and not shown
    again; else its last ones are, and are kept in front. `prompt_given` and `prompts_at_given` are the words that an
    enhancer made the prompts from. `loras` maps name (of the model's own), file, folder or hub id -> weight.

    Of AnimateDiff: `motion_prompt` is read by motion modules that have words of their own; `motion_module` is a file in
    place of the model's; `motion_loras` maps name or file -> weight; `dreambooth` is a file or folder whose picture
    model is animated; `embeddings` are files of textual inversion. `sampler` is a name of `timeline.schedulers`.
    `window`, `overlap` (frames), `window_weights` and `loop` shape the windows of a long video. `free_init`: how often
    it is sampled in all, each time from the slow part of the last; 0 and 1: once. `controls` maps frame -> picture,
    read by `controlnet` (folder or file; None: the model's own). `strength`, above 0 and at most 1: how far image or
    video are left behind.
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
    tiling: bool = False
    prompt_given: str | None = None
    prompts_at_given: dict[int, str] = field(default_factory=dict)
    hand_over: int = field(default=0, metadata=_of("magi1"))
    special_tokens: tuple[str, ...] = field(
        default=(), metadata=_of("magi1", "--quality, --style or another special token")
    )
    negative_special_tokens: tuple[str, ...] = field(default=(), metadata=_of("magi1", "--negative-tokens"))
    special_token_file: str | None = field(default=None, metadata=_of("magi1", "--special-tokens"))
    settings: tuple[str, ...] = ()
    video_part: str | None = field(default=None, metadata=_of("magi1", "video_part"))
    motion_prompt: str | None = field(default=None, metadata=_of("animatediff"))
    motion_module: str | None = field(default=None, metadata=_of("animatediff"))
    motion_loras: dict[str, float] = field(default_factory=dict, metadata=_of("animatediff", "--motion-lora"))
    dreambooth: str | None = field(default=None, metadata=_of("animatediff"))
    embeddings: tuple[str, ...] = field(default=(), metadata=_of("animatediff", "--embedding"))
    sampler: str | None = field(default=None, metadata=_of("animatediff"))
    window: int | None = field(default=None, metadata=_of("animatediff"))
    overlap: int | None = field(default=None, metadata=_of("animatediff"))
    window_weights: str | None = field(default=None, metadata=_of("animatediff"))
    loop: bool = field(default=False, metadata=_of("animatediff"))
    free_noise: bool = field(default=False, metadata=_of("animatediff"))
    free_init: int = field(default=0, metadata=_of("animatediff"))
    controls: dict[int, str] = field(default_factory=dict, metadata=_of("animatediff", "--control"))
    controlnet: str | None = field(default=None, metadata=_of("animatediff"))
    control_scale: float | None = field(default=None, metadata=_of("animatediff"))
    strength: float | None = field(default=None, metadata=_of("animatediff"))
    clip_skip: int | None = field(default=None, metadata=_of("animatediff"))
    entry: int = field(default=0, metadata=_of("animatediff"))

    def __post_init__(self):
        if not self.prompt.strip():
            raise InputError("the prompt is empty; say what the video should show.")
        if any(not text.strip() for text in self.prompts_at.values()):
            raise InputError("a later prompt is empty; say what it should show.")
        if self.image is not None and self.video is not None:
            raise InputError("give an image or a video, not both.")
        for name in ("image", "video"):
            if getattr(self, name) == "":
                raise InputError(f"the name of the {name} is empty; give a file, or leave it out.")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, not {value}.")
        if self.fps is not None and not 0 < self.fps <= 240:
            raise InputError(f"fps must lie between 0 and 240, not {self.fps:g}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"the seed must lie between 0 and 2^64 - 1, not {self.seed}.")
        if self.fit not in ("crop", "pad", "stretch"):
            raise InputError(f"fit {self.fit!r} is unknown; choose crop, pad or stretch.")
        for name, weight in [*self.loras.items(), *self.motion_loras.items()]:
            if not name or not math.isfinite(weight):
                raise InputError(f"a LoRA is a file with a number as its weight, not {name!r} with {weight}.")
        if self.video_part not in (None, "first", "last"):
            raise InputError(f"video_part {self.video_part!r} is unknown; choose first or last.")
        if self.controlnet is not None and not self.controls:
            raise InputError("a controlnet has nothing to read; give pictures with their frames (--control).")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise InputError(f"strength must be above 0 and at most 1, not {self.strength:g}.")
        if self.strength is not None and self.image is None and self.video is None:
            raise InputError("strength says how far an image or a video is left behind; give one, or leave it out.")
        if self.settings and not self.is_original:
            raise InputError(f"settings such as {self.settings[0]} need an original configuration file as the model.")

    @property
    def is_original(self) -> bool:
        """Whether the model is an original configuration file."""
        return self.model.endswith((".json", *_YAML))

    @cached_property
    def system(self) -> str:
        """The system of the model. Raises InputError, CheckpointError."""
        if self.is_original:
            return "animatediff" if self.model.endswith(_YAML) else "magi1"
        return zoo.system_of(self.model)

    def refuse_foreign(self) -> None:
        """Raises InputError for what models of another system have, and this one has not."""
        for part in fields(self):
            owner = part.metadata.get("system", self.system)
            if owner != self.system and not _is_default(part, getattr(self, part.name)):
                raise foreign(part.metadata["option"] or "--" + part.name.replace("_", "-"), self.model, owner)

    def as_metadata(self) -> dict[str, Any]:
        """For a file: without what only other systems have."""
        said = {
            part.name
            for part in fields(self)
            if "system" not in part.metadata or not _is_default(part, getattr(self, part.name))
        }
        return {name: value for name, value in asdict(self).items() if name in said}

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any], source: str = "the file") -> Request:
        """The request that a file was made from. Raises InputError if it has none."""
        stored = metadata.get("request")
        if not isinstance(stored, dict) or "prompt" not in stored:
            raise InputError(f"{source} was not made by animagic: it has no request inside.")
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in stored.items() if k in known}
        try:
            for name in ("prompts_at", "prompts_at_given", "controls"):
                values[name] = {int(k): v for k, v in (stored.get(name) or {}).items()}
            for name in ("loras", "motion_loras"):
                values[name] = {str(k): float(v) for k, v in (stored.get(name) or {}).items()}
            for name in ("special_tokens", "negative_special_tokens", "settings", "embeddings"):
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
