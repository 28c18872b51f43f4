"""The words that a model was trained with: read from its folder, and set against a prompt."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import CheckpointError
from ..wording import spell

FILE = "vocabulary.json"
THINGS, PROMPTS = "things", "prompts"
"""Groups with a meaning of their own: what can be drawn; whole prompts, as examples."""
_SMALL = {"a", "an", "the", "and", "of", "in", "on", "at", "by", "to", "is", "are", "does", "it"}
_LIKENESS = 0.8  # so near is "sqare" to "square", but not "goat" to "boat"

Vocabulary = dict[str, dict[str, list[str]]]
"""Group -> canonical word -> its wordings."""


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary in a model's folder; None: there is none. Raises CheckpointError for a damaged file."""
    from pydantic import TypeAdapter

    if not (folder / FILE).is_file():
        return None
    try:
        return TypeAdapter(Vocabulary).validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / FILE} cannot be read: it must hold groups of words, and for each word a list of its wordings."
        ) from error


def stems(text: str) -> set[str]:
    """The words of a text without their endings, so that "bounces", "bouncing" and "bounced" are one; small words such
    as "the" are left out. Porter's steps 1a and 1b (doi 10.1108/eb046814), simplified."""
    found = set()
    for word in set(re.findall(r"[^\W\d_]+", text.lower())) - _SMALL:
        word = re.sub(r"ies$", "y", word)
        word = re.sub(r"^(\w*?[aeiouy]\w*?)(?:ing|ed|es|e|s)$", r"\1", word)
        found.add(re.sub(r"([^aeiou])\1$", r"\1", word))  # hopping, hops
    return found


def knows(words: Mapping[str, Sequence[str]], text: str) -> bool:
    """Whether a text has one of these words, in any of its wordings; the order does not matter."""
    said = stems(text)
    return any(stems(wording) <= said for word, wordings in words.items() for wording in (word, *wordings))


def advice(model: str, vocabulary: Vocabulary, prompts: Sequence[str], needs_thing: bool = True) -> str | None:
    """One line about prompts that a model cannot draw: what it can, and the nearest words; None: it knows them all.

    Args:
        prompts: of one video, in their order. Each must have a word that is known.
        needs_thing: the first must name a thing that is known; else something other than words says what is seen.
    """
    groups = {name: words for name, words in vocabulary.items() if name != PROMPTS}
    everything = {word: wordings for words in groups.values() for word, wordings in words.items()}
    things = groups.get(THINGS, everything)
    needed = [things if needs_thing else everything, *[everything] * (len(prompts) - 1)]
    strange = [prompt for prompt, words in zip(prompts, needed, strict=True) if not knows(words, prompt)]
    if not strange:
        return None
    single = [w.lower() for word, wordings in everything.items() for w in (word, *wordings) if " " not in w]
    spoken = dict.fromkeys(re.findall(r"[^\W\d_]+", " ".join(strange).lower()))
    near = [difflib.get_close_matches(word, single, 1, _LIKENESS) for word in spoken if not knows(everything, word)]
    meant = ", ".join(dict.fromkeys(word for words in near for word in words))
    said = " and ".join(f'"{spell(" ".join(prompt.split()))}"' for prompt in strange)
    return (
        f"hint: there is nothing in {said} that {model} was trained to draw"
        + (f" (did you mean {meant}?)" if meant else "")
        + f"; it knows {', '.join(things)}"
        + "".join(f': try "{prompt}"' for prompt in list(vocabulary.get(PROMPTS, ()))[:1])
        + f" (all words: animagic models --vocabulary {model})."
    )
