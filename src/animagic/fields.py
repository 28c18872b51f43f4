"""Fields of configuration files that others wrote: what each may hold, and what is said of one that is wrong."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import InputError

_NEEDED = object()
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    list[str]: "a list of texts",
    dict: "a section with fields",
    list[dict]: "a list of sections with fields",
}


@dataclass(frozen=True)
class Field:
    """A field of an original configuration file.

    kind: int, float, bool, str, dict, a list of one of them, or a tuple of kinds.
    does: what is done with it, for the documentation.
    default: what holds where a file leaves it out; without one, the file must have it.
    only: the values that are honoured. instead: why others are not.
    least: the smallest value.
    """

    kind: Any
    does: str
    default: Any = field(default=_NEEDED, kw_only=True)
    only: tuple = field(default=(), kw_only=True)
    instead: str = field(default="", kw_only=True)
    least: float = field(default=-math.inf, kw_only=True)

    @property
    def needed(self) -> bool:
        return self.default is _NEEDED

    @property
    def needs(self) -> str:
        """What it takes, in words."""
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        return " or ".join(_KINDS[kind] for kind in kinds)

    def check(self, value: Any, name: str, settable: bool = True) -> None:
        """Raises InputError if it cannot have this value. settable: whether `--set name=VALUE` helps."""
        if not _is(value, self.kind):
            raise InputError(f"{name} is {_spell(value)}; {self.needs} is needed.")
        if self.only and value not in self.only:
            allowed = " or ".join(_spell(one) for one in self.only)
            remedy = f" (--set {name}={_spell(self.only[0])})" if settable else ""
            raise InputError(f"{name} is {_spell(value)}, but {self.instead}; it can be {allowed}{remedy}.")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, (int, float)) and not one >= self.least:
                raise InputError(f"{name} is {_spell(value)}; {_spell(self.least)} is the least that it can be.")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the one that was meant, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}."


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, tuple):
        return any(_is(value, one) for one in kind)
    if hasattr(kind, "__args__"):  # list[...]
        return isinstance(value, list) and all(_is(one, kind.__args__[0]) for one in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is kind  # a bool is no int


def _spell(value: Any) -> str:
    """As it stands in a JSON file, shortened."""
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
