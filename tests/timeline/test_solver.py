"""Solvers: each frame from its own level to the next."""

import pytest
import torch

from animagic.timeline import FlowEuler, flow_levels

SHAPE = (1, 2, 5, 3, 4)


def randn(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_steps", [1, 3, 12])
def test_euler_is_exact_on_straight_paths(num_steps):
    noise, target = randn(0), randn(1)
    solver = FlowEuler(flow_levels(num_steps))
    latents = noise
    for level in range(num_steps):
        latents = solver.step(latents, target - noise, [level] * 5)
        t = solver.times[level + 1]
        torch.testing.assert_close(latents, (1 - t) * noise + t * target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latents, target, atol=1e-5, rtol=1e-5)


def test_euler_moves_every_frame_by_its_own_level_and_leaves_clean_ones():
    solver, latents, velocity = FlowEuler(flow_levels(4)), randn(0), randn(1)
    levels = [4, 3, 2, 1, 0]
    moved = solver.step(latents, velocity, levels)
    for frame, level in enumerate(levels):
        alone = solver.step(latents[:, :, [frame]], velocity[:, :, [frame]], [level])
        assert torch.equal(moved[:, :, [frame]], alone)
    assert torch.equal(moved[:, :, 0], latents[:, :, 0])
    assert not torch.equal(moved[:, :, 1], latents[:, :, 1])
