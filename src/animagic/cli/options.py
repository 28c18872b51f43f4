"""Flags of the commands: those that several share, and those that come from the options classes of the systems."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import AnimagicError
from ..pipelines.flags import Fields
from ..pipelines.options import default_of, flag_of, option_of
from ..systems import SYSTEMS, System
from ..wording import listed
from .app import Json

KEY_VARIABLE = "ANIMAGIC_ENHANCE_KEY"

AllowPickle = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Read weights that are pickle files, such as .ckpt; no code in them runs."),
]
Device = Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the best there is.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads to use.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
EnhanceHelp = f"Let a chat endpoint rewrite the prompt first; its key is read from ${KEY_VARIABLE}."
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="In place of the file's value; may be repeated."),
]


class Flags:
    """A dataclass of flags that several commands share. A command that has a parameter of its type gets them."""


@dataclass(frozen=True)
class Run(Flags):
    """How a video is made, whatever it shows."""

    preview: Annotated[
        bool, typer.Option("--preview", help="Keep a picture of what is being made beside the output.")
    ] = False
    contact_sheet: Annotated[str | None, typer.Option(help="Also write a PNG of evenly spaced frames.")] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the run on disk, and go on from it if there is one.")
    ] = False
    allow_pickle: AllowPickle = False
    device: Device = None
    threads: Threads = None
    quiet: Quiet = False
    as_json: Json = False


@dataclass(frozen=True)
class PromptRun(Run):
    """How a video is made that a prompt describes."""

    enhance: Annotated[str | None, typer.Option(metavar="URL", help=EnhanceHelp)] = None
    enhance_model: Annotated[str | None, typer.Option(help="The language model that the endpoint is to use.")] = None


@dataclass(frozen=True)
class FolderRun(Flags):
    """How the videos are made that an original file asks for."""

    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder of the videos; default: samples/NAME-TIME.")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[N.]FIELD=VALUE", help="In place of the file's (entry N's); may be repeated."),
    ] = None
    format: Annotated[str, typer.Option("--format", help="Of the videos: mp4, webm or gif.")] = "mp4"
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the run on disk, go on with it, make only videos that are missing.")
    ] = False
    allow_pickle: AllowPickle = False
    device: Device = None
    threads: Threads = None
    quiet: Quiet = False
    as_json: Json = False


class Given(dict[str, Any]):
    """The values of options that were given on the command line. A command that has a parameter of this type gets the
    flags of its systems' options in its place, see `takes_options`."""


class Grouped(TyperCommand):
    """A command whose help has a section for the options that only some systems have; with --model, its own only."""

    _written: Sequence[str] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self._written = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        system = _system_of(self._written)
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            panel = getattr(parameter, "rich_help_panel", None)
            line = parameter.get_help_record(ctx)
            if line is None or (panel and system and system.title not in panel):
                continue
            name = "Arguments" if parameter.param_type_name == "argument" else panel or "Options"
            sections.setdefault(name, []).append(line)
        for name, lines in sorted(sections.items(), key=lambda section: section[0].startswith("Only ")):
            with formatter.section(name):
                formatter.write_dl(lines)


def _system_of(written: Sequence[str]) -> System | None:
    """The system of the --model among the words of a command line, if there is one that is known."""
    from .. import zoo

    for word, following in zip(written, [*written[1:], ""], strict=True):
        name = following if word == "--model" else word.removeprefix("--model=") if "--model=" in word else ""
        if name:
            try:  # `requests.system_of` also knows original configuration files, but takes seconds to import
                return SYSTEMS[zoo.system_of(name)]
            except AnimagicError:
                return None
    return None


class _WithOptions:
    """A command whose parameters of types `Given` and `Flags` are replaced by flags, as they are when asked for."""

    def __init__(
        self, function: Callable[..., Any], systems: Callable[[], list[System]], place: str, only: Callable[..., bool]
    ):
        self._function, self._systems, self._place_of_class, self._only = function, systems, place, only
        self._hints = typing.get_type_hints(function, include_extras=True)
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def _fields(self, system: System) -> dict[str, Any]:
        return (system.get(self._place_of_class) if self._place_of_class else system.options_class).model_fields

    def _owners(self) -> dict[str, list[System]]:
        """Field -> the systems that have it."""
        owners: dict[str, list[System]] = {}
        for system in self._systems():
            for name, info in self._fields(system).items():
                option = option_of(info)
                if option is not None and self._only(name, option) and (option.positional or flag_of(name, info)):
                    owners.setdefault(name, []).append(system)
        return owners

    @property
    def __signature__(self) -> inspect.Signature:
        everyone, kind = self._systems(), inspect.Parameter.KEYWORD_ONLY
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(self._function).parameters.values():
            hint = self._hints[own.name]
            if _is_flags(hint):
                shared = inspect.signature(hint, eval_str=True).parameters.values()
                parameters += [parameter.replace(kind=kind) for parameter in shared]
            elif hint is Given:
                for name, having in self._owners().items():
                    panel = None if len(having) == len(everyone) else _panel(having)
                    parameters.append(_parameter(name, self._fields(having[0])[name], panel))
            else:
                parameters.append(own.replace(annotation=hint, kind=kind))
        return inspect.Signature(parameters)

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        return {parameter.name: parameter.annotation for parameter in self.__signature__.parameters.values()}

    def __call__(self, **values: Any) -> Any:
        given = Given()
        for name, having in self._owners().items():
            info, written = self._fields(having[0])[name], values.pop(name)
            if written in (None, []) or written == default_of(info):
                continue
            read = option_of(info).read  # type: ignore[union-attr]  # those without one are not among them
            value = written if read is None else read(written)
            given |= value if isinstance(value, Fields) else {name: value}
        for name, hint in self._hints.items():
            if hint is Given:
                values[name] = given
            elif _is_flags(hint):
                values[name] = hint(**{flag: values.pop(flag) for flag in inspect.signature(hint).parameters})
        return self._function(**values)


def _is_flags(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Flags)


def takes_options(
    systems: Iterable[str] = (),
    *,
    command: str | None = None,
    place: str = "",
    only: Callable[..., bool] = lambda name, option: True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: a command's parameters of types `Given` (the options of systems) and `Flags` become flags.

    Args:
        systems: names of those whose options are meant; command: or all that make their videos with it.
        place: where another class lies in their packages that has the options, "module:name".
        only: chooses among them, from a field's name and its `Option`.
    """

    def chosen() -> list[System]:
        return [row for row in SYSTEMS.values() if row.name in systems or row.command == command]

    return lambda function: _WithOptions(function, chosen, place, only)


def _panel(owners: Sequence[System]) -> str:
    return f"Only {listed(system.title for system in owners)}"


def _parameter(name: str, info: Any, panel: str | None) -> inspect.Parameter:
    """The flag of a field as typer understands it."""
    option, kind = option_of(info), inspect.Parameter.KEYWORD_ONLY
    assert option is not None
    if option.positional:
        return inspect.Parameter(name, kind, annotation=Annotated[str, typer.Argument(help=option.help)])
    flag, default = flag_of(name, info), default_of(info)
    types_ = [part for part in typing.get_args(info.annotation) or (info.annotation,) if part is not types.NoneType]
    is_union = typing.get_origin(info.annotation) in (typing.Union, types.UnionType)
    base = types_[0] if is_union else info.annotation
    many = typing.get_origin(base) in (dict, tuple)
    shape: Any
    if base is bool:
        shape = bool | None if is_union else bool
        flag = f"{flag}/--no-{str(flag)[2:]}" if is_union else flag
    elif many:
        shape, default = list[str] | None, None
    else:
        shape = (base if base in (int, float) and option.read is None else str) | None
        default = default if info.default_factory is None else None
    details = typer.Option(flag, help=option.help, metavar=option.metavar, rich_help_panel=panel)
    return inspect.Parameter(name, kind, annotation=Annotated[shape, details], default=default)
