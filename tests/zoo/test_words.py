"""What a model knows is data: which words, and which prompts have none of them."""

import json
import shutil

import pytest

from animagic import CheckpointError, InputError, zoo
from animagic.zoo.words import advice, knows, stems

WORDS = {
    "things": {"ball": ["ball", "sphere"], "boat": ["boat", "ship"]},
    "motions": {"falls": ["falls", "drops down"], "swings": ["swings"], "flies": ["flies up"]},
    "places": {"room": ["in a room"]},
    "prompts": {"a castle burns": ["a castle burns"], "a ball falls": []},
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bounces", "bouncing"), ("bounced", "bounce"), ("hops", "hopping"), ("flies", "flying"), ("boxes", "box"),
        ("goes", "going"), ("spheres", "sphere"), ("swing", "swinging"), ("Stays", "staying"), ("moves", "moved"),
    ],
)  # fmt: skip
def test_endings_do_not_matter(one, other):
    assert stems(one) == stems(other)
    assert len(stems(one)) == 1


@pytest.mark.parametrize(("one", "other"), [("ring", "red"), ("string", "strung"), ("red", "re"), ("ball", "bowl")])
def test_words_remain_different(one, other):
    assert stems(one) != stems(other)


@pytest.mark.parametrize("prompt", ["The SHIP!", "two balls", "a ball-like thing", "in the rain, spheres"])
def test_a_known_thing_is_found_in_any_form(prompt):
    assert knows(WORDS["things"], prompt)


def test_all_words_of_a_wording_are_needed_in_any_order():
    assert knows(WORDS["motions"], "down it drops")
    assert not knows(WORDS["motions"], "it drops")
    assert not knows({}, "a ball")


@pytest.mark.parametrize(
    "prompts", [["a ball falls"], ["two ships in the fog"], ["a ball", "it is falling", "now in a room"]]
)
def test_nothing_is_said_of_prompts_that_it_knows(prompts):
    assert advice("tiny", WORDS, prompts) is None


def test_a_prompt_without_a_known_thing_is_told_what_there_is():
    assert advice("tiny", WORDS, ["a dragon\nflies up"]) == (
        'hint: there is nothing in "a dragon flies up" that tiny was trained to draw; it knows ball, boat: '
        'try "a castle burns" (all words: animagic models --vocabulary tiny).'
    )
    assert advice("tiny", {"things": {}}, ["a dragon"]).count("\n") == 0
    assert "a castle burns" in advice("tiny", WORDS, ["a castle burns"]), "an example is no word"


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [("a sper falls", "sphere"), ("a bll", "ball"), ("a goat", None), ("the shpi and the bll", "ball")],
)
def test_the_nearest_known_word_is_suggested(prompt, meant):
    said = advice("tiny", WORDS, [prompt])
    assert ("did you mean" in said) == (meant is not None)
    assert meant is None or f"(did you mean {meant}?)" in said


def test_every_prompt_of_a_video_counts_and_there_is_one_hint():
    said = advice("tiny", WORDS, ["a dragon sleeps", "it falls", "a castle"])
    assert 'in "a dragon sleeps" and "a castle" that' in said
    assert said.count("hint") == 1


def test_where_a_picture_is_given_any_known_word_will_do():
    assert advice("tiny", WORDS, ["it falls"], needs_thing=False) is None
    assert '"it falls"' in advice("tiny", WORDS, ["it falls"])
    assert '"it burns"' in advice("tiny", WORDS, ["it burns"], needs_thing=False)


# Of a model


def test_a_model_has_the_words_of_its_folder_or_of_its_base(tiny_model, tmp_path, monkeypatch):
    assert zoo.vocabulary(tiny_model) is None
    assert zoo.vocabulary("owner/name") is None
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    assert zoo.vocabulary(folder) == WORDS
    monkeypatch.setattr(zoo, "_MODELS", {})
    zoo.register("whole", folder, "")
    zoo.register("part", tiny_model, "", base="whole")
    assert zoo.vocabulary("part") == WORDS
    with pytest.raises(InputError, match="there is no model 'none'"):
        zoo.vocabulary("none")


@pytest.mark.parametrize("content", ["", "[]", '{"things": ["ball"]}', '{"things": {"ball": "sphere"}}', "\xff"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "vocabulary.json").write_text(content, "latin-1")
    with pytest.raises(CheckpointError, match=r"vocabulary\.json cannot be read: it must hold groups of words"):
        zoo.vocabulary(tmp_path)


@pytest.mark.parametrize("name", [name for name in zoo.names() if "things" in (zoo.vocabulary(name) or ())])
def test_the_embedded_models_know_their_examples(name):
    words = zoo.vocabulary(name)
    assert {"colours", "things", "motions", "backgrounds", "camera"} < set(words)
    examples = [prompt for plain, others in words["prompts"].items() for prompt in (plain, *others)]
    assert len(examples) > 2
    for prompt in examples:
        assert advice(name, words, [prompt]) is None
        assert all(knows(words[group], prompt) for group in ("colours", "things", "motions", "backgrounds"))
