"""From portraits and performances to frames and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import skia

from ...errors import InputError
from ..drawing import render as draw_scene
from ..scenes import Background, Scene
from .drawn import Drawn
from .identity import Portrait
from .modelled import Modelled
from .performance import Performance


class Figure(Protocol):
    """Somebody in every frame."""

    opening: np.ndarray

    def paint(self, canvas: skia.Canvas, f: int) -> None: ...

    def masks(self, f: int, face: np.ndarray, mouth: np.ndarray) -> None: ...


@dataclass(frozen=True, slots=True)
class PortraitClip:
    """A portrait that moves, with all that is known about it.

    frames: uint8 (F, H, W, 3); face: uint8 (F, H, W), 0 to 255, from the hairline to the chin, 0 where the head is seen
    from behind; mouth: likewise, of what speech moves: lips, chin and the cheeks beside them; opening: float32 (F,),
    the gap between the lips over the distance of the eyes' outer corners, as animagic.faces.mouth_opening.
    """

    frames: np.ndarray
    face: np.ndarray
    mouth: np.ndarray
    opening: np.ndarray


@dataclass(frozen=True, slots=True)
class SceneClip:
    """Several people in one picture, from the left to the right. As in PortraitClip, but face and mouth: uint8
    (F, people, H, W), opening: float32 (F, people)."""

    frames: np.ndarray
    face: np.ndarray
    mouth: np.ndarray
    opening: np.ndarray


def render_portrait(portrait: Portrait, performance: Performance, height: int, width: int) -> PortraitClip:
    """Draw a portrait that does a performance. The same arguments give the same clip.

    Raises: InputError.
    """
    clip = render_scene((portrait,), (performance,), height, width)
    return PortraitClip(clip.frames, clip.face[:, 0], clip.mouth[:, 0], clip.opening[:, 0])


def render_scene(
    portraits: Sequence[Portrait], performances: Sequence[Performance], height: int, width: int
) -> SceneClip:
    """Draw one person, or two side by side before the first one's background.

    Raises: InputError.
    """
    if not 1 <= len(portraits) == len(performances) <= 2:
        raise InputError(
            f"{len(portraits)} portraits with {len(performances)} performances were given: give 1 or 2 of each."
        )
    frames = len(performances[0])
    if min(height, width) < 32 or any(len(performance) != frames for performance in performances):
        raise InputError(
            f"{height} x {width} pixels and performances of {[len(p) for p in performances]} frames were asked for; "
            "at least 32 x 32 pixels are needed, and as many frames for everybody."
        )
    seated = portraits if len(portraits) == 1 else _beside(portraits, height, width)
    figures: list[Figure] = [
        _figure(portrait, performance, height, width)
        for portrait, performance in zip(seated, performances, strict=True)
    ]
    backdrop = _backdrop(portraits[0].background, height, width)
    pixels = np.zeros((height, width, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
    out = np.empty((frames, height, width, 3), np.uint8)
    face, mouth = np.zeros((2, frames, len(figures), height, width), np.uint8)
    for f in range(frames):
        pixels[...] = backdrop
        for i, figure in enumerate(figures):
            figure.paint(canvas, f)
            figure.masks(f, face[f, i], mouth[f, i])
        out[f] = pixels[..., :3]
    return SceneClip(out, face, mouth, np.stack([figure.opening for figure in figures], 1))


def _figure(portrait: Portrait, performance: Performance, height: int, width: int) -> Figure:
    unit = portrait.size * min(height, width) / 2
    kind = Drawn if portrait.kind == "drawn" else Modelled
    return kind(portrait, performance, unit, portrait.x * width, portrait.y * height, height, width)


def _beside(portraits: Sequence[Portrait], height: int, width: int) -> list[Portrait]:
    """Two portraits, so large and so placed that both faces are whole."""
    largest = 0.58 * width / min(height, width)
    out = []
    for x, portrait in zip((0.27, 0.73), portraits, strict=True):
        size = min(portrait.size * 0.85, largest, 0.7)
        out.append(replace(portrait, size=size, x=x + 0.2 * (portrait.x - 0.5), background=portraits[0].background))
    return out


@lru_cache(maxsize=32)
def _backdrop(background: Background, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 4)."""
    picture = draw_scene(Scene(background, ()), 1, height, width)[0]
    return np.concatenate([picture, np.full((height, width, 1), 255, np.uint8)], -1)
