"""The fields of a request: what OpenAI has, and the options of the systems, taken from their classes."""

from __future__ import annotations

import functools
import json
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import zoo
from ..errors import InputError
from ..pipelines.flags import Fields, read_size
from ..pipelines.options import VideoOptions, flag_of, option_of
from ..systems import SYSTEMS
from ..wording import listed, nearest
from .errors import ApiError, unusable

FILE = {
    "description": "A file: its id, a data URL, or an object with one of them. Other URLs are not fetched.",
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"file_id": {"type": "string"}}, "required": ["file_id"]},
        {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"]},
    ],
}
OPENAI = {
    "model": {"type": "string", "description": "A name that /v1/models lists."},
    "seconds": {"anyOf": [{"type": "string"}, {"type": "number"}], "description": "How long the video is."},
    "size": {"type": "string", "description": "WIDTHxHEIGHT in pixels."},
    "input_reference": {**FILE, "description": f"A picture or a clip to begin from. {FILE['description']}"},
}
"""Fields that OpenAI's clients send beside the prompt, whatever the model."""


@dataclass(frozen=True)
class Taken:
    """A file that came with a request. kind: as `media.headers.Header` has it."""

    path: str
    kind: str


Take = Callable[[Any, str], Taken]
"""Finds the file that a value stands for, in the field of a name. Raises ApiError."""


class Form(list[Any]):
    """What a form has under one name: texts, and paths of files."""


def offered(kind: type[VideoOptions]) -> dict[str, Any]:
    """The fields of an options class that a request from outside may have."""
    fields = {}
    for name, info in kind.model_fields.items():
        option = option_of(info)
        # What is not stored is about a run of the command. Weights are named, never sent.
        if option is not None and not info.exclude and (not option.weights or _origin(info) is dict):
            fields[name] = info
    return fields


def schemas(kind: type[VideoOptions]) -> dict[str, dict[str, Any]]:
    """JSON schema of every field that is offered, with what it means."""
    properties = kind.model_json_schema()["properties"]
    return {name: _schema(info, dict(properties[name])) for name, info in offered(kind).items()}


def _schema(info: Any, schema: dict[str, Any]) -> dict[str, Any]:
    option = option_of(info)
    assert option is not None
    schema.pop("title", None)
    if not schema.get("description"):
        schema.pop("description", None)
    if option.file and not option.weights:
        about = {"description": f"{option.help} {FILE['description']}"}
        inside = {"dict": {"type": "object", "additionalProperties": FILE}, "tuple": {"type": "array", "items": FILE}}
        origin = _origin(info)
        return {**inside.get(getattr(origin, "__name__", ""), FILE), **about, "default": schema.get("default")}
    return schema


def request_schema(extra: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Schema of a request for a video by any system: `extra` fields, then all that there are."""
    properties: dict[str, Any] = dict(extra)
    owners: dict[str, list[str]] = {}
    for system in SYSTEMS.values():
        for name, schema in schemas(system.options_class).items():
            properties.setdefault(name, schema)
            owners.setdefault(name, []).append(system.title)
    for name, having in owners.items():
        if len(having) < len(SYSTEMS):
            about = f"{properties[name].get('description', '')} Only {listed(having)}.".strip()
            properties[name] = {**properties[name], "description": about}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


@functools.cache
def defaults(model: str) -> Any:
    """The sampling settings of a model: fps, num_frames, height, width. Raises InputError, CheckpointError."""
    from ..pipelines.devices import be_quiet

    be_quiet()  # before the systems' modules are imported: with them come libraries that warn
    return zoo.pipeline_class(model).sampling_of(zoo.settings(model) or None)


def read(kind: type[VideoOptions], model: str, given: Mapping[str, Any], take: Take) -> VideoOptions:
    """The request for a video.

    Args:
        given: field -> value, as `bodies.read_body` gives them.
    Raises: ApiError, InputError.
    """
    values = dict(_values(kind, model, given, take))
    values |= _length(kind, model, values)
    return named(kind, kind, model=model, **values)


def changes(kind: type[VideoOptions], model: str, given: Mapping[str, Any], take: Take) -> dict[str, Any]:
    """Fields that are to be other than in an earlier request; arguments and errors are those of `read`."""
    values = dict(_values(kind, model, given, take))
    return values | _length(kind, model, values)


def named(kind: type[VideoOptions], call: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    """Calls a function; an InputError speaks of fields, not of the flags of the command line."""
    try:
        return call(*arguments, **values)
    except InputError as error:
        if type(error) is not InputError:
            raise
        raise _in_fields(kind, str(error)) from error


def _in_fields(kind: type[VideoOptions], message: str) -> ApiError:
    flags = {flag_of(name, info): name for name, info in kind.model_fields.items()}
    found = [flags[flag] for flag in re.findall(r"--[\w-]+", message) if flag in flags]
    text = re.sub(r"--[\w-]+", lambda flag: flags.get(flag[0], flag[0]), message)
    first = re.match(r"(\w+) (?:is|are) ", text)
    param = found[0] if found else first[1] if first and first[1] in kind.model_fields else None
    return ApiError(400, text, "invalid_value", param)


def _values(kind: type[VideoOptions], model: str, given: Mapping[str, Any], take: Take) -> Iterator[tuple[str, Any]]:
    fields, seen = offered(kind), dict[str, str]()
    # The names of diffusers' arguments are known from other servers.
    others = {option_of(info).argument: name for name, info in fields.items() if option_of(info).argument}  # type: ignore[union-attr]
    for written, value in given.items():
        if written in OPENAI or written == "image_reference":
            pairs = _openai(written, value, take)
        else:
            name = written if written in fields else others.get(written, written)
            if name not in fields:
                raise _unknown(written, fields)
            pairs = {} if value is None else _option(name, fields[name], value, take)
            if option_of(fields[name]).weights:  # type: ignore[union-attr]
                _only_own(name, model, pairs.get(name))
        for name, read_value in pairs.items():
            if name in seen:
                raise unusable(f"{written} and {seen[name]} say the same; leave one out.", written)
            seen[name] = written
            yield name, read_value


def _unknown(name: str, fields: Mapping[str, Any]) -> ApiError:
    owners = [system.title for system in SYSTEMS.values() if name in offered(system.options_class)]
    if owners:
        return ApiError(
            400,
            f"the model has no {name}: that is for {listed(owners)} models; leave it out.",
            "unknown_parameter",
            name,
        )
    shown = name if len(name) <= 60 else f"{name[:57]}..."
    return ApiError(400, f"{shown} is unknown{nearest(shown, [*OPENAI, *fields])}", "unknown_parameter", shown)


def _openai(name: str, value: Any, take: Take) -> dict[str, Any]:
    value = only(value, name)
    if name == "model" or value is None:
        return {}
    if name == "size":
        try:
            return dict(read_size(_text(value, name)))
        except InputError as error:
            raise ApiError(400, str(error), "invalid_value", name) from error
    if name == "seconds":
        return {"seconds": read_seconds(value)}
    taken = take(value, name)
    return {"image" if taken.kind == "picture" else "video": taken.path}


def read_seconds(value: Any) -> float:
    """A length in seconds. Raises ApiError."""
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise unusable("seconds must be a number above 0, such as 4.", "seconds")
    return seconds


def _length(kind: type[VideoOptions], model: str, values: dict[str, Any]) -> dict[str, Any]:
    """Frames and their rate in place of seconds."""
    if "seconds" not in values:
        return {}
    seconds = values.pop("seconds")
    if values.get("frames") is not None:
        raise unusable("seconds and frames both say how long the video is; leave one out.", "seconds")
    try:
        fps = float(values.get("fps") or defaults(model).fps)
    except (TypeError, ValueError):
        return {"frames": 1}  # the class refuses the rate
    return {"frames": max(1, round(seconds * fps)), "fps": values.get("fps") or fps}


def _option(name: str, info: Any, value: Any, take: Take) -> dict[str, Any]:
    option, origin = option_of(info), _origin(info)
    assert option is not None
    if origin not in (dict, tuple):
        value = only(value, name)
        return {name: take(value, name).path if option.file else value}
    if (
        isinstance(value, list)
        and len(value) == 1
        and isinstance(value[0], str)
        and value[0].lstrip()[:1] in ("{", "[")
    ):
        value = parse_json(value[0], name)
    if option.file and not option.weights:
        if isinstance(value, Mapping):
            return {name: {key: take(one, name).path for key, one in value.items()}}
        values = value if isinstance(value, (list, tuple)) else [value]
        if origin is tuple:
            return {name: [one if one in option.words else take(one, name).path for one in values]}
        raise unusable(f"{name} needs numbers and files: send it as {name}[0]=...", name)
    if option.read is not None and isinstance(value, list) and all(isinstance(one, str) for one in value):
        try:  # as they are written on the command line
            value = option.read(value)
        except InputError as error:
            raise ApiError(400, str(error), "invalid_value", name) from error
        return dict(value) if isinstance(value, Fields) else {name: value}
    if origin is tuple and isinstance(value, str):
        value = [value]
    return {name: value}


def _only_own(name: str, model: str, value: Any) -> None:
    """Raises ApiError for weights that did not come with the model."""
    own = zoo.loras(model, name)
    for one in value if isinstance(value, Mapping) else ():
        if one not in own:
            has = f"it has {listed(own)}" if own else "it has none"
            raise unusable(f"{name} can only be those that came with the model {model}: {has}.", name)


def only(value: Any, name: str) -> Any:
    """The one value that a form gives for a name; a value of JSON as it is. Raises ApiError."""
    if isinstance(value, Form):
        if len(value) != 1:
            raise unusable(f"{name} is given {len(value)} times; give it once.", name)
        return value[0]
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise unusable(f"{name} must be a text.", name)
    return value


def parse_json(text: str | bytes, name: str = "the body") -> Any:
    """A value of JSON whose texts every database can keep. Raises ApiError."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number")

    try:
        value = json.loads(text, parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError
        raise ApiError(400, f"{name} is not valid JSON: {_why(error)}.", "invalid_json", None) from error
    _check_texts(value)
    return value


def _check_texts(value: Any) -> None:
    """Raises ApiError for the one character that PostgreSQL does not keep."""
    if isinstance(value, str) and "\0" in value:
        raise unusable("a text holds the character U+0000; leave it out.")
    for one in (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_texts(one)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it holds characters that are none"
    return str(error).splitlines()[0].rstrip(".")


def _origin(info: Any) -> Any:
    """dict or tuple where a field holds many values; else None or whatever its type is made with."""
    annotation = info.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    return typing.get_origin(annotation)
