"""What is said of a portrait and what it does, in free wording."""

from __future__ import annotations

import numpy as np

from .identity import Portrait
from .performance import Performance

EXPRESSION_WORDS = {  # (before who it is, after who it is)
    "neutral": (("calm", "looks calm"), ("neutral", "has a neutral face"), ("serious", "looks serious")),
    "smiling": (("smiling", "smiles"), ("happy", "looks happy"), ("cheerful", "is smiling"), ("friendly", "smiles")),
    "sad": (("sad", "looks sad"), ("unhappy", "looks unhappy"), ("sorrowful", "has a sad face")),
    "angry": (("angry", "looks angry"), ("furious", "frowns"), ("annoyed", "looks annoyed")),
    "surprised": (("surprised", "looks surprised"), ("astonished", "raises the eyebrows"), ("amazed", "looks amazed")),
}
MOTION_WORDS = {  # (what they do, what they are doing)
    "still": (("keeps still", "keeping still"), ("does not move", "not moving"), ("holds still", "holding still")),
    "nodding": (("nods", "nodding"), ("nods the head", "nodding the head"), ("keeps nodding", "nodding again and again")),
    "shaking the head": (("shakes the head", "shaking the head"), ("turns the head from side to side",
                         "turning the head from side to side")),
    "swaying": (("sways", "swaying"), ("sways from side to side", "swaying from side to side"),
                ("rocks gently", "rocking gently")),
    "turning to the left": (("turns to the left", "turning to the left"), ("looks to the left", "looking to the left")),
    "turning to the right": (("turns to the right", "turning to the right"),
                             ("looks to the right", "looking to the right")),
    "leaning": (("leans to one side", "leaning to one side"), ("tilts the head", "tilting the head")),
    "turning round": (("turns round", "turning round"), ("turns around", "turning around"),
                      ("turns their back", "turning their back")),
    "from behind": (("is seen from behind", "seen from behind"), ("faces away", "facing away"),
                    ("shows the back of the head", "showing the back of the head")),
}  # fmt: skip
SPEAKING_WORDS = ("speaking", "talking")
SILENT_WORDS = ("in silence", "without a word", "listening")
WHO = ("person", "somebody", "someone")
HAIR_WORDS = {
    "bald": "a bald head", "buzzed": "very short {} hair", "short": "short {} hair", "parted": "parted {} hair",
    "fringe": "{} hair with a fringe", "curly": "curly {} hair", "bob": "a {} bob", "long": "long {} hair",
    "bun": "a {} bun", "ponytail": "a {} ponytail", "afro": "a {} afro",
}  # fmt: skip
GLASSES_WORDS = {"round": "round glasses", "square": "glasses"}
BEARD_WORDS = {"stubble": "stubble", "moustache": "a moustache", "full": "a beard"}
KIND_WORDS = {"drawn": ("a drawing of", "a cartoon of"), "head": ("a portrait of", "a picture of")}
_OPEN = 0.12  # what opens wider than this speaks


def caption(portrait: Portrait, performance: Performance, rng: np.random.Generator) -> str:
    """One sentence, for example "a smiling person with red hair nods while speaking"; not all is said every time."""

    def any_of(words):
        return words[int(rng.integers(len(words)))]

    before, after = any_of(EXPRESSION_WORDS[performance.expression])
    does, doing = any_of(MOTION_WORDS[performance.motion])
    speaks = any_of(SPEAKING_WORDS if performance.mouth[:, 0].max() > _OPEN else SILENT_WORDS)
    expressed = performance.expression != "neutral" or rng.random() < 0.4
    looks = appearance(portrait, rng) if rng.random() < 0.55 else ""
    if expressed and rng.random() < 0.6:
        who, mood = f"{_article(before)} person", ""
    else:
        who, mood = any_of(("a person", "somebody", "someone")), after if expressed else ""
    if rng.random() < 0.2:
        kind = any_of(KIND_WORDS[portrait.kind])
        parts = [part for part in (f"who {mood}" if mood else "", doing, speaks) if part]
        return f"{kind} {who} {looks}".strip() + ", " + ", ".join(parts)
    who = f"{who} {looks}".strip()
    moves = f"{does} while {speaks}" if speaks in SPEAKING_WORDS else f"{does} {speaks}".replace(" listening", ", listening")
    if rng.random() < 0.25:
        said = f"{'is ' if speaks in SPEAKING_WORDS else 'is '}{speaks}, {doing}"
        moves = said
    return f"{who} {mood} and {moves}" if mood else f"{who} {moves}"


def appearance(portrait: Portrait, rng: np.random.Generator) -> str:
    """One or two things that somebody is recognised by, for example "with red hair, in a green shirt"."""
    facts = [f"with {HAIR_WORDS[portrait.hair_style].format(portrait.hair)}"]
    if portrait.glasses != "none":
        facts.append(f"with {GLASSES_WORDS[portrait.glasses]}")
    if portrait.beard != "none":
        facts.append(f"with {BEARD_WORDS[portrait.beard]}")
    facts.append(f"in {_article(portrait.clothes)} {portrait.garment}")
    chosen = rng.permutation(len(facts))[: int(rng.integers(1, 3))]
    return " ".join(facts[i] for i in sorted(chosen)).replace(" with ", " and ", 0)


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def vocabulary() -> dict[str, dict[str, list[str]]]:
    """The words of the captions: group -> canonical word -> its wordings."""
    return {
        "expressions": {name: [w for pair in words for w in pair] for name, words in EXPRESSION_WORDS.items()},
        "motions": {name: [does for does, _ in words] for name, words in MOTION_WORDS.items()},
        "speaking": {"speaking": list(SPEAKING_WORDS), "silent": list(SILENT_WORDS)},
    }


def scene_caption(
    portraits: tuple[Portrait, Portrait], performances: tuple[Performance, Performance], rng: np.random.Generator
) -> str:
    """One sentence about two people, the left one first."""
    parts = []
    for side, portrait, performance in zip(("left", "right"), portraits, performances, strict=True):
        said = caption(portrait, performance, rng)
        parts.append(f"on the {side}, {said}" if rng.random() < 0.6 else f"{said} on the {side}")
    return " and ".join(parts) if rng.random() < 0.5 else "two people: " + "; ".join(parts)
