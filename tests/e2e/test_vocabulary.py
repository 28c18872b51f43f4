"""What a model can be asked for: printed, and told to who asks for something else."""

import json
import shutil

import numpy as np
import pytest
from talking_models import talking_pipeline

from animagic import zoo
from animagic.media import write_image
from animagic.requests import build_request
from animagic.requests.request import hint


@pytest.fixture(params=["tiny_model", "animatediff_model"])
def model(request, tmp_path):
    """A random model of each system, with the words of the drawing studio."""
    folder = shutil.copytree(request.getfixturevalue(request.param), tmp_path / "model")
    shutil.copy(zoo.entry("magi1-tiny").folder / "vocabulary.json", folder)
    return folder


@pytest.fixture
def make(run, model):
    """Runs `animagic generate PROMPT WORDS` with that model; returns its hints."""

    def make(prompt, *words):
        ran = run("generate", prompt, "--model", model, "--seed", 7, "--frames", 16, "-o", "a.mp4", *words)
        assert ran.code == 0, ran
        return [line for line in ran.err.splitlines() if line.startswith("hint: ")]

    return make


def test_a_vocabulary_is_printed(run):
    ran = run("models", "--vocabulary", "magi1-tiny")
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert {"THINGS", "square box, block, cube", "PROMPTS"} < set(lines)
    assert any(line.startswith("a red ball bounces on a green floor") for line in lines)
    found = json.loads(run("models", "--vocabulary", "magi1-tiny", "--json").out)
    assert found == zoo.vocabulary("magi1-tiny")
    assert found["things"]["square"] == ["square", "box", "block", "cube"]
    assert json.loads(run("models", "--vocabulary", "magi1-tiny-distilled", "--json").out) == found


def test_a_model_without_a_vocabulary_says_so(run, tiny_model):
    run("models", "--vocabulary", tiny_model).refused("has no vocabulary")
    run("models", "--vocabulary", "magi1-tni").refused("did you mean magi1-tiny")


def test_a_hint_is_given_and_changes_nothing(make, model, frames_of):
    (hint,) = make("a dragon flies over a castle")
    assert 'in "a dragon flies over a castle" that' in hint
    assert "it knows ball, square, triangle, star" in hint
    assert f"animagic models --vocabulary {model}" in hint
    told = frames_of("a.mp4")
    (model / "vocabulary.json").unlink()
    assert make("a dragon flies over a castle") == []
    np.testing.assert_array_equal(frames_of("a.mp4"), told)


def test_known_prompts_get_none(make):
    assert make("Crimson spheres are bouncing", "--prompt-at", "1:it falls") == []


def test_one_hint_is_given_for_all_prompts(make):
    (hint,) = make("a sqare falls", "--prompt-at", "1:the castle burns", "--json")
    assert 'in "a sqare falls" and "the castle burns" that' in hint
    assert "(did you mean square?)" in hint


def test_quiet_gives_none(make):
    assert make("a dragon", "--quiet") == []


def test_a_picture_says_what_is_seen(make, make_moving_clip):
    write_image("photo.png", make_moving_clip(1)[0])
    assert make("it falls", "--image", "photo.png") == []
    assert len(make("it burns", "--image", "photo.png")) == 1


@pytest.mark.parametrize(("lora", "told"), [("ink", True), ("ink.safetensors", False), ("me/my-dog", False)])
def test_a_lora_of_ones_own_may_know_more(model, lora, told):
    (model / "loras").mkdir()
    (model / "loras" / "ink.safetensors").touch()
    request = build_request("a photo of my dog", str(model), loras={lora: 1.0})
    assert (hint(request) is not None) == told


def test_no_prompt_is_no_strange_one(model, tmp_path):
    talker = tmp_path / "talker"
    talking_pipeline().save_pretrained(talker)
    shutil.copy(model / "vocabulary.json", talker)
    for prompt, told in (("", False), ("a dragon", True)):
        request = build_request(prompt, str(talker), image="face.png", say=("hello",))
        assert (hint(request) is not None) == told
