"""The HTTP server: videos as jobs, in OpenAI's shape, that can be watched while they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from .building import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
