"""The web page: what a person opens first. It shows a video while it is made, and survives being closed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .page import build, mount

__all__ = ["build", "mount"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import page  # Gradio takes seconds

    return getattr(page, name)
