"""The inputs of the nodes, taken from the options classes of the systems, and the way back: from what a node is given
to a request's options."""

from __future__ import annotations

import types
import typing
import wave
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from animagic.errors import InputError
from animagic.media import write_image
from animagic.pipelines.options import MAX_SEED, Option, default_of, option_of
from animagic.systems import System

MEDIA = {"image": "IMAGE", "video": "VIDEO", "voice": "AUDIO", "mask": "MASK"}
"""What ComfyUI passes for the files of an option, by the first word of their name; other files are paths."""
MANY = 2
"""Inputs of an option that takes several pictures or sounds."""
OPEN = "default"
"""The choice that says nothing."""
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Widget:
    """An input of a node.

    Args:
        name: in the workflow. field: of the options class.
        kind: of ComfyUI: "STRING", "INT", "FLOAT", "BOOLEAN", "COMBO", "IMAGE", "VIDEO", "AUDIO" or "MASK".
        default: None for kinds without a widget. least, most: of a number.
        open: the value that stands for None; None: there is no such value.
        seed: whether ComfyUI may change it from run to run.
    """

    name: str
    field: str
    kind: str
    help: str
    default: Any = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    open: Any = None
    multiline: bool = False
    advanced: bool = True
    seed: bool = False


def inputs_of(systems: Iterable[System], *, plan: bool = False) -> list[Widget]:
    """The inputs for the options of systems, each once; those in front that a node cannot do without.

    Args:
        plan: only those that shape the plan.
    """
    found: dict[str, Widget] = {}
    for system in systems:
        for field, info in system.options_class.model_fields.items():
            option = option_of(info)
            if option is not None and not info.exclude and (option.plan or not plan):
                for widget in _widgets(field, info, option):
                    found.setdefault(widget.name, widget)
    return sorted(found.values(), key=lambda widget: widget.advanced)


def _widgets(field: str, info: Any, option: Option) -> Iterator[Widget]:
    kind, may_be_open = _kind(info.annotation)
    default, help = default_of(info), option.help or f"The {field}."
    origin = typing.get_origin(kind)
    media = MEDIA.get((option.file or "").split(" ")[0])
    front = {"advanced": not (option.basic or option.positional)}
    if media is not None and origin is not dict:
        names = [field] if origin is not tuple else [field, *(f"{field}_{n}" for n in range(2, MANY + 1))]
        yield from (Widget(name, field, media, help, **front) for name in names)
    elif origin in (dict, tuple):
        yield Widget(field, field, "STRING", f"{help} A line each, {option.metavar or 'as it is'}.", "", multiline=True)
    elif origin is typing.Literal:
        choices = typing.get_args(kind)
        if may_be_open:
            yield Widget(field, field, "COMBO", help, OPEN, choices=(OPEN, *choices), open=OPEN, **front)
        else:
            yield Widget(field, field, "COMBO", help, default, choices=choices, **front)
    elif kind is bool:
        if may_be_open:
            yield Widget(field, field, "COMBO", help, OPEN, choices=(OPEN, "yes", "no"), open=OPEN, **front)
        else:
            yield Widget(field, field, "BOOLEAN", help, default, **front)
    elif kind in (int, float):
        yield _number(field, info, kind, help, front)
    else:
        text = default if isinstance(default, str) else ""
        open = "" if may_be_open else None
        yield Widget(field, field, "STRING", help, text, open=open, multiline=field.endswith("prompt"), **front)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type of a field without None, and whether None is allowed."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    inside = [part for part in typing.get_args(annotation) if part is not types.NoneType]
    kind = inside[0]
    return (typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind), True


def _number(field: str, info: Any, kind: type, help: str, front: Mapping[str, bool]) -> Widget:
    bounds = {type(one).__name__.lower(): one for one in info.metadata}
    if info.default_factory is not None:  # a seed: ComfyUI chooses it
        return Widget(field, field, "INT", help, 0, 0, MAX_SEED, seed=True, advanced=False)
    most = bounds["le"].le if "le" in bounds else _MOST
    if default_of(info) is not None:
        return Widget(field, field, kind.__name__.upper(), help, default_of(info), bounds["ge"].ge, most, **front)
    if "gt" in bounds:
        open = bounds["gt"].gt
    elif "ge" in bounds:
        open = bounds["ge"].ge - 1
    else:  # any number says something
        return Widget(field, field, "STRING", help, "", open="", **front)
    return Widget(
        field, field, kind.__name__.upper(), f"{help} {open}: not given.", open, open, most, open=open, **front
    )


def options_from(widgets: Iterable[Widget], values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The options of a request that a node was given; pictures, videos and sounds are written into `folder`.

    Raises: InputError.
    """
    options: dict[str, Any] = {}
    media: dict[str, list[str]] = {}
    infos = _infos()
    for widget in widgets:
        value = values.get(widget.name)
        if value is None or (widget.open is not None and value == widget.open):
            continue
        info = infos[widget.field]
        if widget.kind in MEDIA.values():
            given = media.setdefault(widget.field, [])
            if widget.name not in (widget.field, f"{widget.field}_{len(given) + 1}"):
                raise InputError(
                    f"{widget.name} is connected, but not {widget.field} before it; connect them in order."
                )
            given.append(str(_save(widget, value, folder)))
            options[widget.field] = tuple(given) if typing.get_origin(info.annotation) is tuple else given[0]
        elif widget.kind == "STRING":
            if (read := _text(info, value)) is not None:
                options[widget.field] = read
        elif widget.kind == "COMBO" and _kind(info.annotation)[0] is bool:
            options[widget.field] = value == "yes"
        else:
            options[widget.field] = value
    return options


def _infos() -> dict[str, Any]:
    from animagic.systems import SYSTEMS

    return {name: info for system in SYSTEMS.values() for name, info in system.options_class.model_fields.items()}


def _text(info: Any, text: str) -> Any:
    """What was written, as the command line reads it; None: nothing."""
    if typing.get_origin(_kind(info.annotation)[0]) not in (dict, tuple):
        return text or None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    read = option_of(info).read  # type: ignore[union-attr]
    return (tuple(lines) if read is None else read(lines)) or None


def _save(widget: Widget, value: Any, folder: Path) -> Path:
    """A file of what ComfyUI passes."""
    if widget.kind == "VIDEO":
        path = folder / f"{widget.name}.mp4"
        value.save_to(str(path))
    elif widget.kind == "AUDIO":
        path = folder / f"{widget.name}.wav"
        _save_sound(path, value["waveform"][0].float().cpu().numpy(), int(value["sample_rate"]))
    else:
        if len(value) != 1:
            raise InputError(f"{widget.name} holds {len(value)} pictures; choose one of them (Image From Batch).")
        path = folder / f"{widget.name}.png"
        picture = value[0] if widget.kind == "IMAGE" else value[0][..., None].expand(-1, -1, 3)
        write_image(path, (picture[..., :3].float().clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8))
    return path


def _save_sound(path: Path, samples: np.ndarray, rate: int) -> None:
    """samples: float (channels, n)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(min(len(samples), 2))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples[:2].T.clip(-1, 1) * 32767).astype("<i2").tobytes())
