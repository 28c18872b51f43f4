"""FreeNoise and FreeInit, beside diffusers' own."""

import itertools

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.free_init_utils import FreeInitMixin
from diffusers.pipelines.free_noise_utils import AnimateDiffFreeNoiseMixin

from animagic.errors import InputError
from animagic.timeline import FreeInit, free_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


def origins(noise: torch.Tensor, size: int) -> list[int]:
    """Which of the first `size` frames each frame is."""
    same = (noise[:, :, :, None] == noise[:, :, None, :size]).all(dim=(-1, -2)).all(dim=1).all(dim=0)
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1).tolist()


# FreeNoise


@pytest.mark.parametrize(("size", "stride"), [(8, 4), (8, 8), (6, 4), (5, 1)])
@pytest.mark.parametrize("frames", [9, 16, 27])
def test_the_order_is_that_of_diffusers(frames, size, stride, monkeypatch):
    monkeypatch.setattr(torch, "randperm", lambda n, generator=None: torch.arange(n).roll(1 + n // 3))
    theirs = AnimateDiffFreeNoiseMixin()
    theirs._free_noise_context_length, theirs._free_noise_context_stride = size, stride
    theirs._free_noise_noise_type, theirs.vae_scale_factor = "shuffle_context", 1
    expected = theirs._prepare_latents_free_noise(1, 2, frames, 3, 3, torch.float32, torch.device("cpu"), seeded())
    got = free_noise((1, 2, frames, 3, 3), seeded(), size, stride)
    assert origins(got, size) == origins(expected, size)


def test_every_window_holds_every_frame_of_the_first():
    noise = free_noise((2, 3, 50, 4, 4), seeded(), size=16, stride=4)
    order = origins(noise, 16)
    assert noise.shape == (2, 3, 50, 4, 4)
    for start in range(0, 50 - 16, 4):
        assert sorted(order[start : start + 16]) == list(range(16))
    assert order[16:32] != list(range(16))  # shuffled,
    assert all(abs(frame - i % 16) < 4 for i, frame in enumerate(order))  # but only locally


def test_a_longer_clip_begins_like_a_shorter_one_and_a_short_one_is_plain():
    assert torch.equal(
        free_noise((1, 2, 40, 3, 3), seeded())[:, :, :23],
        free_noise((1, 2, 23, 3, 3), seeded()),
    )
    for frames in (1, 7, 16):
        assert torch.equal(free_noise((1, 2, frames, 3, 3), seeded()), randn(1, 2, frames, 3, 3))


def test_a_generator_for_each_video():
    both = free_noise((2, 2, 30, 3, 3), [seeded(1), seeded(2)])
    assert torch.equal(both[:1], free_noise((1, 2, 30, 3, 3), [seeded(1)]))
    assert not torch.equal(both[:1], both[1:])


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_beyond_the_window_is_refused(stride):
    with pytest.raises(InputError, match=f"1 to 16, the frames of a window, not {stride}"):
        free_noise((1, 2, 30, 3, 3), seeded(), stride=stride)


# FreeInit


@pytest.mark.parametrize("method", ["butterworth", "gaussian", "ideal"])
@pytest.mark.parametrize(("order", "spatial", "temporal"), [(4, 0.25, 0.25), (2, 0.5, 0.25), (4, 0.4, 1.0)])
def test_the_mixture_is_that_of_diffusers(method, order, spatial, temporal):
    theirs = FreeInitMixin()
    theirs.enable_free_init(3, False, method, order, spatial, temporal)
    theirs.scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012)
    noise, clean = randn(2, 3, 6, 8, 4), 0.5 * randn(2, 3, 6, 8, 4, seed=1)
    cpu = torch.device("cpu")
    theirs._apply_free_init(noise, 0, 4, cpu, torch.float32, None)
    expected, _ = theirs._apply_free_init(clean, 1, 4, cpu, torch.float32, seeded(2))

    settings = FreeInit(3, method, order, spatial, temporal)
    got = settings.mix(clean, noise, randn(2, 3, 6, 8, 4, seed=2), theirs.scheduler.alphas_cumprod[-1])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["butterworth", "gaussian", "ideal", "box"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 7, 9), (16, 8, 6), (1, 1, 1)])
def test_a_filter_keeps_what_is_slow(method, shape):
    kept = FreeInit(method=method).low_pass(*shape)
    frames, height, width = shape
    assert kept.shape == shape
    assert kept[frames // 2, height // 2, width // 2] == 1  # the mean, for odd sizes too
    assert kept.min() >= 0
    if frames > 4:
        assert kept[0, height // 2, width // 2] < 0.5 or method == "ideal"
    row = kept[frames // 2, height // 2, width // 2 :]
    assert all(a >= b for a, b in itertools.pairwise(row.tolist()))
    # Real latents stay real: what is kept of a frequency is kept of its mirror.
    natural = torch.fft.ifftshift(kept)
    mirrored = natural.flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2))
    assert torch.equal(natural, mirrored)


def test_a_box_is_cut_at_the_stop_frequencies():
    kept = FreeInit(method="box", spatial_stop=0.5, temporal_stop=0.3).low_pass(10, 8, 8)
    time, tall, wide = (torch.nonzero(kept.sum(axes)).flatten().tolist() for axes in ((1, 2), (0, 2), (0, 1)))
    assert time == [4, 5, 6]
    assert tall == wide == [3, 4, 5]
    assert kept.sum() == 27


def test_noise_that_is_mixed_is_still_noise_and_follows_the_result_slowly():
    fresh, noise = randn(1, 4, 16, 32, 32), randn(1, 4, 16, 32, 32, seed=1)
    clean = torch.ones_like(noise)
    mixed = FreeInit().mix(clean, noise, fresh, alpha=0.01)
    assert mixed.var() == pytest.approx(1, abs=0.05)
    assert (mixed - fresh).mean() == pytest.approx(0.1, abs=0.02)  # the mean is the slowest of all
    difference = (mixed - fresh).diff(dim=-1).var() / (noise - fresh).diff(dim=-1).var()
    assert difference < 0.05  # and the fast ones stay fresh


def test_steps_of_the_iterations():
    assert [FreeInit().steps(25, i) for i in range(3)] == [25, 25, 25]
    assert [FreeInit(fast=True).steps(25, i) for i in range(3)] == [8, 16, 25]
    assert [FreeInit(4, fast=True).steps(2, i) for i in range(4)] == [1, 1, 1, 2]
    theirs = FreeInitMixin()
    theirs.enable_free_init(3, use_fast_sampling=True)
    theirs.scheduler = DDIMScheduler()
    for i in range(3):
        latents = randn(1, 1, 2, 2, 2)
        _, timesteps = theirs._apply_free_init(latents, i, 25, torch.device("cpu"), torch.float32, seeded())
        assert len(timesteps) == FreeInit(fast=True).steps(25, i)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "at least 1"),
        ({"order": 0}, "at least 1"),
        ({"method": "round"}, "'round' is unknown; choose butterworth"),
        ({"spatial_stop": 0}, "above 0 and at most 1, not 0"),
        ({"temporal_stop": 1.1}, "not 0.25 and 1.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        FreeInit(**settings)
