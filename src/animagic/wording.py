"""The wording of errors, one sentence each: values as they were given, names that were meant, what pydantic refuses."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

_KINDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    dict: ("a section with fields", "sections with fields"),
}
# pydantic's kinds of errors, but for values of another type.
_REFUSALS = {
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "{ge} is the least that it can be",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "{le} is the most that it can be",
    "multiple_of": "it must be a multiple of {multiple_of}",
    "literal_error": "it can be {expected}",
    "enum": "it can be {expected}",
    "value_error": "{error}",
}


_OF_TYPES = dict.fromkeys(("finite_number", "float_type", "float_parsing", "int_type", "int_parsing"), "a number")
_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the one that was meant, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}."


def spell(value: Any) -> str:
    """A value as it stands in a JSON file, shortened; texts without quotes."""
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def needs(annotation: Any, many: bool = False) -> str:
    """A type in words: "a whole number or a list of texts". many: of several values."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return needs(inside[0], many)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(needs(one, many) for one in inside if one is not type(None))
    if origin is typing.Literal:
        return " or ".join(map(spell, inside))
    if origin in (list, tuple):
        return f"{'lists' if many else 'a list'} of {needs(inside[0], True)}"
    return _KINDS.get(annotation, _KINDS[dict])[many]


def _plain(value: Any) -> Any:
    """240.0 as 240."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _bounds(annotation: Any) -> list[float]:
    """The least and the most of a type, as far as it has them."""
    extras = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()
    about = [one for extra in extras for one in (extra, *getattr(extra, "metadata", ()))]  # also inside pydantic.Field
    found = {name: getattr(one, name) for one in about for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    return [found[name] for name in ("ge", "gt", "le", "lt") if name in found]


def in_one_sentence(
    error: ValidationError, annotations: Mapping[str, Any], given: Mapping[str, Any], name: Callable[[str], str] = str
) -> InputError:
    """The first field that pydantic refuses, in our words: "--window is 0; 1 is the least that it can be."

    Args:
        annotations: the type of every field, from `typing.get_type_hints(CLASS, include_extras=True)`.
        given: the values that were to be checked.
        name: how a field is called in the sentence.
    What a validator raises as InputError is passed on as it is; the text of another ValueError ends the sentence.
    """
    found = error.errors(include_url=False)
    of_field = [one for one in found if one["loc"][:1] == found[0]["loc"][:1]]
    # Of a union, the member that has the right type says more than the others.
    first = next((one for one in of_field if one["type"] in _REFUSALS), of_field[0])
    context = first.get("ctx", {})
    if isinstance(context.get("error"), InputError):
        return context["error"]
    field = str(first["loc"][0])
    if field not in annotations:
        return InputError(f"{name(field)} is unknown{nearest(field, annotations)}")
    if first["type"] == "missing":
        return InputError(f"{name(field)} is missing; {needs(annotations[field])} is needed.")
    bounds = _bounds(annotations[field])
    if len(bounds) == 2 and first["type"] in (*_OF_BOUNDS, "finite_number"):
        reason = "it must lie between {} and {}".format(*map(_plain, bounds))
    elif (refusal := _REFUSALS.get(first["type"])) is not None:
        reason = refusal.format_map({name: _plain(value) for name, value in context.items()})
    elif len(first["loc"]) > 1:  # one of several values
        reason = f"{_OF_TYPES.get(first['type'], needs(annotations[field]))} is needed"
    else:
        reason = f"{needs(annotations[field])} is needed"
    return InputError(f"{name(field)} is {spell(given[field])}; {reason}.")
