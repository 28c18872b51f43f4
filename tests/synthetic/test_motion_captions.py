"""What is said of the motion alone: what the text of the motion modules is trained on."""

import itertools

import numpy as np
import pytest

from animagic.synthetic import Scene, motion_caption, picture_caption, sample_scene
from animagic.synthetic.captions import COLOUR_WORDS, MOTION_WORDS, SHAPE_WORDS

FORMS = {name: set(itertools.chain(*words)) for name, words in MOTION_WORDS.items()}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(np.random.default_rng([i, 3]), "train") for i in range(400)]


def says(scene: Scene, seed: int = 0) -> str:
    return motion_caption(scene, np.random.default_rng(seed))


def test_every_motion_is_told_once_and_nothing_else(scenes):
    for i, scene in enumerate(scenes):
        motions, _, camera = says(scene, i).partition(", the camera pans ")
        names = list(dict.fromkeys(thing.motion.name for thing in scene.things))
        parts = motions.split(" and ")
        # A wording may hold an "and" itself, as "bounces up and down" does.
        told = {" and ".join(parts[a:b]) for a, b in itertools.combinations(range(len(parts) + 1), 2)}
        assert all(FORMS[name] & told for name in names), (motions, names)
        assert camera == (scene.camera.split()[1] if scene.camera != "still" else "")


def test_things_are_not_told(scenes):
    known = {word for words in (*COLOUR_WORDS.values(), *SHAPE_WORDS.values()) for word in words}
    for i, scene in enumerate(scenes):
        assert not known & set(says(scene, i).split())


def test_the_seed_decides_and_there_are_many_wordings(scenes):
    slide = next(s for s in scenes if s.things[0].motion.name == "slides left" and len(s.things) == 1)
    assert says(slide, 5) == says(slide, 5)
    wordings = {says(slide, seed).partition(",")[0] for seed in range(300)}
    assert wordings == FORMS["slides left"]


def test_with_what_is_said_of_the_picture_it_tells_all(scenes):
    """Neither tells what the other does."""
    for i, scene in enumerate(scenes[:100]):
        picture = picture_caption(scene, np.random.default_rng(i))
        assert not any(form in picture for name in {t.motion.name for t in scene.things} for form in FORMS[name])
