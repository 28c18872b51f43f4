"""Rotary positions: what they must do to any query and key."""

import pytest
import torch

from animagic.layers.rotary import apply_rotary, rotary_angles

BANDS = torch.tensor([1.0, 0.3, 0.05])


def tables(frames: range, height: int = 4, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    angles = rotary_angles(BANDS, frames, height, width)
    return angles.cos(), angles.sin()


def randn(tokens: int, dim: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, tokens, dim, generator=torch.Generator().manual_seed(seed))


def test_angles_are_those_of_time_then_height_then_width():
    angles = rotary_angles(BANDS, range(5), 4, 6).view(5, 4, 6, 9)
    time, y, x = angles.split(3, dim=-1)
    assert torch.equal(time[:, 0, 0], torch.arange(5.0)[:, None] * BANDS)
    # Each part depends on its own axis only.
    assert (time == time[:, :1, :1]).all()
    assert (y == y[:1, :, :1]).all()
    assert (x == x[:1, :1]).all()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (4, 6), (45, 80), (7, 3)])
def test_space_is_centred_and_as_large_as_256_tokens(height, width):
    angles = rotary_angles(torch.ones(1), range(1), height, width).view(height, width, 3)
    y, x = angles[:, 0, 1], angles[0, :, 2]
    for axis in (y, x):
        torch.testing.assert_close(axis, -axis.flip(0))
    # First to last position plus one, on both axes: the area of the reference shape at the same aspect.
    spans = [(axis[-1] - axis[0] + 1).item() for axis in (y, x)]
    assert spans[0] * spans[1] == pytest.approx(256, rel=1e-4)
    assert spans[1] / spans[0] == pytest.approx(width / height, rel=1e-4)


def test_the_reference_shape_is_not_rescaled():
    angles = rotary_angles(torch.ones(1), range(1), 16, 16).view(16, 16, 3)
    torch.testing.assert_close(angles[:, 0, 1], torch.arange(16) - 7.5)


def test_an_axis_of_one_token_stays_in_the_middle():
    angles = rotary_angles(BANDS, range(2), 1, 8).view(2, 1, 8, 9)
    assert (angles[..., 3:6] == 0).all()
    assert angles.isfinite().all()


def test_a_later_window_uses_the_later_rows():
    whole, part = rotary_angles(BANDS, range(12), 4, 6), rotary_angles(BANDS, range(6, 12), 4, 6)
    assert torch.equal(whole[6 * 24 :], part)


def test_rotation_keeps_lengths_and_what_lies_behind():
    x = randn(5 * 24)
    rotated = apply_rotary(x, *tables(range(5)))
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotated[..., 18:], x[..., 18:])
    assert not torch.equal(rotated[..., :18], x[..., :18])


def test_halves_are_paired():
    x, (cos, sin) = randn(5 * 24), tables(range(5))
    pairs = torch.complex(x[..., :9].double(), x[..., 9:18].double()) * torch.polar(
        torch.ones(9).double(), rotary_angles(BANDS, range(5), 4, 6).double()
    )
    rotated = apply_rotary(x, cos, sin)
    torch.testing.assert_close(rotated[..., :9], pairs.real.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rotated[..., 9:18], pairs.imag.float(), atol=1e-5, rtol=1e-5)


def test_scores_depend_on_the_distance_in_time_only():
    query, key = randn(4 * 24, seed=1), randn(4 * 24, seed=2)

    def scores(shift: int):
        table = tables(range(shift, shift + 4))
        return apply_rotary(query, *table) @ apply_rotary(key, *table).transpose(-1, -2)

    torch.testing.assert_close(scores(0), scores(40), atol=1e-3, rtol=1e-4)


def test_the_first_frame_s_middle_is_left_as_it_is():
    x = randn(1)
    assert torch.equal(apply_rotary(x, *tables(range(1), 1, 1)), x)


def test_bands_can_be_learned():
    bands = BANDS.clone().requires_grad_()
    rotary_angles(bands, range(3), 2, 2).sum().backward()
    assert bands.grad.abs().sum() > 0
