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
    """A function (owner, ...) that the page's own scripts call with a list of arguments; a refusal is their field
    `error`."""

    def answer(given: list[Any], request: gr.Request) -> dict[str, Any]:
        try:
            return function(owner_of(request), *given)
        except AnimagicError as error:
            return {"error": _sentence(error)}

    answer.__name__ = function.__name__  # the scripts call it so
    return answer


def owner_of(request: Any) -> str:
    """Whose jobs a page sees: those of the key with which its browser signed in; "" where no key is needed."""
    scope = getattr(request, "request", request).scope
    return getattr(scope.get("state", {}).get("caller"), "owner", "")


def _sentence(error: AnimagicError) -> str:
    text = without_flags(str(error))
    return text[:1].upper() + text[1:]


def static(name: str) -> str:
    """A file of the page."""
    return (STATIC / name).read_text("utf-8")
