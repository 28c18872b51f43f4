"""An endless source of portraits that speak, with exact masks. See docs/ideas/synthetic-portraits.md."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from .captions import caption, scene_caption, vocabulary
from .identity import KINDS, Portrait, held_out_portrait, sample_portrait
from .performance import EXPRESSIONS, HELD_OUT, MOTIONS, Performance, sample_performance, sample_still

if TYPE_CHECKING:
    from .render import PortraitClip, SceneClip

__all__ = [
    "EXPRESSIONS",
    "HELD_OUT",
    "KINDS",
    "MOTIONS",
    "Performance",
    "Portrait",
    "PortraitClip",
    "SceneClip",
    "caption",
    "held_out_portrait",
    "render_photo",
    "render_portrait",
    "render_scene",
    "sample_performance",
    "sample_portrait",
    "sample_still",
    "scene_caption",
    "vocabulary",
]


def render_portrait(portrait: Portrait, performance: Performance, height: int, width: int) -> PortraitClip:
    """Draw a portrait that does a performance; see `render.render_portrait`. Needs skia-python."""
    return _drawing("render_portrait")(portrait, performance, height, width)


def render_scene(
    portraits: Sequence[Portrait], performances: Sequence[Performance], height: int, width: int
) -> SceneClip:
    """Draw two people side by side; see `render.render_scene`. Needs skia-python."""
    return _drawing("render_scene")(portraits, performances, height, width)


def render_photo(
    portraits: Portrait | Sequence[Portrait], rng: np.random.Generator | int, height: int, width: int
) -> SceneClip:
    """One person, or two, at another moment, one frame with the mouth shut: what an animation starts from."""
    rng = np.random.default_rng(rng)
    people = (portraits,) if isinstance(portraits, Portrait) else portraits
    return render_scene(people, [sample_still(rng) for _ in people], height, width)


def _drawing(name: str):
    try:
        return getattr(import_module(f"{__name__}.render"), name)
    except ImportError as error:
        raise ImportError("Drawing portraits needs skia-python: pip install 'animagic[train]'.") from error


def __getattr__(name: str) -> object:
    if name in ("PortraitClip", "SceneClip"):
        return getattr(import_module(f"{__name__}.render"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
