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
_EXACT = 2**53
"""Whole numbers beyond it are not exact in a browser."""


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
        return (flag_of(self.name, self.info) or self.name).lstrip("-").replace("-", " ").replace("_", " ").capitalize()

    @property
    def help(self) -> str:
        """What it means and takes, in the words of a form."""
        text = self.option.help.replace("; may be repeated", "; one a line" if self.kind == "lines" else "")
        text = re.sub(r"--([a-z][a-z-]+)", lambda flag: f'"{flag[1].replace("-", " ").capitalize()}"', text)
        return " ".join(filter(None, (text, self._range)))

    @property
    def _range(self) -> str:
        bounds = {type(bound): bound for bound in self.info.metadata if isinstance(bound, (Ge, Gt, Le))}
        least, above, most = (getattr(bounds.get(kind), kind.__name__.lower(), None) for kind in (Ge, Gt, Le))
        if most is not None and float(str(most)) < _EXACT:
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
        return "number" if kind in (int, float) and not self.written and not self._beyond_browsers else "text"

    @property
    def written(self) -> bool:
        """Whether a text is written that the option reads by itself, such as 64x48."""
        return self.option.read is not None and self.option.flag not in ("", None)

    @property
    def _beyond_browsers(self) -> bool:
        return any(
            isinstance(bound, Le) and int(str(bound.le)) > _EXACT for bound in self.info.metadata if self.type is int
        )


def fields_of(systems: Iterable[System]) -> list[Field]:
    """What a form for the models of these systems offers, what is basic first.

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
    return sorted(found.values(), key=lambda field: not field.option.basic)
