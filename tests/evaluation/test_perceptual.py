"""LPIPS and the features of its network, on pictures that are made on the spot."""

from __future__ import annotations

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.evaluation.perceptual import alexnet_features, lpips


def slopes() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:64, :64]
    one, other = (x * 4, y * 4, (x + y) * 2), (y * 4, x * 4, 255 - (x + y) * 2)
    return np.stack(one, -1).astype(np.uint8)[None], np.stack(other, -1).astype(np.uint8)[None]


def test_a_distance_is_that_of_the_published_package():
    """0.55356 is what lpips 0.1.4 gives with float32 weights; these here are float16."""
    assert lpips(*slopes()) == pytest.approx([0.55356], abs=2e-4)


def test_the_same_picture_has_no_distance():
    assert lpips(slopes()[0], slopes()[0]).tolist() == [0.0]


def test_more_noise_is_farther():
    rng, (picture, _) = np.random.default_rng(0), slopes()
    noise = rng.normal(size=picture.shape)
    far = [lpips(picture, (picture + strength * noise).clip(0, 255).astype(np.uint8))[0] for strength in (5, 20, 60)]
    assert far == sorted(far)


def test_every_frame_has_its_own_distance():
    one, other = slopes()
    many = np.concatenate([one] * 17 + [other])  # more than go through the network together
    distances = lpips(np.repeat(one, 18, 0), many)
    assert distances[:17] == pytest.approx(np.zeros(17), abs=1e-6)
    assert distances[17] > 0.5


def test_features_are_640_means():
    assert alexnet_features(np.concatenate(slopes())).shape == (2, 640)


@pytest.mark.parametrize("call", [lambda frames: lpips(frames, frames), alexnet_features])
def test_a_picture_that_is_too_small_is_refused(call):
    with pytest.raises(InputError, match="at least 32x32 pixels, not 40x31"):
        call(np.zeros((1, 31, 40, 3), np.uint8))
