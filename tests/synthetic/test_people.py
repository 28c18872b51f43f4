from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

pytest.importorskip("skia")

import animagic.synthetic.people as people
from animagic import InputError
from animagic.poses import LANDMARKS, PARTS
from animagic.synthetic.people import (
    HELD_OUT_MOTIONS,
    MOTIONS,
    REGIONS,
    Movement,
    View,
    held_out_person,
    render_person,
    render_photo,
    sample_motion,
    sample_person,
    sample_view,
)
from animagic.synthetic.people.body import body_of
from animagic.synthetic.people.motion import seconds
from animagic.synthetic.people.render import posed
from animagic.synthetic.people.skeleton import JOINTS
from animagic.synthetic.scenes import Background

PLAIN = View(Background("plain", "mint"))


@pytest.fixture(scope="module")
def clip():
    return render_person(sample_person(3, look="body"), Movement("sway", "sway"), PLAIN, 3, 96, 96)


def test_shapes_and_types(clip):
    assert (clip.frames.shape, clip.frames.dtype) == ((3, 96, 96, 3), np.uint8)
    assert (clip.parts.shape, clip.parts.dtype) == ((3, 96, 96), np.uint8)
    assert (clip.regions.shape, clip.regions.dtype) == ((3, 96, 96), np.uint8)
    assert clip.poses.points.shape == (3, 1, 33, 3)
    assert clip.poses.confidence.shape == (3, 1, 33)


def test_a_seed_decides_everything(clip):
    again = render_person(sample_person(3, look="body"), Movement("sway", "sway"), PLAIN, 3, 96, 96)
    np.testing.assert_array_equal(again.frames, clip.frames)
    np.testing.assert_array_equal(again.parts, clip.parts)
    np.testing.assert_array_equal(again.poses.points, clip.poses.points)
    assert sample_view(4) == sample_view(np.random.default_rng(4))
    assert sample_motion(4) == sample_motion(4)


def test_held_out_people_and_motions_stay_apart():
    for seed in range(60):
        assert not held_out_person(sample_person(seed))
        assert held_out_person(sample_person(seed, held_out=True))
        assert not sample_motion(seed).held_out
        tested = sample_motion(seed, held_out=True)
        assert {tested.upper, tested.lower} <= set(HELD_OUT_MOTIONS)


def test_parts_and_regions_have_one_silhouette(clip):
    np.testing.assert_array_equal(clip.parts > 0, clip.regions > 0)
    assert clip.parts.max() <= 24
    assert clip.regions.max() < len(REGIONS)


def test_the_background_stands_still(clip):
    seen = np.uint8(clip.regions > 0).max(0)
    near = np.array(Image.fromarray(seen).filter(ImageFilter.MaxFilter(5)))
    far = near == 0
    np.testing.assert_array_equal(clip.frames[0][far], clip.frames[2][far])


def test_wrong_sizes_are_named():
    with pytest.raises(InputError, match="0 frames of 96 x 8"):
        render_person(sample_person(0), Movement("walk", "walk"), PLAIN, 0, 96, 8)


def test_what_ships_is_small():
    folder = Path(people.__file__).parent
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) < 4e6


def seen_parts(clip, frame=0):
    return {PARTS[number] for number in np.unique(clip.parts[frame])}


def mean_place(clip, part):
    y, x = np.nonzero(clip.parts[0] == PARTS.index(part))
    return np.array([x.mean(), y.mean()])


@pytest.fixture(scope="module", params=["body", "drawing"])
def spread(request):
    """A person who faces the camera with arms to the sides, in both looks."""
    movement = Movement("arms_up", "arms_up", phase=0.5)
    return render_person(sample_person(5, look=request.param), movement, PLAIN, 1, 128, 128)


class TestLandmarks:
    def place(self, clip, name):
        return clip.poses.points[0, 0, LANDMARKS.index(name), :2]

    @pytest.mark.parametrize("pair", ["eye", "ear", "shoulder", "elbow", "wrist", "index", "hip", "knee", "ankle"])
    def test_the_persons_left_is_on_the_right_of_the_picture(self, spread, pair):
        assert self.place(spread, f"left_{pair}")[0] > self.place(spread, f"right_{pair}")[0] + 1

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_hands_and_feet_lie_in_their_parts(self, spread, side):
        fingers = (self.place(spread, f"{side}_index") + self.place(spread, f"{side}_wrist")) / 2
        assert np.linalg.norm(fingers - mean_place(spread, f"{side}_hand")) < 4
        foot = (self.place(spread, f"{side}_heel") + self.place(spread, f"{side}_foot_index")) / 2
        assert np.linalg.norm(foot - mean_place(spread, f"{side}_foot")) < 6

    def test_all_are_seen_from_the_front(self, spread):
        assert (spread.poses.confidence == 1).mean() > 0.9

    def test_they_are_in_proportion_to_the_picture(self, spread):
        movement = Movement("arms_up", "arms_up", phase=0.5)
        small = render_person(spread.person, movement, PLAIN, 1, 64, 64)
        np.testing.assert_allclose(small.poses.points * 2, spread.poses.points, atol=1e-3)

    def test_outside_the_picture_nothing_is_seen(self, spread):
        near = replace(PLAIN, framing="half", zoom=1.6)
        clip = render_person(spread.person, Movement("sway", "sway"), near, 1, 96, 96)
        assert clip.poses.confidence[0, 0, LANDMARKS.index("left_ankle")] == 0

    def test_the_face_is_hidden_from_behind(self, spread):
        behind = render_person(spread.person, Movement("sway", "sway", heading=180), PLAIN, 1, 96, 96)
        assert behind.poses.confidence[0, 0, LANDMARKS.index("nose")] < 0.5
        assert "torso_back" in seen_parts(behind)
        assert "torso_front" not in seen_parts(behind)


def test_nearer_is_less_deep():
    aside = render_person(sample_person(5), Movement("sway", "sway", heading=90), PLAIN, 1, 96, 96)
    depth = aside.poses.points[0, 0, :, 2]  # turned to their left: the right side is towards the camera
    assert depth[LANDMARKS.index("right_shoulder")] < depth[LANDMARKS.index("left_shoulder")]


def test_a_mirrored_movement_is_the_other_hands():
    raised = {}
    for mirrored in (False, True):
        clip = render_person(sample_person(1), Movement("wave", "wave", mirrored=mirrored), PLAIN, 1, 96, 96)
        heights = clip.poses.points[0, 0, :, 1]
        left, right = (heights[LANDMARKS.index(f"{side}_wrist")] for side in ("left", "right"))
        raised[mirrored] = "left" if left < right else "right"
    assert raised == {False: "left", True: "right"}


@pytest.mark.parametrize("name", MOTIONS)
def test_a_motion_repeats_and_keeps_to_the_floor(name):
    body = body_of(sample_person(2, look="body"))
    times = np.linspace(0, seconds(name), 9)[:-1]
    once, again = (posed(body, Movement(name, name), times + shift) for shift in (0, seconds(name)))
    np.testing.assert_allclose(once.landmarks, again.landmarks, atol=1e-6)
    lowest = posed(body, Movement(name, name), np.linspace(0, seconds(name), 30)).landmarks[..., 1].min(1)
    assert abs(lowest.min()) < 0.1
    assert lowest.max() < 1.1


def test_upper_and_lower_half_may_come_from_two_motions():
    body, times = body_of(sample_person(2, look="body")), np.zeros(1)
    mixed, walk, wave = (
        posed(body, Movement(*names), times) for names in (("wave", "walk"), ("walk",) * 2, ("wave",) * 2)
    )
    knee, elbow = JOINTS.index("left_knee"), JOINTS.index("left_elbow")
    np.testing.assert_allclose(mixed.turns[:, knee], walk.turns[:, knee])
    assert np.abs(mixed.turns[:, elbow] - wave.turns[:, elbow]).max() < 0.6  # the pelvis is the walker's


@pytest.mark.parametrize("look", ["body", "drawing"])
def test_a_material_has_the_colour_that_the_person_names(look):
    person = sample_person(8, look=look)
    clip = render_person(person, Movement("sway", "sway"), PLAIN, 1, 128, 128)
    for name in ("shirt", "trousers"):
        inside = np.array(
            Image.fromarray(np.uint8(clip.regions[0] == REGIONS.index(name))).filter(ImageFilter.MinFilter(5))
        )
        found = np.median(clip.frames[0][inside > 0], 0)
        ratio = (found + 4) / (np.array(person.colours[name]) + 4)
        assert ratio.max() / ratio.min() < 1.15  # the light changes all three channels alike
        assert 0.5 < ratio.mean() < 1.2


def test_hair_styles_and_clothes_change_what_is_seen():
    person = sample_person(0, look="body")
    counts = {}
    for style, bottoms in (("bald", "trousers"), ("afro", "shorts")):
        dressed = replace(person, hair_style=style, bottoms=bottoms)
        regions = render_person(dressed, Movement("sway", "sway"), PLAIN, 1, 96, 96).regions
        counts[style] = [(regions == REGIONS.index(name)).sum() for name in ("hair", "trousers")]
    assert counts["afro"][0] > 3 * counts["bald"][0]
    assert counts["afro"][1] < counts["bald"][1]


def test_a_photo_shows_the_person_before_the_same_background():
    person, view = sample_person(3), sample_view(3, "full")
    photo = render_photo(person, view, 64, 64, 1)
    clip = render_person(person, sample_motion(2), view, 2, 64, 64)
    assert photo.person == clip.person
    np.testing.assert_array_equal(photo.frames[0, :2, :2], clip.frames[0, :2, :2])


def test_half_and_full_framings_and_odd_sizes():
    for framing in ("full", "half"):
        clip = render_person(sample_person(6), sample_motion(6), sample_view(6, framing), 1, 61, 117)
        assert clip.frames.shape == (1, 61, 117, 3)
        assert (clip.parts > 0).any()
