"""What is said of a portrait and what it does, in free wording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .identity import Portrait
from .performance import Performance

T = TypeVar("T")

EXPRESSION_WORDS = {  # (before who it is, what they do)
    "neutral": (("calm", "looks calm"), ("serious", "looks serious"), ("composed", "has a neutral face")),
    "smiling": (("smiling", "smiles"), ("happy", "looks happy"), ("cheerful", "is smiling"), ("friendly", "smiles")),
    "sad": (("sad", "looks sad"), ("unhappy", "looks unhappy"), ("sorrowful", "has a sad face")),
    "angry": (("angry", "looks angry"), ("furious", "frowns"), ("annoyed", "looks annoyed")),
    "surprised": (("surprised", "looks surprised"), ("astonished", "raises the eyebrows"), ("amazed", "looks amazed")),
}
MOTION_WORDS = {  # (what they do, what they are doing)
    "still": (("keeps still", "keeping still"), ("does not move", "not moving"), ("holds still", "holding still")),
    "nodding": (("nods", "nodding"), ("nods the head", "nodding the head"),
                ("keeps nodding", "nodding again and again")),
    "shaking the head": (("shakes the head", "shaking the head"),
                         ("turns the head from side to side", "turning the head from side to side")),
    "swaying": (("sways", "swaying"), ("sways from side to side", "swaying from side to side"),
                ("rocks gently", "rocking gently")),
    "turning to the left": (("turns to the left", "turning to the left"), ("looks to the left", "looking to the left")),
    "turning to the right": (("turns to the right", "turning to the right"),
                             ("looks to the right", "looking to the right")),
    "leaning": (("leans to one side", "leaning to one side"), ("tilts the head", "tilting the head")),
    "turning round": (("turns round", "turning round"), ("turns around", "turning around")),
    "from behind": (("is seen from behind", "seen from behind"), ("faces away", "facing away"),
                    ("shows the back of the head", "showing the back of the head")),
}  # fmt: skip
SPEAKING_WORDS = ("speaking", "talking")
SILENT_WORDS = ("in silence", "without a word", "with the mouth shut")
WHO = ("a person", "somebody", "someone")
HAIR_WORDS = {
    "bald": "a bald head", "buzzed": "very short {} hair", "short": "short {} hair", "parted": "parted {} hair",
    "fringe": "{} hair with a fringe", "curly": "curly {} hair", "bob": "a {} bob", "long": "long {} hair",
    "bun": "a {} bun", "ponytail": "a {} ponytail", "afro": "a {} afro",
}  # fmt: skip
GLASSES_WORDS = {"round": ("round glasses", "glasses"), "square": ("glasses", "square glasses")}
BEARD_WORDS = {"stubble": "stubble", "moustache": "a moustache", "full": "a beard"}
KIND_WORDS = {"drawn": ("a drawing of", "a cartoon of"), "head": ("a portrait of", "a picture of")}
_OPEN = 0.12  # who opens the mouth wider than this speaks


def caption(portrait: Portrait, performance: Performance, rng: np.random.Generator) -> str:
    """One sentence, for example "a smiling person with red hair nods while speaking"; not all is said every time."""
    before, after = _any(EXPRESSION_WORDS[performance.expression], rng)
    does, doing = _any(MOTION_WORDS[performance.motion], rng)
    speaks = bool(performance.mouth[:, 0].max() > _OPEN)
    how = _any(SPEAKING_WORDS if speaks else SILENT_WORDS, rng)
    looks = f" {appearance(portrait, rng)}" if rng.random() < 0.55 else ""
    expressed = performance.expression != "neutral" or rng.random() < 0.4
    first = expressed and rng.random() < 0.6
    who = (f"{_article(before)} person" if first else _any(WHO, rng)) + looks
    mood = f"{after} and " if expressed and not first else ""
    order = rng.random()
    if order < 0.15 and not mood:
        return f"{_any(KIND_WORDS[portrait.kind], rng)} {who}, {how}, {doing}"
    if order < 0.4:
        return f"{who} {mood}is {how}, {doing}"
    return f"{who} {mood}{does} while {how}" if speaks else f"{who} {mood}{does} {how}"


def scene_caption(portraits: Sequence[Portrait], performances: Sequence[Performance], rng: np.random.Generator) -> str:
    """One sentence about two people, the left one first."""
    left, right = (caption(p, done, rng) for p, done in zip(portraits, performances, strict=True))
    if rng.random() < 0.5:
        return f"on the left {left}, on the right {right}"
    return f"two people: left, {left}; right, {right}"


def appearance(portrait: Portrait, rng: np.random.Generator) -> str:
    """One or two things that somebody is recognised by, for example "with red hair and in a green shirt"."""
    hair = HAIR_WORDS[portrait.hair_style].format(portrait.hair)
    facts = [f"with {hair}", f"in {_article(portrait.clothes)} {portrait.garment}"]
    if portrait.glasses != "none":
        facts.append(f"with {_any(GLASSES_WORDS[portrait.glasses], rng)}")
    if portrait.beard != "none":
        facts.append(f"with {BEARD_WORDS[portrait.beard]}")
    chosen = rng.permutation(len(facts))[: int(rng.integers(1, 3))]
    return " and ".join(facts[i] for i in chosen)


def _any(words: Sequence[T], rng: np.random.Generator) -> T:
    return words[int(rng.integers(len(words)))]


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def vocabulary() -> dict[str, dict[str, list[str]]]:
    """The words of the captions: group -> canonical word -> its wordings, the plain one first."""
    return {
        "expressions": {name: [before for before, _ in words] for name, words in EXPRESSION_WORDS.items()},
        "motions": {name: [does for does, _ in words] for name, words in MOTION_WORDS.items()},
        "speech": {"speaking": list(SPEAKING_WORDS), "silent": list(SILENT_WORDS)},
        "hair": {style: [words.format("brown")] for style, words in HAIR_WORDS.items()},
        "glasses": {style: list(words) for style, words in GLASSES_WORDS.items()},
        "beards": {style: [words] for style, words in BEARD_WORDS.items()},
        "kinds": {kind: list(words) for kind, words in KIND_WORDS.items()},
    }
