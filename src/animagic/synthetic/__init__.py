"""The drawing studio: captioned scenes that the project draws itself, endlessly and without any download."""

from __future__ import annotations

import numpy as np

from .captions import canonical_caption, caption, motion_caption, picture_caption, vocabulary
from .photos import photo_background
from .scenes import (
    COLOURS,
    MOTIONS,
    SHAPES,
    Background,
    Motion,
    Scene,
    Thing,
    facts,
    held_out,
    sample_scene,
)

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "Background",
    "Motion",
    "Scene",
    "Thing",
    "canonical_caption",
    "caption",
    "facts",
    "held_out",
    "motion_caption",
    "photo_background",
    "picture_caption",
    "render",
    "sample_scene",
    "vocabulary",
]


def render(
    scene: Scene, num_frames: int, height: int = 64, width: int = 64, fps: float = 24, start: int = 0
) -> np.ndarray:
    """Draw a scene: uint8 (num_frames, height, width, 3); see `drawing.render`. Needs skia-python."""
    try:
        from .drawing import render as draw
    except ImportError as error:
        raise ImportError("Drawing scenes needs skia-python: pip install 'animagic[train]'.") from error
    return draw(scene, num_frames, height, width, fps, start)
