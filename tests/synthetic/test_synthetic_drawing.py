"""Scenes are drawn at any size, always the same, on a timeline without end."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.synthetic import (
    MOTIONS,
    Background,
    Motion,
    Scene,
    Thing,
    photo_background,
    render,
    sample_scene,
)
from animagic.synthetic.drawing import pose

SCENES = [sample_scene(np.random.default_rng(seed)) for seed in range(60)]


def one_of_each_motion() -> dict[str, Thing]:
    things: dict[str, Thing] = {}
    rng = np.random.default_rng(0)
    while len(things) <= len(MOTIONS):
        thing = sample_scene(rng).things[0]
        things.setdefault(thing.motion.name, thing)
    return things


def test_drawing_twice_gives_the_same_pixels():
    for scene in SCENES[:20]:
        np.testing.assert_array_equal(render(scene, 4), render(scene, 4))


def test_frames_continue_where_others_ended():
    for scene in SCENES:
        np.testing.assert_array_equal(render(scene, 12, start=10), render(scene, 22)[10:])


def test_half_the_frame_rate_shows_every_other_frame():
    for scene in SCENES[:10]:
        np.testing.assert_array_equal(render(scene, 5, fps=12), render(scene, 10)[::2])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 8), (37, 91), (120, 64), (65, 33)])
def test_any_size_is_filled(height, width):
    for scene in SCENES[:25]:
        frames = render(scene, 2, height, width)
        assert frames.shape == (2, height, width, 3)
        assert frames.dtype == np.uint8
        # Nothing is left black at the edges: the darkest background is night, whose blue is over 50.
        assert min(frames[:, [0, -1]].max(-1).min(), frames[:, :, [0, -1]].max(-1).min()) > 20


def test_a_larger_picture_shows_the_same():
    for scene in SCENES[:25]:
        if scene.background.kind == "photo":  # has finer grain when larger
            continue
        small, large = render(scene, 1)[0].astype(float), render(scene, 1, 128, 128)[0].astype(float)
        assert np.abs(large.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 3


@pytest.mark.parametrize("name", [*MOTIONS, "collides"])
def test_motions_are_smooth_and_keep_near_the_picture_for_ever(name):
    thing = one_of_each_motion()[name]
    poses = [pose(thing, time) for time in range(2000)]
    x, y = np.array([p.x for p in poses]), np.array([p.y for p in poses])
    assert max(np.abs(x - 32).max(), np.abs(y - 32).max()) < 32 + 30
    steps = np.hypot(np.diff(x), np.diff(y))
    assert np.quantile(steps, 0.95) < 3.2  # pixels a frame; now and then it comes back on the other side
    assert (steps[:48].max() > 0.3) == (name not in ("spins", "stays still", "grows", "shrinks"))


@pytest.mark.parametrize(
    ("name", "sign_x", "sign_y"), [("slides left", -1, 0), ("rolls right", 1, 0), ("rises", 0, -1), ("falls", 0, 1)]
)
def test_directions_are_what_they_are_called(name, sign_x, sign_y):
    thing = Thing("ball", "red", 20, Motion(name, 32, 40, rate=0.7))
    first, last = pose(thing, 0), pose(thing, 10)
    assert (last.x - first.x, last.y - first.y) == pytest.approx((7 * sign_x, 7 * sign_y))


def test_a_ball_rolls_without_slipping():
    thing = Thing("ball", "red", 20, Motion("rolls right", 12, 50, rate=0.7))
    first, last = pose(thing, 0), pose(thing, 10)
    assert (last.angle - first.angle) * 10 == pytest.approx(last.x - first.x)


def test_things_that_collide_touch_and_never_overlap():
    for seed in range(400):
        scene = sample_scene(np.random.default_rng(seed))
        if scene.things[0].motion.name == "collides":
            left, right = scene.things
            gaps = [pose(right, t).x - pose(left, t).x - (left.size + right.size) / 2 for t in np.arange(0, 120, 0.5)]
            assert -1e-6 < min(gaps) < 1


def test_a_pan_moves_the_world_the_other_way():
    still = Scene(Background("hills", seed=3), ())
    panned = Scene(still.background, (), "pan right", 0.5)
    before, after = render(panned, 21)[[0, 20]].astype(float)
    assert np.abs(before[:, 10:] - after[:, :-10]).mean() < 0.1  # but for rounding at soft edges
    assert np.abs(before - render(still, 1)[0]).mean() < 0.1


def test_photos_are_real_crops_of_any_size():
    first, again = (photo_background(np.random.default_rng(4), 30, 50) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (30, 50, 3)
    assert first.dtype == np.uint8
    assert first.std() > 5
    with pytest.raises(InputError, match="choose one of coffee"):
        photo_background(np.random.default_rng(0), 8, 8, "tea")
    with pytest.raises(InputError, match="at least 1"):
        photo_background(np.random.default_rng(0), 0, 8)


@pytest.mark.parametrize("wrong", [{"num_frames": 0}, {"height": 4}, {"width": 0}, {"fps": 0}])
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(InputError, match="at least 1 frame"):
        render(SCENES[0], **{"num_frames": 1, **wrong})


def test_an_unknown_background_is_refused():
    with pytest.raises(InputError, match="no background 'jungle'"):
        render(Scene(Background("jungle"), ()), 1)
