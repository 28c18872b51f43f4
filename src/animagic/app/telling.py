"""What is refused, told on the page in the one sentence that it is everywhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ..errors import AnimagicError

Function = TypeVar("Function", bound=Callable[..., Any])
STATIC = Path(__file__).parent / "static"


def told(function: Function) -> Function:
    """A handler whose refusals are shown until they are closed."""

    @functools.wraps(function)
    def handler(*values: Any) -> Any:
        try:
            return function(*values)
        except AnimagicError as error:
            raise gr.Error(_sentence(error), duration=None, title="", print_exception=False) from error

    return handler  # type: ignore[return-value]


def answered(function: Callable[..., dict[str, Any]]) -> Callable[[list[Any]], dict[str, Any]]:
    """A function that the page's own scripts call with a list of arguments; a refusal is their field `error`."""

    @functools.wraps(function)
    def answer(given: list[Any]) -> dict[str, Any]:
        try:
            return function(*given)
        except AnimagicError as error:
            return {"error": _sentence(error)}

    return answer


def _sentence(error: AnimagicError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def static(name: str) -> str:
    """A file of the page."""
    return (STATIC / name).read_text("utf-8")
