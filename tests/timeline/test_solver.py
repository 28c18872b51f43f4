"""Solvers: each frame from its own level to the next."""

import pytest
import torch
from diffusers import DDIMScheduler

from animagic.errors import InputError
from animagic.timeline import Ddim, FlowEuler, Step, Timeline, Window, ddpm_alphas, flow_levels

SHAPE = (1, 2, 5, 3, 4)


def randn(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ddim(num_steps: int, **settings) -> tuple[Ddim, DDIMScheduler]:
    """Ours and diffusers' on the same betas and timesteps (those of AnimateDiff)."""
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        set_alpha_to_one=False,
        steps_offset=1,
        clip_sample=settings.get("clip_sample", False),
        prediction_type=settings.get("prediction_type", "epsilon"),
    )
    theirs.set_timesteps(num_steps)
    return Ddim(ddpm_alphas(0.00085, 0.012, "linear"), theirs.timesteps, **settings), theirs


# Euler


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


# DDIM


@pytest.mark.parametrize("num_steps", [1, 7, 25])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("clip_sample", [False, True])
def test_ddim_equals_diffusers(num_steps, prediction_type, clip_sample):
    ours, theirs = ddim(num_steps, prediction_type=prediction_type, clip_sample=clip_sample)
    a = b = randn(0)
    for level, timestep in enumerate(theirs.timesteps):
        prediction = 0.5 * randn(level + 1) + 0.3 * a
        a = ours.step(a, prediction, [level] * 5)
        # With clipping diffusers keeps the prediction unless told to follow the clipped latents, as the original does.
        b = theirs.step(prediction, timestep, b, use_clipped_model_output=clip_sample).prev_sample
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_ddim_moves_every_frame_by_its_own_level_and_leaves_clean_ones():
    solver, _ = ddim(4)
    latents, prediction, levels = randn(0), randn(1), [4, 3, 2, 1, 0]
    moved = solver.step(latents, prediction, levels)
    for frame, level in enumerate(levels):
        alone = solver.step(latents[:, :, [frame]], prediction[:, :, [frame]], [level])
        assert torch.equal(moved[:, :, [frame]], alone)
    assert torch.equal(moved[:, :, 0], latents[:, :, 0])


def test_ddim_in_half_precision_follows_float32():
    """1 - alpha of a nearly clean frame is 0.0008: far too small to be taken from a float16 alpha."""
    solver, _ = ddim(25)
    latents, prediction = randn(0).half(), randn(1).half()
    for level in (0, 12, 24):
        exact = solver.step(latents.float(), prediction.float(), [level] * 5)
        half = solver.step(latents, prediction, [level] * 5)
        assert half.dtype == torch.float16
        torch.testing.assert_close(half.float(), exact, atol=4e-3, rtol=4e-3)


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(InputError, match="epsilon or v_prediction"):
        Ddim(ddpm_alphas(), torch.tensor([999]), prediction_type="sample")


# Windows that overlap


def test_predictions_are_averaged_by_weight_where_windows_overlap():
    solver = FlowEuler(torch.tensor([0.0, 0.5, 1.0]))
    start = randn(0)
    timeline = Timeline(lambda frames: start[:, :, frames.start : frames.stop].clone())
    windows = (
        Window(range(3), (0, 0, 0), weights=(1.0, 1.0, 3.0)),
        Window(range(2, 5), (0, 0, 0)),  # no weights: 1 everywhere
    )
    a, b = randn(1)[:, :, :3], randn(2)[:, :, :3]
    solver.advance(timeline, Step(windows), [a, b])
    mean = torch.cat([a[:, :, :2], (3 * a[:, :, 2:] + b[:, :, :1]) / 4, b[:, :, 1:]], dim=2)
    torch.testing.assert_close(timeline.state(range(5)), start + 0.5 * mean)


def test_frames_between_windows_are_left_alone():
    solver = FlowEuler(torch.tensor([0.0, 1.0]))
    start = randn(0)
    timeline = Timeline(lambda frames: start[:, :, frames.start : frames.stop].clone())
    ones = torch.ones(1, 2, 2, 3, 4)
    solver.advance(timeline, Step((Window(range(2), (0, 0)), Window(range(3, 5), (0, 0)))), [ones, ones])
    assert torch.equal(timeline.state(range(5))[:, :, 2], start[:, :, 2])
    torch.testing.assert_close(timeline.state(range(5))[:, :, [0, 1, 3, 4]], start[:, :, [0, 1, 3, 4]] + 1)


def test_a_step_begins_from_what_the_network_saw():
    """Where frames are given, the step goes from the given frame, not from the state beneath it."""
    solver, prefix = FlowEuler(torch.tensor([0.0, 0.5, 1.0])), randn(3)[:, :, :2]
    timeline = Timeline(lambda frames: randn(0)[:, :, frames.start : frames.stop].clone(), prefix)
    velocity = randn(1)
    solver.advance(timeline, Step((Window(range(5), (0,) * 5),)), [velocity])
    torch.testing.assert_close(timeline.state(range(2)), prefix + 0.5 * velocity[:, :, :2])
    assert torch.equal(timeline.read(range(5))[:, :, :2], prefix)
