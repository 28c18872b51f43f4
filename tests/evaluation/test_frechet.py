"""Frechet distances, and the backbones that a user gives for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from animagic.errors import InputError
from animagic.evaluation.frechet import Backbone, frechet_distance
from animagic.evaluation.perceptual import alexnet_features

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 16, 40, 48, 3), np.uint8)


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.amin((1, 2, 3, 4)), x.amax((1, 2, 3, 4)), torch.full((len(x),), float(x.shape[-1]))], 1)


class LikeI3D(nn.Module):
    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
        assert (rescale, resize, return_features) == (True, True, True)
        return torch.stack([x.amin((1, 2, 3, 4)), x.amax((1, 2, 3, 4)), torch.full((len(x),), float(x.shape[-1]))], 1)


class Wrong(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def saved(module: nn.Module, folder) -> str:
    torch.jit.script(module).save(str(folder / "net.pt"))
    return str(folder / "net.pt")


@pytest.mark.parametrize("counts", [(300, 200), (9, 300), (5, 4)])  # more and fewer samples than dimensions
def test_it_is_the_distance_of_two_normal_distributions(counts):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(counts[0], 8)), rng.normal(size=(counts[1], 8)) @ rng.normal(size=(8, 8)) + 1
    one, other = np.cov(a.T), np.cov(b.T)
    spread = np.trace(one + other - 2 * sqrtm(one @ other).real)
    assert frechet_distance(a, b) == pytest.approx(np.square(a.mean(0) - b.mean(0)).sum() + spread, rel=1e-4)


def test_a_set_has_no_distance_from_itself():
    a = np.random.default_rng(2).normal(size=(50, 8))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_alexnet_tells_a_worse_set_from_a_better_one():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:64, :64]
    discs = np.stack([np.where((x - 20 - i) ** 2 + (y - 32) ** 2 < 150, 220, 60) for i in range(20)])
    frames = np.repeat(discs[..., None], 3, -1).astype(np.uint8)
    noisy = [(frames + rng.normal(0, size, frames.shape)).clip(0, 255).astype(np.uint8) for size in (10, 60)]
    near, far = (frechet_distance(alexnet_features(frames), alexnet_features(one)) for one in noisy)
    half = frechet_distance(alexnet_features(frames), alexnet_features(frames[::2]))
    assert half < near < far


@pytest.mark.parametrize(("a", "b"), [((1, 4), (5, 4)), ((5, 4), (5, 3))])
def test_too_few_samples_or_other_dimensions_are_refused(a, b):
    with pytest.raises(InputError, match="at least two samples of as many dimensions"):
        frechet_distance(np.zeros(a), np.zeros(b))


def test_a_backbone_gets_224_pixels_from_minus_one_to_one(tmp_path):
    low, high, side = Backbone.load(saved(Plain(), tmp_path)).features(CLIPS).T
    assert side.tolist() == [224, 224]
    assert (low.min(), high.max()) == (-1, 1)


def test_one_like_i3d_gets_bytes_and_resizes_itself(tmp_path):
    low, high, side = Backbone.load(saved(LikeI3D(), tmp_path)).features(CLIPS).T
    assert side.tolist() == [48, 48]
    assert (low.min(), high.max()) == (0, 255)


def test_a_backbone_that_returns_something_else_is_named(tmp_path):
    with pytest.raises(InputError, match=r"net.pt must return \(clips, dimensions\), not \[2, 3, 224\]"):
        Backbone.load(saved(Wrong(), tmp_path)).features(CLIPS)


def test_a_backbone_that_cannot_read_clips_is_named(tmp_path):
    with pytest.raises(InputError, match=r"net.pt cannot read \[2, 3, 16, 224, 224\]: .*"):
        Backbone.load(saved(nn.Conv3d(4, 1, 1), tmp_path)).features(CLIPS)


def test_a_file_that_is_no_backbone_is_named(tmp_path):
    (tmp_path / "no.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no\.pt is no TorchScript file"):
        Backbone.load(tmp_path / "no.pt")
    with pytest.raises(InputError, match=r"there is no backbone .*other\.pt"):
        Backbone.load(tmp_path / "other.pt")
