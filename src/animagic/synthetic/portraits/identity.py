"""Who somebody is and where they are seen: what stays in a clip, as frozen data drawn at random."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np

from ..scenes import FLOORS, PLAIN, RGB, VIEWS, Background, colour_distance

Kind = Literal["drawn", "head"]
KINDS: tuple[Kind, ...] = ("drawn", "head")

SKINS: dict[str, RGB] = {
    "pale": (246, 214, 194),
    "light": (234, 188, 158),
    "tan": (206, 152, 114),
    "brown": (156, 104, 72),
    "dark": (104, 68, 50),
    "blue": (130, 172, 222),
    "green": (152, 200, 128),
    "violet": (188, 156, 218),
}
STYLISED_SKINS = ("blue", "green", "violet")
HAIRS: dict[str, RGB] = {
    "black": (38, 32, 36),
    "brown": (100, 62, 38),
    "blond": (226, 184, 92),
    "red": (178, 76, 34),
    "grey": (170, 172, 178),
    "white": (232, 230, 226),
    "blue": (62, 100, 196),
    "pink": (226, 114, 164),
    "green": (60, 150, 96),
}
CLOTHES: dict[str, RGB] = {
    "red": (204, 44, 50),
    "orange": (238, 136, 42),
    "yellow": (244, 208, 66),
    "green": (50, 148, 80),
    "teal": (34, 152, 158),
    "blue": (48, 94, 204),
    "purple": (124, 62, 168),
    "pink": (240, 134, 180),
    "white": (240, 240, 240),
    "grey": (130, 134, 142),
    "black": (44, 46, 54),
    "navy": (36, 48, 98),
    "beige": (216, 196, 160),
}
EYES: dict[str, RGB] = {
    "brown": (92, 56, 34),
    "dark": (48, 36, 32),
    "blue": (66, 122, 190),
    "green": (72, 134, 84),
    "grey": (110, 124, 136),
}
HAIR_STYLES = ("bald", "buzzed", "short", "parted", "fringe", "curly", "bob", "long", "bun", "ponytail", "afro")
BEARDS = ("none", "stubble", "moustache", "full")
GLASSES = ("none", "round", "square")
GARMENTS = ("t-shirt", "shirt", "turtleneck", "hoodie", "jacket")
FRAMES: dict[str, RGB] = {"black": (30, 30, 34), "brown": (96, 58, 36), "red": (178, 40, 48), "gold": (190, 150, 70)}


@dataclass(frozen=True, slots=True)
class Portrait:
    """An identity and its picture.

    kind: "drawn", flat shapes, or "head", in three dimensions; outlined: whether a drawn one has dark lines and large
    eyes. phenotype: gender (0 male, 1 female), age (0.4 a child, 0.67 young, 1 old) and weight, each 0 to 1; shape: 16
    numbers of about mean 0 and deviation 1, the proportions. skin, hair, eyes, clothes, frames (of the glasses): names
    of colours; light: -1 from the left to 1 from the right; size: from hairline to chin, as a share of the picture's
    shorter side; x, y: where the middle of the face is, as shares of the picture's width and height.
    """

    kind: Kind
    phenotype: tuple[float, float, float]
    shape: tuple[float, ...]
    skin: str
    hair: str
    hair_style: str
    eyes: str
    beard: str
    glasses: str
    frames: str
    garment: str
    clothes: str
    striped: bool
    outlined: bool
    background: Background
    light: float
    size: float
    x: float
    y: float

    @property
    def colours(self) -> dict[str, RGB]:
        """The colours of skin, hair, eyes, clothes, lips and the glasses' frames."""
        skin, female = np.array(SKINS[self.skin], float), self.phenotype[0]
        darker = skin * np.array([0.78, 0.52, 0.52])
        made_up = np.array([196.0, 40, 62])
        lips = darker + (0.15 + 0.45 * female) * (made_up - darker)
        if self.skin in STYLISED_SKINS:
            lips = 0.4 * skin + 0.6 * np.array([160.0, 36, 84])
        red, green, blue = (int(value) for value in lips.round())
        return {
            "skin": SKINS[self.skin],
            "hair": HAIRS[self.hair],
            "eyes": EYES[self.eyes],
            "clothes": CLOTHES[self.clothes],
            "lips": (red, green, blue),
            "frames": FRAMES[self.frames],
        }


def held_out_portrait(portrait: Portrait) -> bool:
    """Whether a portrait belongs to the test split: about 10 % of all appearances, fixed for ever by a hash.

    What counts is skin, hair, its style, clothes and glasses: a test portrait is no small change of another.
    """
    looks = (portrait.skin, portrait.hair, portrait.hair_style, portrait.clothes, portrait.glasses)
    return int.from_bytes(hashlib.sha256(f"portraits/{'/'.join(looks)}".encode()).digest()[:4], "big") % 100 < 10


def _pick(rng: np.random.Generator, names: tuple[str, ...] | dict[str, RGB]) -> str:
    names = tuple(names)
    return names[int(rng.integers(len(names)))]


def _background(rng: np.random.Generator) -> Background:
    kind = str(rng.choice(("plain", "floor", *VIEWS), p=(0.4, 0.25, *(0.07,) * 5)))
    names = {"plain": tuple(PLAIN), "floor": tuple(FLOORS)}.get(kind, ("",))
    return Background(kind, _pick(rng, names), int(rng.integers(2**31)))


def _apart(rng: np.random.Generator, names: dict[str, RGB], *others: RGB) -> str:
    return _pick(rng, tuple(name for name, rgb in names.items() if all(colour_distance(rgb, o) > 110 for o in others)))


def _draw(rng: np.random.Generator, kind: Kind | None) -> Portrait:
    kind = kind or ("head" if rng.random() < 0.5 else "drawn")
    gender = float(np.clip(rng.choice([0.08, 0.92]) + rng.normal(0, 0.06), 0, 1))
    age = float(
        rng.choice([rng.uniform(0.42, 0.55), rng.uniform(0.62, 0.75), rng.uniform(0.8, 1)], p=[0.12, 0.63, 0.25])
    )
    female, child, old = gender > 0.5, age < 0.58, age > 0.78
    stylised = kind == "drawn" and rng.random() < 0.14
    skin = _pick(rng, STYLISED_SKINS if stylised else tuple(name for name in SKINS if name not in STYLISED_SKINS))
    ordinary = ("black", "brown", "blond", "red") + (("grey", "white") * 2 if old else ())
    hair = _pick(rng, tuple(HAIRS) if rng.random() < 0.15 else ordinary)
    while colour_distance(HAIRS[hair], SKINS[skin]) < 110:
        hair = _pick(rng, HAIRS)
    styles = HAIR_STYLES[3:] if female else (*HAIR_STYLES[:6], "short", "parted", "afro", "long")
    beard = "none" if female or child or rng.random() < 0.55 else _pick(rng, BEARDS[1:])
    backdrop = _background(rng)
    behind = {"plain": PLAIN, "floor": FLOORS}.get(backdrop.kind, {}).get(backdrop.colour, (128, 128, 128))
    return Portrait(
        kind, (gender, age, float(rng.uniform(0.2, 0.85))),
        tuple(float(value) for value in rng.normal(0, 1, 16).clip(-2, 2).round(4)),
        skin, hair, _pick(rng, styles), _pick(rng, EYES), beard,
        _pick(rng, GLASSES[1:]) if rng.random() < 0.28 else "none", _pick(rng, FRAMES),
        _pick(rng, GARMENTS), _apart(rng, CLOTHES, SKINS[skin], behind), kind == "drawn" and bool(rng.random() < 0.2),
        kind == "drawn" and bool(rng.random() < 0.35), backdrop, float(rng.uniform(-1, 1)),
        float(rng.uniform(0.45, 0.75)), float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.45, 0.58)),
    )  # fmt: skip


def sample_portrait(rng: np.random.Generator | int, held_out: bool = False, kind: Kind | None = None) -> Portrait:
    """A portrait at random; with `held_out` one of the test split, which never occurs without it.

    Args:
        rng: a generator, or a seed.
        kind: None draws it.
    """
    rng = np.random.default_rng(rng)
    while True:
        portrait = _draw(rng, kind)
        if held_out_portrait(portrait) == held_out:
            return portrait


def seed_of(portrait: Portrait) -> int:
    """A number that is the portrait's own, for what is drawn by chance about it."""
    return int.from_bytes(hashlib.sha256(repr(astuple(portrait)).encode()).digest()[:4], "big")
