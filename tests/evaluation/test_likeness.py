"""The measures of one picture against another."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.evaluation.likeness import l1, likeness, published_l1, published_psnr, ssim

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (40, 48, 3), np.uint8)
DARKER = np.full((40, 48, 3), 100, np.uint8)
LIGHTER = np.full((40, 48, 3), 120, np.uint8)


def test_l1_is_the_mean_difference():
    assert l1(DARKER, LIGHTER) == pytest.approx(20 / 255)


def test_ssim_of_the_same_picture_is_one_and_of_another_near_none():
    assert ssim(PICTURE, PICTURE) == 1
    assert abs(ssim(PICTURE, RNG.integers(0, 256, PICTURE.shape, np.uint8))) < 0.1


def test_ssim_does_not_see_colour():
    reddish, greenish = (np.full((40, 48, 3), colour, np.uint8) for colour in ((100, 50, 0), (0, 101, 0)))
    assert ssim(reddish, greenish) == pytest.approx(1, abs=1e-3)


def test_published_l1_is_divided_by_the_pixels():
    assert published_l1(DARKER, LIGHTER) == pytest.approx(20 / (40 * 48))


@pytest.mark.parametrize(
    ("a", "b", "squares"),
    [
        (100, 90, 100),  # a difference of 10
        (90, 100, (246 * 246) % 256),  # of -10, which wraps round to 246
        (100, 120, (236 * 236) % 256),
        (120, 100, 400 % 256),
    ],
)
def test_published_psnr_wraps_round_at_256(a, b, squares):
    one, other = (np.full((4, 4, 3), value, np.uint8) for value in (a, b))
    assert published_psnr(one, other) == pytest.approx(20 * np.log10(255 / np.sqrt(squares)))


def test_published_psnr_hides_how_unlike_pictures_are():
    assert 27 < published_psnr(PICTURE, RNG.integers(0, 256, PICTURE.shape, np.uint8)) < 31
    assert published_psnr(PICTURE, PICTURE) == 100


def test_every_frame_has_every_measure():
    frames, truth = np.stack([PICTURE, DARKER, LIGHTER]), np.stack([PICTURE, LIGHTER, LIGHTER])
    found = likeness(frames, truth)
    assert set(found) == {"L1", "PSNR", "SSIM", "LPIPS", "L1 as published", "PSNR as published"}
    assert found["L1"] == pytest.approx([0, 20 / 255, 0])
    assert found["PSNR"] == pytest.approx([99, 20 * np.log10(255 / 20), 99])
