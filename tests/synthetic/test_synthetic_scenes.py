"""Scenes are sampled within their split, and are told in thousands of ways."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.synthetic import (
    COLOURS,
    MOTIONS,
    SHAPES,
    Background,
    Motion,
    Scene,
    Thing,
    canonical_caption,
    caption,
    facts,
    held_out,
    sample_scene,
)
from animagic.synthetic.captions import MOTION_WORDS, PHOTO_WORDS, VIEW_WORDS
from animagic.synthetic.scenes import PHOTOS, VIEWS, background_colours, colour_distance


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {
        split: [sample_scene(np.random.default_rng([i, 7]), split) for i in range(3000)] for split in ("train", "test")
    }


def test_importing_draws_in_neither_skia_nor_scikit_image():
    code = "import sys, animagic.synthetic; print([m for m in ('skia', 'skimage', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_held_out_combinations_occur_in_the_test_split_only(scenes):
    for split, sampled in scenes.items():
        looks = {(t.shape, t.colour, t.motion.name) for scene in sampled for t in scene.things}
        assert {held_out(*look) for look in looks} == {split == "test"}
    share = np.mean([held_out(s, c, m) for s in SHAPES for c in COLOURS for m in MOTIONS])
    assert 0.06 < share < 0.1


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_splits_show_every_colour_shape_and_motion(scenes, split):
    seen = [facts(scene) for scene in scenes[split]]
    assert {f["colour"] for f in seen} == set(COLOURS)
    assert {f["shape"] for f in seen} == set(SHAPES)
    assert {f["motion"] for f in seen} == {*MOTIONS, "collides"}


def test_most_scenes_hold_one_thing(scenes):
    kinds = Counter(
        "pan" if s.camera != "still" else "collide" if s.things[0].motion.name == "collides" else str(len(s.things))
        for s in scenes["train"]
    )
    shares = {kind: count / len(scenes["train"]) for kind, count in kinds.items()}
    assert shares == pytest.approx({"1": 0.75, "2": 0.15, "collide": 0.05, "pan": 0.05}, abs=0.03)


def test_things_stand_out_from_the_background_and_from_each_other(scenes):
    for scene in scenes["train"]:
        colours = [thing.colour for thing in scene.things]
        assert len(set(colours)) == len(colours)
        assert all(
            colour_distance(COLOURS[c], fill) > 150 for c in colours for fill in background_colours(scene.background)
        )


def test_the_same_seed_gives_the_same_scene_and_caption():
    def draw():
        rng = np.random.default_rng(5)
        scene = sample_scene(rng)
        return scene, caption(scene, rng)

    assert draw() == draw()


def test_another_split_is_refused():
    with pytest.raises(InputError, match="'train' or 'test'"):
        sample_scene(np.random.default_rng(0), "validation")  # type: ignore[arg-type]


def test_the_plain_caption_says_it_plainly():
    ball = Thing("ball", "red", 22, Motion("bounces", 32, 55))
    star = Thing("star", "orange", 20, Motion("spins", 32, 30))
    assert canonical_caption(Scene(Background("floor", "green"), (ball,))) == "a red ball bounces on a green floor"
    assert (
        canonical_caption(Scene(Background("night"), (star, ball), "pan left", 0.5))
        == "an orange star spins and a red ball bounces at night, the camera pans left"
    )


def test_there_are_thousands_of_captions(scenes):
    rng = np.random.default_rng(0)
    captions = [caption(scene, rng) for scene in scenes["train"]]
    assert len(set(captions)) > 2500
    same = np.mean([text == canonical_caption(s) for text, s in zip(captions, scenes["train"], strict=True)])
    assert 0.3 < same < 0.45  # the plain wording, less those that leave the background out

    one = scenes["train"][0]
    assert len({caption(one, rng) for _ in range(2000)}) > 200


def test_everything_that_can_be_sampled_has_words():
    assert set(MOTION_WORDS) == {*MOTIONS, "collides"}
    assert set(VIEW_WORDS) == set(VIEWS)
    assert set(PHOTO_WORDS) == set(PHOTOS)
