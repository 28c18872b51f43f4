"""What is said of a value that pydantic refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from animagic.errors import InputError
from animagic.wording import in_one_sentence, listed, nearest, needs, spell

Positive = Annotated[int, Field(ge=1)]


class Options(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    window: Positive
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    fit: Literal["crop", "pad"] = "crop"
    kind: Annotated[Literal[1, 3], "two is a crowd"] = 1
    seed: Positive | list[Positive] | None = None
    loras: dict[str, float] = {}
    tiled: bool = False
    texts: list[str] = []

    @field_validator("texts")
    @classmethod
    def _check_texts(cls, texts: list[str]) -> list[str]:
        if "" in texts:
            raise InputError("a text is empty; leave it out.")
        if len(texts) > 2:
            raise ValueError("two are enough")
        return texts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "--window is missing; a whole number is needed."),
        ({"window": 0}, "--window is 0; 1 is the least that it can be."),
        ({"window": True}, "--window is true; a whole number is needed."),
        ({"window": None}, "--window is null; a whole number is needed."),
        ({"share": 1.5}, "--share is 1.5; it must lie between 0 and 1."),
        ({"share": 0.0}, "--share is 0.0; it must lie between 0 and 1."),
        ({"share": float("nan")}, "--share is NaN; it must lie between 0 and 1."),
        ({"fit": "stretch"}, "--fit is stretch; it can be 'crop' or 'pad'."),
        ({"kind": 2}, "--kind is 2; it can be 1 or 3: two is a crowd."),
        ({"seed": 1.5}, "--seed is 1.5; a whole number or a list of whole numbers is needed."),
        ({"seed": [1, 0]}, "--seed is [1, 0]; 1 is the least that it can be."),
        ({"loras": 3}, "--loras is 3; a section with fields is needed."),
        ({"tiled": "yes"}, "--tiled is yes; true or false is needed."),
        ({"texts": ["a", 2]}, '--texts is ["a", 2]; a list of texts is needed.'),
        ({"texts": [""]}, "a text is empty; leave it out."),
        ({"texts": ["a"] * 3}, '--texts is ["a", "a", "a"]; two are enough.'),
        ({"windw": 3, "window": 1}, "--windw is unknown; did you mean window?"),
        ({"windw": 3}, "--windw is unknown; did you mean window?"),
    ],
)
def test_a_value_that_is_refused(given: dict[str, Any], said: str):
    given = given if not given or given.keys() & {"window", "windw"} else {"window": 1, **given}
    with pytest.raises(ValidationError) as caught:
        Options.model_validate(given)
    assert str(in_one_sentence(caught.value, Options, given, "--{}".format)) == said


def test_types_in_words():
    assert needs(list[list[int]]) == "a list of lists of whole numbers"
    assert needs(list[dict[str, int]] | None) == "a list of sections with fields"
    assert needs(Path | Literal["crop", 3]) == "a path or 'crop' or 3"
    assert needs(tuple[float, ...]) == "a list of numbers"


def test_values_are_spelled_as_in_a_file_and_shortened():
    assert [spell(value) for value in ("a b", "", None, True, 1.0)] == ["a b", '""', "null", "true", "1.0"]
    assert spell("x" * 61) == "x" * 57 + "..."


def test_the_name_that_was_meant():
    assert nearest("windw", ["window", "seed"]) == "; did you mean window?"
    assert nearest("q", ["window", "seed"]) == "; known are window, seed."


def test_names_are_listed_as_a_sentence_has_them():
    assert [listed(names) for names in ("A", "AB", "ABC")] == ["A", "A and B", "A, B and C"]
