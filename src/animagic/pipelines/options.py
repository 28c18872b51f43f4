"""Options of a system: one class, from which flags, help, requests, checks and the pipeline's arguments come.

A field of an options class is all that an option needs: its type, default and range are pydantic's, and an `Option`
says what it means, how it is written on the command line, and which argument of the pipeline it becomes:

    window: Annotated[int | None, Ge(1), Option("Frames denoised together.", argument="context_frames")] = None
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from ..errors import InputError
from ..wording import in_one_sentence
from . import flags

MAX_SEED = 2**64 - 1
Self = TypeVar("Self", bound="VideoOptions")


@dataclass(frozen=True)
class Option:
    """The facts about an option beside its type, default and range.

    Args:
        help: one sentence for people.
        flag: on the command line; "": the field's name with dashes; None: no flag, another field's sets it.
        argument: of the pipeline's `stream`; "": the field's name; None: the pipeline is not told.
        read: function from what was written (a text, or the list of them) to the value, or to `flags.Fields` where the
            flag sets several; None: as pydantic reads it.
        metavar: what the help shows for the value.
        file: the value names input files, and this is what they are called; {} stands for a key or name of many.
        words: what may stand in place of a file.
        weights: those files are weights, which only whoever runs a server gives.
        plan: whether it shapes the plan.
        positional: whether it is an argument of the command, without a flag.
        basic: whether the web page shows it in front, and not among what is advanced.
    """

    help: str
    flag: str | None = ""
    argument: str | None = ""
    read: Callable[[Any], Any] | None = None
    metavar: str | None = None
    file: str | None = None
    words: tuple[str, ...] = ()
    weights: bool = False
    plan: bool = False
    positional: bool = False
    basic: bool = False

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Any:
        return {**handler(core_schema), "description": self.help}


def option_of(info: FieldInfo) -> Option | None:
    """The `Option` of a field; None for one that is not offered, such as what an enhancer was given."""
    return next((entry for entry in info.metadata if isinstance(entry, Option)), None)


def flag_of(name: str, info: FieldInfo) -> str | None:
    """The flag of a field: "--name" unless its option says another."""
    option = option_of(info)
    if option is None or option.flag is None:
        return None
    return option.flag or "--" + name.replace("_", "-")


class VideoOptions(BaseModel):
    """A request for a video; it is stored in the file, so that the video can be made again.

    None means: as the model does by itself. Paths are texts. Every system has a subclass with its own options.
    Raises: InputError, one sentence, for values that no model could use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: Annotated[str, Option("What the video should show.", argument=None, positional=True, basic=True)]
    model: str
    """A name of the zoo, a folder, a hub id, or an original configuration file."""
    image: Annotated[str | None, Option("A picture that begins to move.", argument=None, file="image", basic=True)] = (
        None
    )
    video: Annotated[str | None, Option("A clip to begin from.", argument=None, file="video", basic=True)] = None
    frames: Annotated[
        int | None,
        Ge(1),
        Option(
            "Frames of the video, a given clip included; endless, where the system can: until Ctrl-C.",
            argument="num_frames",
            read=flags.read_frames,
            metavar="N|endless",
            plan=True,
            basic=True,
        ),
    ] = None
    endless: bool = False
    """The plan has no end; `frames` says where it was stopped (None: not yet)."""
    height: Annotated[int | None, Ge(1), Option("", flag=None)] = None
    width: Annotated[
        int | None,
        Ge(1),
        Option("WIDTHxHEIGHT in pixels.", flag="--size", read=flags.read_size, metavar="WIDTHxHEIGHT"),
    ] = None
    steps: Annotated[
        int | None, Ge(1), Option("Denoising steps (of a chunk).", argument="num_inference_steps", plan=True)
    ] = None
    guidance: Annotated[
        float | None,
        Ge(0),
        Le(100),
        Option("How strongly the prompt is followed.", argument="guidance_scale", metavar="SCALE"),
    ] = None
    seed: Annotated[
        int,
        Ge(0),
        Le(MAX_SEED),
        Option("The same seed makes the same video; default: a new one.", argument=None),
    ] = Field(default_factory=lambda: secrets.randbelow(2**32))
    fps: Annotated[float | None, Gt(0), Le(240), Option("Frames per second at which it is played.", argument=None)] = (
        None
    )
    negative_prompt: Annotated[str | None, Option("What the video should not show.")] = None
    prompts_at: Annotated[
        dict[int, str],
        Option(
            "Another prompt from chunk or frame N on; may be repeated.",
            flag="--prompt-at",
            read=flags.read_prompts_at,
            metavar="N:TEXT",
            basic=True,
        ),
    ] = {}
    fit: Annotated[
        Literal["crop", "pad", "stretch"], Option("How image or clip are brought to size: crop, pad or stretch.")
    ] = "crop"
    loras: Annotated[
        dict[str, float],
        Option(
            "A LoRA: one that came with the model, a file, folder or hub id; may be repeated.",
            flag="--lora",
            argument=None,
            read=flags.read_weights,
            metavar="NAME[:WEIGHT]",
            file="LoRA {}",
            basic=True,
            weights=True,
        ),
    ] = {}
    tiling: Annotated[bool, Option("Decode in tiles: less memory, slightly different pixels.", argument=None)] = False
    settings: tuple[str, ...] = ()
    """Of an original configuration file that is the model: FIELD=VALUE in place of its own."""
    prompt_given: str | None = None
    """The prompt that an enhancer was given."""
    prompts_at_given: dict[int, str] = {}

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise in_one_sentence(error, type(self), values, self._called) from None

    @classmethod
    def _called(cls, name: str) -> str:
        """The name of a field in a sentence: its flag, where it has one."""
        info = cls.model_fields.get(name)
        return (flag_of(name, info) if info is not None else None) or name

    @field_validator("prompt")
    @classmethod
    def _prompt_says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise InputError("the prompt is empty; say what the video should show.")
        return prompt

    @field_validator("prompts_at")
    @classmethod
    def _later_prompts_say_something(cls, prompts: dict[int, str]) -> dict[int, str]:
        if not all(text.strip() for text in prompts.values()):
            raise InputError("a later prompt is empty; say what it should show.")
        return prompts

    @field_validator("loras", "motion_loras", check_fields=False)
    @classmethod
    def _loras_have_names(cls, loras: dict[str, float]) -> dict[str, float]:
        if "" in loras:
            raise InputError(f"a LoRA is a file with a number as its weight, not '' with {loras['']}.")
        return loras

    @model_validator(mode="after")
    def _begins_from_one_thing(self: Self) -> Self:
        if self.image is not None and self.video is not None:
            raise InputError("give an image or a video, not both.")
        for name in ("image", "video"):
            if getattr(self, name) == "":
                raise InputError(f"the name of the {name} is empty; give a file, or leave it out.")
        return self

    @property
    def title(self) -> str:
        """What the video is called, in file names and while it is made."""
        return self.prompt

    def changed(self: Self, **values: Any) -> Self:
        """With other values, checked anew."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | values)

    def arguments(self, plan: bool = False) -> dict[str, Any]:
        """The pipeline's arguments: every option that was given. plan: only those that shape the plan."""
        given: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            option, value = option_of(info), getattr(self, name)
            if option is None or option.argument is None or value == default_of(info) or (plan and not option.plan):
                continue
            given[option.argument or name] = value
        return given

    def files(self) -> Iterator[tuple[str, str, str]]:
        """(field, what it is called, name or path) of every input file."""
        for name, info in type(self).model_fields.items():
            option, value = option_of(info), getattr(self, name)
            if option is None or option.file is None or not value:
                continue
            if isinstance(value, str):
                yield name, option.file, value
            elif isinstance(value, dict):
                paths = {k: v if isinstance(v, str) else k for k, v in value.items()}
                yield from ((name, option.file.format(key), path) for key, path in paths.items())
            else:
                yield from ((name, option.file.format(path), path) for path in value)

    def stored(self) -> dict[str, Any]:
        """As it is written into files: what JSON holds."""
        return self.model_dump(mode="json")

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """A request that an earlier version stored, under today's names. Fields without a meaning are dropped."""
        return {name: value for name, value in stored.items() if name in cls.model_fields}


class WindowOptions(VideoOptions):
    """Options of systems that make a long video in windows that overlap."""

    window: Annotated[
        int | None,
        Ge(1),
        Option(
            "Frames that are denoised together; longer videos are made in windows.",
            argument="context_frames",
            plan=True,
        ),
    ] = None
    overlap: Annotated[
        int | None, Ge(0), Option("Frames that neighbouring windows share.", argument="context_overlap", plan=True)
    ] = None
    window_weights: Annotated[
        Literal["pyramid", "flat"] | None,
        Option("How windows are blended where they overlap: pyramid or flat.", argument="context_weights", plan=True),
    ] = None
    loop: Annotated[bool, Option("The last frame goes over into the first.", argument="closed_loop", plan=True)] = False


class MemoryOptions(VideoOptions):
    """Options of systems whose memory can be predicted."""

    memory: Annotated[
        str | None,
        Option("Such as 12GB: choose what makes the video fit into that much, and say so.", argument=None),
    ] = Field(default=None, exclude=True)


def default_of(info: FieldInfo) -> Any:
    """The value of a field where nothing is given."""
    return info.get_default(call_default_factory=True)
