import numpy as np
import pytest

from animagic import InputError
from animagic.synthetic.styles import STYLES, apply_style


@pytest.fixture
def clip():
    """A red disc that moves to the right before light grey: uint8 (4, 64, 64, 3)."""
    y, x = np.mgrid[:64, :64]
    frames = np.full((4, 64, 64, 3), (200, 204, 208), np.uint8)
    for i in range(4):
        frames[i][(y - 32) ** 2 + (x - 20 - 4 * i) ** 2 < 100] = (220, 40, 48)
    return frames


@pytest.mark.parametrize("style", STYLES)
class TestEveryStyle:
    def test_shape_and_type_stay(self, style, clip):
        drawn = apply_style(style, clip)
        assert drawn.shape == clip.shape
        assert drawn.dtype == np.uint8

    def test_the_seed_decides_and_the_clip_is_left_alone(self, style, clip):
        before = clip.copy()
        np.testing.assert_array_equal(apply_style(style, clip, 3), apply_style(style, clip, 3))
        assert (apply_style(style, clip, 3) != apply_style(style, clip, 4)).any()
        np.testing.assert_array_equal(clip, before)

    def test_what_does_not_move_does_not_flicker(self, style, clip):
        drawn = apply_style(style, clip)
        np.testing.assert_array_equal(drawn[:, :, 52:], drawn[:1, :, 52:].repeat(4, 0))
        assert (drawn[0] != drawn[3]).any()

    def test_a_frame_is_drawn_as_it_is_in_a_clip(self, style, clip):
        np.testing.assert_array_equal(apply_style(style, clip[2:3], 5)[0], apply_style(style, clip, 5)[2])

    @pytest.mark.parametrize("size", [(8, 8), (48, 96), (130, 70)])
    def test_any_size(self, style, size):
        assert apply_style(style, np.zeros((1, *size, 3), np.uint8)).shape == (1, *size, 3)


def test_blueprint_is_blue_with_pale_contours(clip):
    frame = apply_style("blueprint", clip)[0].astype(int)
    assert (frame[..., 2] > frame[..., 0] + 20).mean() > 0.9
    assert frame[:, :, 0].max() > 200
    inside, outline = frame[28:36, 16:24, 0].mean(), frame[30:34, 9:13, 0].max()
    assert outline > inside + 100


def test_watercolour_keeps_the_hue_and_leaves_a_margin(clip):
    frame = apply_style("watercolour", clip)[0].astype(int)
    red, green, blue = frame[28:36, 16:24].reshape(-1, 3).mean(0)
    assert red > 200
    assert max(green, blue) < 150
    edge = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
    assert edge.min() > 200  # bare paper
    assert frame.std() > 10


def test_unknown_style(clip):
    with pytest.raises(InputError, match="no style 'oil'; choose blueprint or watercolour"):
        apply_style("oil", clip)


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 4), np.uint8)]
)
def test_wrong_frames(frames):
    with pytest.raises(InputError, match="a style needs uint8"):
        apply_style("blueprint", frames)


def test_the_names_of_earlier_versions():
    from animagic.synthetic.looks import LOOKS, apply_look

    assert (LOOKS, apply_look) == (STYLES, apply_style)
