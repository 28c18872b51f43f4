"""The options of the systems as fields of a form: what each is called, what it takes, who has it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from ..pipelines.options import Option, default_of, flag_of, option_of
from ..systems import System

Kind = Literal[
    "text", "lines", "number", "choice", "yes", "image", "video", "sounds", "file", "files", "placed files", "weights"
]
_MEDIA: dict[str | None, Kind] = {"image": "image", "video": "video", "voice {}": "sounds"}
_MANY = 2**53
"""A bound that nobody needs to be told."""


def without_flags(text: str) -> str:
    """A text for people at a command line as one for people at a form: "Frames" for --frames."""
    return re.sub(r"--([a-z][a-z-]+)", lambda flag: f'"{_label(flag[1])}"', text)


def _label(name: str) -> str:
    text = name.lstrip("-").replace("-", " ").replace("_", " ").capitalize()
    return re.sub(r"\b[Ll]ora\b", "LoRA", text)


@dataclass(frozen=True)
class Field:
    """An option that a form offers. owners: names of the systems that have it."""

    name: str
    info: FieldInfo
    option: Option
    owners: tuple[str, ...]

    @property
    def type(self) -> Any:
        """The type of its value where there is one."""
        annotation = self.info.annotation
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            return next(part for part in typing.get_args(annotation) if part is not types.NoneType)
        return annotation

    @property
    def label(self) -> str:
        return _label(flag_of(self.name, self.info) or self.name)

    @property
    def help(self) -> str:
        """What it means and takes, in the words of a form."""
        text = self.option.help.replace("; may be repeated", "; one a line" if self.kind == "lines" else "")
        return " ".join(filter(None, (without_flags(text), "" if self.several else self._range)))

    @property
    def _range(self) -> str:
        bounds = {type(bound): bound for bound in self.info.metadata if isinstance(bound, (Ge, Gt, Le))}
        least, above, most = (getattr(bounds.get(kind), kind.__name__.lower(), None) for kind in (Ge, Gt, Le))
        if most is not None and float(str(most)) < _MANY:
            return f"({'above ' if least is None else ''}{above if least is None else least} to {most})"
        return f"({least} or more)" if least else ""

    @property
    def optional(self) -> bool:
        """Whether the model decides where nothing is said."""
        return self.default is None or self.info.default_factory is not None

    @property
    def default(self) -> Any:
        return None if self.info.default_factory is not None else default_of(self.info)

    @property
    def kind(self) -> Kind:
        """What kind of control it needs."""
        kind, origin, file = self.type, typing.get_origin(self.type), self.option.file
        if file in _MEDIA:
            return _MEDIA[file]
        if origin is dict and file is not None:
            return "weights" if typing.get_args(kind)[1] is float else "placed files"
        if origin in (dict, tuple):
            return "lines" if file is None else "files"
        if file is not None:
            return "file"
        if origin is Literal or kind is bool:
            return "yes" if kind is bool and not self.optional else "choice"
        return "number" if kind in (int, float) and not self.option.read else "text"

    @property
    def several(self) -> bool:
        """Whether its text sets more fields than the one of its name, as the size does."""
        return self.kind == "text" and self.option.flag not in ("", None, "--" + self.name.replace("_", "-"))


def fields_of(systems: Iterable[System]) -> list[Field]:
    """What a form for the models of these systems offers: what is basic first, and of that the input.

    Left out is what is not stored with a request: it says how a command runs, not what the video is.
    """
    found: dict[str, Field] = {}
    for system in systems:
        for name, info in system.options_class.model_fields.items():
            option = option_of(info)
            if option is None or info.exclude or (flag_of(name, info) is None and not option.positional):
                continue
            owners = (*(found[name].owners if name in found else ()), system.name)
            first = found.get(name)
            found[name] = Field(name, first.info if first else info, first.option if first else option, owners)
    return sorted(found.values(), key=_place)


def _place(field: Field) -> int:
    if not field.option.basic:
        return 9
    if field.option.positional and field.kind == "text":
        return 0
    order: tuple[Kind, ...] = ("image", "video", "sounds")
    told = field.kind == "lines" and typing.get_origin(field.type) is tuple
    return order.index(field.kind) if field.kind in order else 3 if told else 4
