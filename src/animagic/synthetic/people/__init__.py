"""An endless source of people in motion, with exact poses and part maps. See docs/ideas/synthetic-people.md."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .identity import REGIONS, Person, held_out_person, sample_person
from .motion import HELD_OUT_MOTIONS, MOTIONS, STANDING, Movement, sample_motion
from .view import View, sample_view

if TYPE_CHECKING:
    from .render import PersonClip

__all__ = [
    "HELD_OUT_MOTIONS",
    "MOTIONS",
    "REGIONS",
    "Movement",
    "Person",
    "PersonClip",
    "View",
    "held_out_person",
    "render_person",
    "render_photo",
    "sample_motion",
    "sample_person",
    "sample_view",
]


def render_person(
    person: Person,
    movement: Movement,
    view: View,
    num_frames: int,
    height: int,
    width: int,
    fps: float = 15,
    start: float = 0.0,
) -> PersonClip:
    """Draw a person in motion; see `render.render_person`. Needs skia-python."""
    try:
        from .render import render_person as draw
    except ImportError as error:
        raise ImportError("Drawing people needs skia-python: pip install 'animagic[train]'.") from error
    return draw(person, movement, view, num_frames, height, width, fps, start)


def render_photo(
    person: Person, view: View, height: int, width: int, rng: np.random.Generator | int, held_out: bool = False
) -> PersonClip:
    """The person at another moment, one frame in the same view and place: what an animation starts from.

    They stand, turned to where the camera of a frontal view would be, in a pose of a movement that `rng` draws.
    held_out: whether the movement is one of the test split's.
    """
    rng = np.random.default_rng(rng)
    movement = sample_motion(rng, held_out)
    while movement.lower not in STANDING:
        movement = sample_motion(rng, held_out)
    movement = replace(movement, turning=0.0)
    return render_person(person, movement, view, 1, height, width)


def __getattr__(name: str) -> object:
    if name == "PersonClip":
        from .render import PersonClip

        return PersonClip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
