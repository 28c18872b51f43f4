"""Scenes as frozen data, sampled at random, with no drawing in it.

Lengths are in units of 1/64 of the picture's shorter side, times in frames at 24 frames a second, so that
one scene can be drawn at any size and frame rate. The 64 x 64 square in which scenes are composed lies in the
middle of the picture; x grows to the right, y downward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeVar

import numpy as np

from ..errors import InputError

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (222, 40, 48),
    "orange": (250, 132, 20),
    "yellow": (252, 214, 40),
    "green": (36, 160, 70),
    "blue": (38, 92, 220),
    "purple": (130, 52, 180),
    "pink": (250, 112, 180),
    "white": (250, 250, 250),
}
SHAPES = ("ball", "square", "triangle", "star", "heart", "ring", "boat", "rocket", "car")
MOTIONS = (
    "slides left", "slides right", "bounces", "rolls left", "rolls right", "orbits", "spins",
    "swings", "rises", "falls", "grows", "shrinks", "stays still",
)  # fmt: skip
GROUNDED = ("slides left", "slides right", "bounces", "rolls left", "rolls right", "grows", "shrinks",
            "stays still", "collides")  # fmt: skip
CAMERAS = ("still", "pan left", "pan right")

# Muted on purpose: whatever is saturated is a thing.
PLAIN: dict[str, RGB] = {
    "grey": (172, 176, 182),
    "beige": (226, 210, 184),
    "light blue": (178, 206, 228),
    "mint": (184, 220, 196),
    "lavender": (204, 196, 226),
    "dark": (52, 56, 68),
}
FLOORS: dict[str, RGB] = {
    "green": (124, 160, 118),
    "brown": (142, 112, 90),
    "grey": (136, 140, 146),
    "blue": (112, 140, 172),
    "sandy": (208, 186, 142),
}
WALLS: dict[str, RGB] = {  # one wall a floor: the caption then tells the whole picture
    "green": (232, 228, 212),
    "brown": (178, 194, 202),
    "grey": (190, 178, 164),
    "blue": (222, 226, 232),
    "sandy": (160, 192, 208),
}
# The colours that fill each painted view; things near to any of them are not put there.
VIEWS: dict[str, tuple[RGB, ...]] = {
    "hills": ((150, 200, 232), (208, 230, 240), (128, 174, 108), (104, 152, 96)),
    "night": ((24, 30, 62), (48, 58, 100), (44, 56, 66)),
    "sunset": ((118, 88, 130), (226, 140, 112), (246, 190, 130), (84, 66, 92)),
    "sea": ((186, 218, 234), (226, 238, 240), (84, 142, 168), (66, 120, 150)),
    "room": ((222, 206, 180), (168, 126, 92), (190, 218, 232)),
}
PANNED = ("hills", "night", "sunset", "room")  # a pan shows only where there is something to see
PHOTOS = ("coffee", "chelsea", "astronaut", "rocket", "hubble_deep_field", "brick", "grass", "gravel")

Split = Literal["train", "test"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Background:
    """kind: "plain", "floor", "photo" or a key of VIEWS; colour: its name in PLAIN, FLOORS or PHOTOS."""

    kind: str
    colour: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Motion:
    """name is one of MOTIONS or "collides"; the numbers mean what `drawing.pose` makes of them.

    x, y: where it starts (y is the ground's height for GROUNDED motions, the centre's for others), units;
    rate: units a frame for travel, cycles a frame for what repeats, share a frame for growth;
    reach: units, or radians for a swing; phase: cycles.
    """

    name: str
    x: float
    y: float
    rate: float = 0.0
    reach: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Thing:
    """size is the diameter in units."""

    shape: str
    colour: str
    size: float
    motion: Motion


@dataclass(frozen=True, slots=True)
class Scene:
    """One to two things before a background; the first is the main one. pan_rate: units a frame."""

    background: Background
    things: tuple[Thing, ...]
    camera: str = "still"
    pan_rate: float = 0.0


@cache
def held_out(shape: str, colour: str, motion: str) -> bool:
    """Whether the combination belongs to the test split: about 8 % of them, fixed for ever by a hash."""
    # The leading number is a salt, chosen so that every shape, colour and motion occurs in both splits.
    digest = hashlib.sha256(f"314/{shape}/{colour}/{motion}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < 8


def colour_distance(a: RGB, b: RGB) -> float:
    """Perceived distance of two RGB colours, 0 to about 765 (the "redmean" approximation)."""
    mean_red = (a[0] + b[0]) / 2
    weights = (2 + mean_red / 256, 4, 3 - mean_red / 256)
    return sum(w * (p - q) ** 2 for w, p, q in zip(weights, a, b, strict=True)) ** 0.5


def background_colours(background: Background) -> tuple[RGB, ...]:
    """The main colours (RGB) of a background; none for a photo, which is drawn muted."""
    if background.kind == "plain":
        return (PLAIN[background.colour],)
    if background.kind == "floor":
        return FLOORS[background.colour], WALLS[background.colour]
    return VIEWS.get(background.kind, ())


@cache
def contrasting_colours(background: Background) -> tuple[str, ...]:
    """Names of the colours in which a thing stands out from the background."""
    fills = background_colours(background)
    return tuple(name for name, rgb in COLOURS.items() if all(colour_distance(rgb, fill) > 170 for fill in fills))


@cache
def _kinds(motion: str, split: Split) -> tuple[tuple[str, str], ...]:
    """Every (shape, colour) that does this motion in this split; only round things roll, only others spin."""
    fits = {"rolls left": (True,), "rolls right": (True,), "spins": (False,)}.get(motion, (True, False))
    return tuple(
        (shape, colour)
        for shape in SHAPES
        for colour in COLOURS
        if (shape in ("ball", "ring")) in fits and held_out(shape, colour, motion) == (split == "test")
    )


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _background(rng: np.random.Generator, panned: bool) -> Background:
    seed = int(rng.integers(2**31))
    if panned:
        return Background(_pick(rng, PANNED), "", seed)
    kind = str(rng.choice(("plain", "floor", "photo", *VIEWS), p=(0.22, 0.32, 0.06, *(0.08,) * 5)))
    names = {"plain": tuple(PLAIN), "floor": tuple(FLOORS), "photo": PHOTOS}.get(kind, ("",))
    return Background(kind, _pick(rng, names), seed)


def _motion(rng: np.random.Generator, name: str, size: float, ground: float) -> Motion:
    """A motion that keeps the thing in view for the first 48 frames, slow enough for a small VAE."""
    uniform = rng.uniform
    if name.startswith(("slides", "rolls")):
        x, rate = uniform(size / 2, size / 2 + 10), uniform(0.5, 0.9)
        return Motion(name, x if name.endswith("right") else 64 - x, ground, rate)
    if name in ("rises", "falls"):
        y = uniform(size / 2, size / 2 + 8)
        return Motion(name, uniform(20, 44), y if name == "falls" else 64 - y, uniform(0.5, 0.9))
    if name == "bounces":
        return Motion(name, uniform(18, 46), ground, 1 / uniform(24, 32), uniform(14, 19), uniform())
    if name == "orbits":
        return Motion(name, 32, 32, 1 / uniform(60, 76), uniform(14, 17), uniform())
    if name == "swings":
        return Motion(name, 32, -6, 1 / uniform(52, 64), uniform(0.36, 0.46), uniform())
    if name == "spins":
        return Motion(name, uniform(26, 38), uniform(28, 36), 1 / uniform(90, 140), phase=uniform())
    if name in ("grows", "shrinks"):
        return Motion(name, uniform(24, 40), ground, 1 / uniform(44, 52))
    return Motion(name, uniform(18, 46), ground)


def _names(rng: np.random.Generator, layout: str) -> tuple[str, ...]:
    """The motion of each thing of a layout."""
    if layout == "collide":
        return "collides", "collides"
    if layout == "two":  # each stays on its side
        beside = ("bounces", "spins", "stays still", "grows", "shrinks", "rises", "falls")
        return _pick(rng, beside), _pick(rng, beside)
    if layout == "pan":
        return (_pick(rng, ("bounces", "spins", "stays still")),)
    shares = np.array([0.5 if name.startswith("rolls") else 1.0 for name in MOTIONS])  # only two shapes roll
    return (str(rng.choice(MOTIONS, p=shares / shares.sum())),)


def sample_scene(rng: np.random.Generator, split: Split = "train") -> Scene:
    """Draw one scene at random.

    About 75 % hold one thing, 15 % two things side by side, 5 % two that collide and 5 % are panned over.
    Combinations of shape, colour and motion for which `held_out` is true occur in "test" and nowhere else.
    """
    if split not in ("train", "test"):
        raise InputError(f"split is {split!r}; it can be 'train' or 'test'.")
    layout = str(rng.choice(("one", "two", "collide", "pan"), p=(0.75, 0.15, 0.05, 0.05)))
    while True:
        names = _names(rng, layout)
        kinds = [_pick(rng, _kinds(name, split)) for name in names]
        colours = {colour for _, colour in kinds}
        # Two things never share a colour, so that words and pixels cannot be matched the wrong way round.
        if len(colours) == len(kinds):
            break
    background = _background(rng, layout == "pan")
    while not colours.issubset(contrasting_colours(background)):
        background = _background(rng, layout == "pan")

    ground = float(rng.uniform(52, 58))
    if layout == "collide":  # both keep one clock, and touch in the middle
        rate, phase = 1 / rng.uniform(40, 52), rng.uniform(0.45, 0.7)
    things = []
    for side, name, (shape, colour) in zip((-1, 1), names, kinds, strict=False):
        small = layout in ("two", "collide")
        low, high = (17, 21) if small else (19, 24) if name in ("orbits", "swings") else (20, 28)
        size = float(rng.uniform(low, high))
        if layout == "collide":
            motion = Motion(name, 32 + side * size / 2, ground, rate, side * 13.0, phase)
        else:
            motion = _motion(rng, name, size, ground)
        if layout == "two":
            motion = replace(motion, x=32 + side * float(rng.uniform(14, 18)))
        things.append(Thing(shape, colour, size, motion))
    if layout == "pan":  # against the camera's way, a thing has the room to stay in view
        camera, x = _pick(rng, CAMERAS[1:]), float(rng.uniform(14, 24))
        motion = replace(things[0].motion, x=x if camera == "pan left" else 64 - x)
        return Scene(background, (replace(things[0], motion=motion),), camera, float(rng.uniform(0.35, 0.6)))
    return Scene(background, tuple(things))


def facts(scene: Scene) -> dict[str, str]:
    """The canonical words of a scene: the main thing's colour, shape and motion; background; camera."""
    main, background = scene.things[0], scene.background
    where = {"plain": "{} background", "floor": "{} floor", "photo": "photo of {}"}.get(
        background.kind, background.kind
    )
    return {
        "colour": main.colour,
        "shape": main.shape,
        "motion": main.motion.name,
        "background": where.format(background.colour),
        "camera": scene.camera,
    }
