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
    from pydantic import BaseModel, ValidationError

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
    "value_error": "{error}",
}
_BOUNDS = ("ge", "gt", "le", "lt")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the one that was meant, or all that there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}."


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: "A", "A and B", "A, B and C"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def spell(value: Any) -> str:
    """A value as it stands in a JSON file, shortened; texts without quotes."""
    try:
        text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    except (RecursionError, TypeError, ValueError):  # a number of thousands of digits, a value that holds itself
        return f"a {type(value).__name__} that is too long to be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def needs(annotation: Any, many: bool = False) -> str:
    """A type in words: "a whole number or a list of texts". many: of several values."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return needs(inside[0], many)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(needs(one, many) for one in inside if one is not type(None))
    if origin is typing.Literal:
        *others, last = (repr(value) if isinstance(value, str) else spell(value) for value in inside)
        return f"{', '.join(others)} or {last}" if others else last
    if origin in (list, tuple):
        return f"{'lists' if many else 'a list'} of {needs(inside[0], True)}"
    return _KINDS.get(annotation, _KINDS[dict])[many]


def _plain(value: Any) -> Any:
    """240.0 as 240."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def annotations_of(model: type[BaseModel]) -> dict[str, Any]:
    """The type of every field, with what is known of it, by its name in files."""
    return {about.alias or name: about.rebuild_annotation() for name, about in model.model_fields.items()}


def in_one_sentence(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], name: Callable[[str], str] = str
) -> InputError:
    """The first field that pydantic refuses, in our words: "--window is 0; 1 is the least that it can be."

    Args:
        model: what refuses the values `given`.
        name: how a field is called in the sentence.
    An InputError of a validator is passed on as it is; the text of another ValueError ends the sentence.
    """
    # A name that is misspelled may be missing as well.
    unknown = ("extra_forbidden", "invalid_key")
    found = sorted(error.errors(include_url=False), key=lambda one: one["type"] not in unknown)
    of_field = [one for one in found if one["loc"][:1] == found[0]["loc"][:1]]
    # Of a union, the member that has the right type says more than the others.
    first = next((one for one in of_field if one["type"] in _REFUSALS), of_field[0])
    context = first.get("ctx", {})
    if isinstance(context.get("error"), InputError):
        return context["error"]
    if not first["loc"]:
        return InputError(f"{name('')}{context['error']}")
    field, annotations = str(first["loc"][0]), annotations_of(model)
    if field not in annotations:
        return InputError(f"{name(field)} is unknown{nearest(field, annotations)}")
    needed = needs(annotations[field])
    if first["type"] == "missing":
        return InputError(f"{name(field)} is missing; {needed} is needed.")
    is_annotated = typing.get_origin(annotations[field]) is typing.Annotated
    about = typing.get_args(annotations[field])[1:] if is_annotated else ()
    bounds = [getattr(one, bound) for bound in _BOUNDS for one in about if hasattr(one, bound)]
    if len(bounds) == 2 and first["type"] in (*_REFUSALS, "finite_number"):
        reason = "it must lie between {} and {}".format(*map(_plain, bounds))
    elif first["type"] in _REFUSALS:
        reason = _REFUSALS[first["type"]].format_map({name: _plain(value) for name, value in context.items()})
    elif first["type"] == "literal_error":
        reason = ": ".join([f"it can be {needed}", *(why for why in about if isinstance(why, str))])
    elif len(first["loc"]) > 1 and first["type"] in ("finite_number", "float_type", "float_parsing", "int_parsing"):
        reason = "a number is needed"  # in one of several values
    else:
        reason = f"{needed} is needed"
    return InputError(f"{name(field)} is {spell(given[field])}; {reason}.")
