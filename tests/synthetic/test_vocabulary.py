"""The vocabulary has every word of the captions, in the form that the hints for prompts are made from."""

import numpy as np
import pytest

from animagic.synthetic import caption, facts, held_out, motion_caption, picture_caption, sample_scene, vocabulary
from animagic.synthetic.captions import EXAMPLES
from animagic.synthetic.scenes import contrasting_colours
from animagic.zoo.words import advice, knows


@pytest.fixture(scope="module")
def words():
    return vocabulary()


def test_every_caption_is_known(words):
    for i in range(400):
        rng = np.random.default_rng(i)
        scene = sample_scene(rng)
        for text in (caption(scene, rng), picture_caption(scene, rng)):
            assert advice("x", words, [text]) is None, text
            assert knows(words["colours"], text)
        said = motion_caption(scene, rng)
        assert knows({scene.things[0].motion.name: words["motions"][scene.things[0].motion.name]}, said), said


def test_what_is_seen_has_a_word(words):
    seen = [facts(sample_scene(np.random.default_rng(i))) for i in range(1500)]
    for group, fact in {"colours": "colour", "things": "shape", "motions": "motion"}.items():
        assert set(words[group]) == {one[fact] for one in seen}
    assert set(words["camera"]) == {one["camera"] for one in seen} - {"still"}
    photos = [one for one in words["backgrounds"] if one.startswith("photo of ")]
    seen_photos = {one["background"] for one in seen if one["background"].startswith("photo of ")}
    assert len(photos) == len(seen_photos) > 5
    assert set(words["backgrounds"]) - set(photos) == {one["background"] for one in seen} - seen_photos


def test_examples_are_scenes_that_occur_in_training():
    for scene in EXAMPLES:
        (thing,) = scene.things
        assert not held_out(thing.shape, thing.colour, thing.motion.name)
        assert thing.colour in contrasting_colours(scene.background)
