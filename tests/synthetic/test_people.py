from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

pytest.importorskip("skia")

import animagic.synthetic.people as people
from animagic import InputError
from animagic.synthetic.people import (
    HELD_OUT_MOTIONS,
    REGIONS,
    Movement,
    View,
    held_out_person,
    render_person,
    sample_motion,
    sample_person,
    sample_view,
)
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
