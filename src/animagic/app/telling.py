"""What is refused, told on the page in the one sentence that it is everywhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ..errors import AnimagicError
from .fields import without_flags

Function = TypeVar("Function", bound=Callable[..., Any])
STATIC = Path(__file__).parent / "static"


def told(function: Function) -> Function:
    """A handler whose refusals are shown until they are closed."""

    @functools.wraps(function)  # Gradio also looks for an argument that is the request
    def handler(*values: Any) -> Any:
        try:
            return function(*values)
        except AnimagicError as error:
            raise gr.Error(_sentence(error), duration=None, title="", print_exception=False) from error

    return handler  # type: ignore[return-value]


def answered(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A function (owner or None, ...) that the page's own scripts call with a list of arguments; a refusal is the field
    `error` of what they get."""

    def answer(given: list[Any], request: gr.Request) -> dict[str, Any]:
        try:
            return function(caller_of(request)[1], *given)
        except AnimagicError as error:
            return {"error": _sentence(error)}

    answer.__name__ = function.__name__  # the scripts call it so
    return answer


def caller_of(request: Any) -> tuple[str, str | None]:
    """Whose a new job is, and whose jobs a page sees (None: everybody's): those of the key with which its browser
    signed in, where the server needs keys."""
    scope = getattr(request, "request", request).scope
    caller = scope.get("state", {}).get("caller")
    return ("", None) if caller is None else (caller.owner, caller.sees)


def _sentence(error: AnimagicError) -> str:
    text = without_flags(str(error))
    return text[:1].upper() + text[1:]


def static(name: str) -> str:
    """A file of the page."""
    return (STATIC / name).read_text("utf-8")
