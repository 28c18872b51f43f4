"""Who a person is: body, colours, hair and clothes, as frozen data drawn at random."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np

from ..scenes import RGB, colour_distance

REGIONS = ("background", "skin", "hair", "shirt", "trousers", "shoes", "eyes")
"""The materials of a person by their number in a region map."""

SKINS: dict[str, RGB] = {
    "pale": (246, 214, 192),
    "light": (232, 184, 152),
    "tan": (204, 148, 110),
    "brown": (152, 100, 68),
    "dark": (98, 62, 44),
}
HAIRS: dict[str, RGB] = {
    "black": (34, 28, 30),
    "brown": (96, 58, 34),
    "blond": (226, 182, 84),
    "red": (176, 70, 28),
    "grey": (178, 178, 182),
    "blue": (58, 96, 190),
    "pink": (226, 110, 160),
}
CLOTHES: dict[str, RGB] = {
    "red": (206, 40, 46),
    "orange": (240, 134, 34),
    "yellow": (248, 212, 60),
    "green": (44, 150, 76),
    "teal": (30, 156, 160),
    "blue": (44, 90, 204),
    "purple": (124, 58, 170),
    "pink": (244, 130, 180),
    "white": (244, 244, 244),
    "grey": (134, 138, 146),
    "black": (40, 42, 50),
    "navy": (34, 46, 96),
    "beige": (218, 196, 158),
    "brown": (112, 76, 52),
}
EYES: dict[str, RGB] = {"brown": (58, 36, 26), "blue": (40, 84, 140), "green": (48, 98, 62)}
HAIR_STYLES = ("bald", "short", "bob", "long", "afro", "bun", "ponytail")
SLEEVES = ("none", "short", "long")
BOTTOMS = ("trousers", "shorts", "skirt")
LOOKS = ("body", "drawing")


@dataclass(frozen=True, slots=True)
class Person:
    """An identity.

    phenotype: gender (0 male, 1 female), age (0.4 a child, 0.67 young, 1 old), muscle, weight, height and proportions,
    each 0 to 1; skin ... eyes: names of colours; look: a "body" in three dimensions, or a flat "drawing".
    """

    phenotype: tuple[float, float, float, float, float, float]
    skin: str
    hair: str
    shirt: str
    trousers: str
    shoes: str
    eyes: str
    hair_style: str
    sleeves: str
    bottoms: str
    untucked: bool
    loose: bool
    look: Literal["body", "drawing"] = "body"

    @property
    def colours(self) -> dict[str, RGB]:
        """The colour of each of REGIONS but the background, before light falls on it."""
        return {
            "skin": SKINS[self.skin],
            "hair": HAIRS[self.hair],
            "shirt": CLOTHES[self.shirt],
            "trousers": CLOTHES[self.trousers],
            "shoes": CLOTHES[self.shoes],
            "eyes": EYES[self.eyes],
        }


def held_out_person(person: Person) -> bool:
    """Whether a person belongs to the test split: about 10 % of all appearances, fixed for ever by a hash.

    What counts is what is seen first: skin, hair, shirt and trousers. So a test person is no small change of another.
    """
    appearance = "/".join((person.skin, person.hair, person.hair_style, person.shirt, person.trousers))
    return int.from_bytes(hashlib.sha256(f"people/{appearance}".encode()).digest()[:4], "big") % 100 < 10


def _pick(rng: np.random.Generator, names: tuple[str, ...] | dict[str, RGB]) -> str:
    names = tuple(names)
    return names[int(rng.integers(len(names)))]


def _apart(rng: np.random.Generator, *others: RGB) -> str:
    """A colour of clothes that nobody takes for the others."""
    fits = tuple(name for name, rgb in CLOTHES.items() if all(colour_distance(rgb, other) > 150 for other in others))
    return _pick(rng, fits)


def _draw(rng: np.random.Generator, look: Literal["body", "drawing"] | None) -> Person:
    gender = float(np.clip(rng.choice([0.06, 0.94]) + rng.normal(0, 0.06), 0, 1))
    age = float(
        rng.choice([rng.uniform(0.42, 0.55), rng.uniform(0.62, 0.75), rng.uniform(0.8, 1.0)], p=[0.15, 0.6, 0.25])
    )
    rest = rng.uniform((0.25, 0.15, 0.25, 0.3), (0.85, 0.9, 0.75, 1.0))
    skin = _pick(rng, SKINS)
    shirt = _apart(rng, SKINS[skin])
    trousers = _apart(rng, SKINS[skin], CLOTHES[shirt])
    shoes = _apart(rng, SKINS[skin])
    hair = str(rng.choice(list(HAIRS), p=(0.22, 0.26, 0.18, 0.12, 0.1, 0.06, 0.06)))
    while colour_distance(HAIRS[hair], SKINS[skin]) < 130:
        hair = _pick(rng, HAIRS)
    styles = (
        ("short", "bob", "long", "bun", "ponytail", "afro")
        if gender > 0.5
        else ("short", "short", "afro", "bald", "long")
    )
    bottoms = ("trousers", "shorts", "skirt") if gender > 0.5 else ("trousers", "trousers", "shorts")
    return Person(
        (gender, age, float(rest[0]), float(rest[1]), float(rest[2]), float(rest[3])),
        skin, hair, shirt, trousers, shoes, _pick(rng, EYES),
        _pick(rng, styles), _pick(rng, SLEEVES), _pick(rng, bottoms), bool(rng.random() < 0.5),
        bool(rng.random() < 0.5),
        look or ("drawing" if rng.random() < 0.3 else "body"),
    )  # fmt: skip


def sample_person(
    rng: np.random.Generator | int, held_out: bool = False, look: Literal["body", "drawing"] | None = None
) -> Person:
    """A person at random; with `held_out` one of the test split, which never occurs without it.

    Args:
        rng: a generator, or a seed.
        look: None draws it: a "body" in 7 of 10.
    """
    rng = np.random.default_rng(rng)
    while True:
        person = _draw(rng, look)
        if held_out_person(person) == held_out:
            return person


def seed_of(person: Person) -> int:
    """A number that is the person's own, for what is drawn by chance about them."""
    return int.from_bytes(hashlib.sha256(repr(astuple(person)).encode()).digest()[:4], "big")
