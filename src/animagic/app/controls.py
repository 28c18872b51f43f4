"""Fields of a form as Gradio's components, and their values as options."""

from __future__ import annotations

import shutil
import tempfile
import typing
from abc import ABCMeta
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from .. import zoo
from ..errors import InputError
from ..pipelines.flags import ENDLESS, Fields, read_weights
from ..wording import listed
from .fields import Field

OWN = ""
"""The choice that leaves it to the model."""
_YES = {True: "yes", False: "no"}


class Control:
    """A field on the page.

    Args:
        field: the option.
    Attributes:
        components: Gradio's, in the order in which `read` takes their values. Those that few need are not rendered
            yet; `fold` does it.
    """

    def __init__(self, field: Field):
        self.field = field
        about = {"label": field.label, "elem_classes": [f"am-{field.name}"]}
        self.components: list[Any] = _COMPONENTS[field.kind](field, about)

    def fold(self) -> None:
        """Put here what is not on the page yet."""
        for component in self.components:
            if not component.is_rendered:
                component.render()

    def read(self, model: str, *values: Any) -> dict[str, Any]:
        """The options that these values stand for; those that were left alone are left out. Raises InputError."""
        field, (value, *more) = self.field, values
        given: Any
        match field.kind:
            case "lines":
                lines = [line.strip() for line in (value or "").splitlines() if line.strip()]
                given = field.option.read(lines) if field.option.read and lines else tuple(lines)
            case "weights":
                given = {**self._own(model, value or []), **dict.fromkeys(more[0] or [], 1.0)}
            case "sounds":
                given = (*([value] if value else []), *(more[0] or []))
            case "files":
                given = tuple(value or ())
            case "placed files":
                given = _placed(field, value or [], more[0] or "")
            case "choice" if field.type is bool:
                given = {"yes": True, "no": False}.get(value)
            case "number" | "text":
                given = self._written(str(value).strip()) if value not in (None, "") else None
            case _:
                given = value
        if given in (None, "", (), {}) or given == field.default:
            return {}
        return dict(given) if isinstance(given, Fields) else {field.name: given}

    def _own(self, model: str, written: Sequence[str]) -> dict[str, float]:
        weights, own = read_weights(list(written)), zoo.loras(model, self.field.name)
        for name in weights:
            if name not in own:
                has = f"it has {listed(own)}" if own else "it has none of its own"
                raise InputError(f"the model {model} has no LoRA {name}: {has}; upload the file of another.")
        return weights

    def _written(self, text: str) -> Any:
        field = self.field
        if field.option.read:
            return field.option.read(text)
        if field.type not in (int, float) or not text:
            return text
        try:
            return field.type(text)
        except ValueError:
            kind = "a whole number" if field.type is int else "a number"
            raise InputError(f"{field.label.lower()} takes {kind}, not {text!r}.") from None

    def shown(self, request: Any, with_files: bool) -> list[Any]:
        """The values of its components for a request. with_files: those of input files, too."""
        field = self.field
        value = getattr(request, field.name, field.default)
        match field.kind:
            case "lines":
                pairs = value.items() if isinstance(value, dict) else ()
                return ["\n".join([f"{key}: {text}" for key, text in pairs] or list(value or ()))]
            case "weights":
                own = zoo.loras(request.model, field.name)
                named = {name: weight for name, weight in (value or {}).items() if name in own}
                files = [name for name in (value or {}) if name not in own]
                return [[name if w == 1 else f"{name}:{w:g}" for name, w in named.items()], _copies(files, with_files)]
            case "sounds":
                first, *others = [*_copies(value, with_files), None]
                return [first, list(filter(None, others)) or None]
            case "files":
                return [_copies(value, with_files) or None]
            case "placed files":
                files = _copies(list((value or {}).values()), with_files)
                return [files or None, ", ".join(map(str, value or {})) if files else ""]
            case "image" | "video" | "file":
                return [next(iter(_copies([value] if value else [], with_files)), None)]
            case "choice":
                return [_YES.get(value, OWN) if field.type is bool else value or OWN]
            case "text" if field.several:
                return [f"{request.width}x{request.height}" if request.width and request.height else ""]
            case "text" if request.endless and field.name == "frames":
                return [ENDLESS]
            case "text" | "number" if field.optional:
                return ["" if value is None else f"{value:g}" if isinstance(value, float) else str(value)]
            case _:
                return [value]

    def about(self, model: str, system: str, own: Any) -> list[dict[str, Any]]:
        """What changes of its components with the model. own: the model's sampling settings."""
        updates: list[dict[str, Any]] = [{"visible": system in self.field.owners} for _ in self.components]
        default = (
            None
            if self.field.info.default_factory
            else getattr(own, self.field.option.argument or self.field.name, None)
        )
        if self.field.several:
            updates[0]["placeholder"] = f"{getattr(own, 'width', '?')}x{getattr(own, 'height', '?')}"
        elif self.field.kind in ("number", "text") and isinstance(default, (int, float)):
            updates[0]["placeholder"] = f"{default:g}"
        if self.field.kind == "weights":
            choices = list(zoo.loras(model, self.field.name))
            updates[0] |= {"choices": choices, "visible": updates[0]["visible"] and bool(choices)}
        return updates


def _placed(field: Field, files: Sequence[str], places: str) -> dict[int, str]:
    numbers = [part.strip() for part in places.replace(";", ",").split(",") if part.strip()]
    if len(numbers) != len(files) or not all(number.isdecimal() for number in numbers):
        raise InputError(
            f"{field.label.lower()}: there are {len(files)} files and the frames {places!r}; "
            "write the number of a frame for each file, such as 0, 8."
        )
    return {int(number): file for number, file in zip(numbers, files, strict=True)}


def copied(path: str | Path) -> str:
    """A copy of a file that the page may show, under its name."""
    target = Path(tempfile.mkdtemp(prefix="animagic-")) / Path(path).name
    shutil.copyfile(path, target)
    return str(target)


def _copies(paths: Sequence[str], wanted: bool) -> list[str]:
    return [copied(path) for path in paths or () if wanted and Path(path).is_file()]


def _text(field: Field, about: dict[str, Any]) -> list[Any]:
    lines = 3 if field.kind == "lines" else 2 if field.name == "prompt" else 1
    placeholder = (field.option.metavar or "") if field.kind == "lines" else ""
    if field.optional and field.kind != "lines":
        placeholder = "a new one" if field.info.default_factory else "as the model"
    return [
        gr.Textbox(
            field.default if isinstance(field.default, str) else "",
            lines=lines,
            placeholder=placeholder,
            info=field.help,
            **about,
        )
    ]


def _number(field: Field, about: dict[str, Any]) -> list[Any]:
    about["elem_classes"].append("am-number")
    if field.optional:  # Gradio's own field for numbers cannot be empty
        return _text(field, about)
    whole = {"precision": 0} if field.type is int else {"step": 0.1}
    return [gr.Number(field.default, info=field.help, **whole, **about)]


def _choice(field: Field, about: dict[str, Any]) -> list[Any]:
    values = list(_YES.values()) if field.type is bool else list(typing.get_args(field.type))
    choices = [*([("the model decides", OWN)] if field.optional else []), *((value, value) for value in values)]
    return [gr.Dropdown(choices, value=OWN if field.optional else field.default, info=field.help, **about)]


def _weights(field: Field, about: dict[str, Any]) -> list[Any]:
    info = f"{field.help} A weight after a colon: NAME:0.6."
    chosen = gr.Dropdown([], value=[], multiselect=True, allow_custom_value=True, info=info, **about)
    return [chosen, _file(about | {"label": f"{field.label} from a file"}, many=True, render=False)]


def _sounds(field: Field, about: dict[str, Any]) -> list[Any]:
    first = Recording(sources=["upload", "microphone"], type="filepath", **_helped(field, about))
    return [first, _file(about | {"label": f"{field.label} of further speakers"}, many=True, render=False)]


def _placed_files(field: Field, about: dict[str, Any]) -> list[Any]:
    places = gr.Textbox("", label=f"Frames of these files ({field.label.lower()})", placeholder="0, 8")
    return [_file(_helped(field, about), many=True), places]


def _file(about: dict[str, Any], many: bool = False, render: bool = True) -> gr.File:
    return gr.File(file_count="multiple" if many else "single", height=112, render=render, **about)


def _helped(field: Field, about: dict[str, Any]) -> dict[str, Any]:
    """The label with the help in it, for components that have no place for it."""
    return about | {"label": f"{about['label']}: {field.help[0].lower()}{field.help[1:].rstrip('.')}"}


def _as_it_is(component: type) -> Any:
    """A component of Gradio's, but that it hands on the file that was uploaded: what is wrong with it is said by who
    reads it."""
    own = {"preprocess": lambda self, payload: payload.path if payload is not None else None}
    # Under its own name, as that is what the page loads; past its metaclass, which would write a file beside this one.
    return ABCMeta.__new__(
        type(component), component.__name__, (component,), own | {"__module__": component.__module__}
    )


Image, Film, Recording = _as_it_is(gr.Image), _as_it_is(gr.Video), _as_it_is(gr.Audio)

_COMPONENTS: dict[str, Callable[[Field, dict[str, Any]], list[Any]]] = {
    "text": _text,
    "lines": _text,
    "number": _number,
    "choice": _choice,
    "yes": lambda field, about: [gr.Checkbox(field.default, info=field.help, **about)],
    "image": lambda field, about: [Image(type="filepath", height=250, **_helped(field, about))],
    "video": lambda field, about: [Film(height=250, **_helped(field, about))],
    "sounds": _sounds,
    "file": lambda field, about: [_file(_helped(field, about))],
    "files": lambda field, about: [_file(_helped(field, about), many=True)],
    "placed files": _placed_files,
    "weights": _weights,
}
