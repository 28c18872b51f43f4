"""Overlapping windows: every frame is seen, every step anew, and no border shows."""

import itertools
import time

import pytest
import torch

from animagic.errors import InputError
from animagic.timeline import (
    FlowEuler,
    OverlappingWindows,
    Sampler,
    SchedulerSolver,
    Timeline,
    build_scheduler,
    flow_levels,
    uniform_windows,
)
from animagic.timeline.windows import moving_windows

SIZES = [(8, 0), (8, 3), (16, 4), (16, 15), (1, 0)]


# Where the windows lie


@pytest.mark.parametrize(
    ("layout", "closed_loop"), [(uniform_windows, True), (moving_windows, True), (moving_windows, False)]
)
@pytest.mark.parametrize(("size", "overlap"), SIZES)
def test_every_window_has_its_size_and_every_frame_a_window(layout, closed_loop, size, overlap):
    for num_frames, stride, step in itertools.product((1, 7, 16, 17, 40, 96, 160), (1, 2, 3), range(5)):
        windows = layout(num_frames, size, stride, overlap, closed_loop, step)
        assert {frame for window in windows for frame in window} == set(range(num_frames))
        assert all(len(window) == min(size, num_frames) for window in windows)


@pytest.mark.parametrize("step", range(8))
def test_neighbours_share_the_overlap_and_only_a_loop_runs_round_its_end(step):
    for closed_loop in (False, True):
        windows = moving_windows(100, 16, 1, 4, closed_loop, step)
        pairs = list(itertools.pairwise([*windows, windows[0]] if closed_loop else windows))
        assert all(len(set(a) & set(b)) >= 4 for a, b in pairs)
        assert any(b < a for window in windows for a, b in itertools.pairwise(window)) == closed_loop


def test_an_open_clip_has_a_window_at_each_end():
    for step in range(6):
        windows = moving_windows(100, 16, 1, 4, False, step)
        assert windows[0][0] == 0
        assert windows[-1][-1] == 99


@pytest.mark.parametrize("closed_loop", [False, True])
def test_borders_are_elsewhere_at_every_step(closed_loop):
    """Over as many steps as two windows are apart, no place is a border much more often than another."""
    plan = OverlappingWindows(96, 12, closed_loop=closed_loop)
    windows = [window for step in range(12) for window in plan.windows_at(step)]
    ends = [w[-1] for w in windows if closed_loop or (w[0] > 0 and w[-1] < 95)]  # an open clip's ends stay
    assert max(ends.count(frame) for frame in set(ends)) <= 3
    assert len(set(ends)) > 50
    # Those of the original come to lie on each other again.
    original = {tuple(sorted(w[0] for w in uniform_windows(96, 16, 1, 4, step=step))) for step in range(8)}
    assert len(original) == 1


def test_still_windows_do_not_move():
    plan = OverlappingWindows(40, 5, moving=False)
    assert len({str(plan.windows_at(step)) for step in range(5)}) == 1


def test_a_short_clip_is_one_window():
    assert all(step.windows[0].frames == range(16) for step in OverlappingWindows(16, 3).steps())
    loop = [step.windows for step in OverlappingWindows(4, 4, closed_loop=True).steps()]
    assert [len(windows) for windows in loop] == [1] * 4
    # Each frame begins the window once: no pair of neighbours is torn apart at every step.
    assert sorted(next(iter(windows[0].frames)) for windows in loop) == [0, 1, 2, 3]
    assert loop[0][0].frames == range(4)
    assert loop[1][0].frames == (2, 3, 0, 1)


def test_a_stride_adds_windows_that_look_further():
    (step,) = OverlappingWindows(70, 1, size=8, overlap=2, stride=3).steps()
    gaps = [{b - a for a, b in itertools.pairwise(window.frames)} for window in step.windows]
    assert {max(gap) for gap in gaps} == {1, 2, 4}
    assert all(len(gap) == 1 for gap in gaps)


# The plan


def test_levels_weights_and_what_is_clean():
    plan = OverlappingWindows(20, 3, size=7, overlap=2)
    steps = list(plan.steps())
    assert plan.total_steps == len(steps) == 3
    assert [step.clean for step in steps] == [range(0), range(0), range(20)]
    for level, step in enumerate(steps):
        assert all(window.levels == (level,) * 7 for window in step.windows)
        assert all(window.weights == (1, 2, 3, 4, 3, 2, 1) for window in step.windows)
        assert step.span == range(20)
    assert all(not w.weights for step in OverlappingWindows(20, 3, weights="flat").steps() for w in step.windows)
    assert OverlappingWindows(2, 1).describe().peak_frames == 2


def test_calls_grow_linearly_with_the_clip():
    lengths = range(16, 500, 12)
    calls = [OverlappingWindows(n, 4).describe().network_calls for n in lengths]
    assert all(0 <= b - a <= 4 * 2 for a, b in itertools.pairwise(calls))
    assert calls[-1] <= 4 * (500 / 12 + 1)
    summary = OverlappingWindows(160, 25).describe()
    assert (summary.steps, summary.peak_frames, summary.frames) == (25, 160, 160)
    began = time.perf_counter()
    OverlappingWindows(5000, 50, stride=4).describe()
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"size": 0}, "size must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"overlap": 16}, "overlap must be 0 to 15, less than the window's 16 frames, not 16"),
        ({"overlap": -1}, "overlap must be 0 to 15"),
        ({"weights": "round"}, "'round' are unknown; choose pyramid, flat or"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        OverlappingWindows(**({"num_frames": 40, "num_steps": 4} | settings))


def test_windows_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="overlap must be 0 to 7"):
        uniform_windows(40, 8, 1, 8)
    with pytest.raises(InputError, match="num_frames must be at least 1"):
        uniform_windows(0, 8, 1, 2)


# In the loop


def noise(num_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 2, num_frames, 8, 8, generator=torch.Generator().manual_seed(seed))


def run(plan, denoiser, latents, solver=None, **settings) -> torch.Tensor:
    solver = solver or FlowEuler(flow_levels(plan.num_steps))
    timeline = Timeline(lambda frames: latents[:, :, frames.start : frames.stop])
    (clean,) = Sampler(plan, denoiser, solver, timeline, **settings).run()
    assert clean.frames == range(plan.num_frames)
    return clean.latents


@pytest.mark.parametrize("closed_loop", [False, True])
@pytest.mark.parametrize("weights", ["pyramid", "flat"])
@pytest.mark.parametrize("stride", [1, 3])
def test_predictions_are_averaged_as_the_weights_say(closed_loop, weights, stride):
    """Against a plain loop over frames: Euler on the weighted mean of what each window said."""
    plan = OverlappingWindows(13, 3, size=5, overlap=2, stride=stride, closed_loop=closed_loop, weights=weights)
    times, latents = flow_levels(3), noise(13)

    def network(x):
        return torch.cos(x) + x.mean(2, keepdim=True)  # what a frame gets depends on its window

    got = run(plan, lambda x, window: network(x), latents)
    expected = latents
    for level in range(3):
        sums, shares = [0.0] * 13, [0.0] * 13
        for frames in plan.windows_at(level):
            prediction = network(expected[:, :, frames])
            for place, frame in enumerate(frames):
                weight = min(place + 1, 5 - place) if weights == "pyramid" else 1
                sums[frame] = sums[frame] + weight * prediction[:, :, place]
                shares[frame] += weight
        mean = torch.stack([total / share for total, share in zip(sums, shares, strict=True)], dim=2)
        expected = expected + (times[level + 1] - times[level]) * mean
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_the_noise_is_drawn_in_order_and_the_windows_may_be_called_in_any():
    plan, asked = OverlappingWindows(30, 4, size=8, overlap=3, closed_loop=True), []
    latents = noise(30)

    def draw(frames):
        asked.append(frames)
        return latents[:, :, frames.start : frames.stop]

    def backwards(function, items):
        return [function(item) for item in items[::-1]][::-1]

    def denoiser(x, window):
        return torch.cos(x) + window.frames[0]

    results = [
        next(Sampler(plan, denoiser, FlowEuler(flow_levels(4)), Timeline(draw), parallel_map=order).run()).latents
        for order in (lambda f, items: [f(i) for i in items], backwards)
    ]
    assert torch.equal(*results)
    assert asked == [range(30)] * 2


def test_the_network_reads_its_frames_in_order_and_given_ones_as_they_are():
    plan = OverlappingWindows(12, 2, size=5, overlap=2, stride=2, closed_loop=True)
    prefix = torch.full((1, 2, 3, 8, 8), 7.0)
    latents = torch.arange(12.0)[:, None, None].expand(1, 2, 12, 8, 8)
    read = []

    def denoiser(x, window):
        read.append((window, x[0, 0, :, 0, 0].tolist()))
        return torch.zeros_like(x)

    timeline = Timeline(lambda frames: latents[:, :, frames.start : frames.stop], prefix)
    list(Sampler(plan, denoiser, FlowEuler(flow_levels(2)), timeline).run())
    assert any(isinstance(window.frames, tuple) for window, _ in read)
    for window, seen in read:
        assert seen == [7.0 if frame < 3 else float(frame) for frame in window.frames]


def test_a_timeline_takes_frames_in_any_order():
    timeline, latents = Timeline(lambda frames: noise(12)[:, :, frames.start : frames.stop]), noise(12)
    assert torch.equal(timeline.state((9, 11, 1)), latents[:, :, [9, 11, 1]])
    before = timeline.state_dict()["latents"].clone()
    kept = timeline.state_dict()["latents"]
    timeline.write((3, 0), torch.zeros(1, 2, 2, 8, 8))
    assert torch.equal(kept, before)  # a saved state does not change
    assert timeline.state(range(12))[:, :, [0, 3]].abs().sum() == 0
    assert torch.equal(timeline.state((1, 2, *range(4, 12))), latents[:, :, [1, 2, *range(4, 12)]])
    timeline.forget(2)
    with pytest.raises(IndexError, match="frame 1 is gone"):
        timeline.state((5, 1))


def seams(plan: OverlappingWindows, scheduler: str, seed: int) -> float:
    """Frame-to-frame change at the borders of the last step's windows, divided by that elsewhere, for a network whose
    windows do not agree on what the scene looks like."""
    generator = torch.Generator().manual_seed(seed)
    solver = SchedulerSolver(build_scheduler(scheduler), plan.num_steps, generator)
    motion = torch.sin(torch.arange(plan.num_frames) * 2 * torch.pi / 20)[:, None, None]
    alphas = solver.scheduler.alphas_cumprod

    def denoiser(x, window):
        solver.model_input(x, window.levels[0])  # nothing is read of it, but the scheduler wants to be asked
        clean = motion[list(window.frames)] + 0.5 * torch.randn(1, 2, 1, 8, 8, generator=generator)
        if scheduler == "euler":
            return (x - clean) / solver.scheduler.sigmas[window.levels[0]]
        alpha = alphas[solver.timesteps[window.levels[0]]]
        return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()

    latents = run(plan, denoiser, solver.initial_noise(noise(plan.num_frames, seed)), solver)
    change = latents.diff(dim=2).abs().mean((0, 1, 3, 4))
    windows = plan.windows_at(plan.num_steps - 1)
    border = torch.zeros(len(change), dtype=torch.bool)
    border[[e for w in windows for e in (w[0] - 1, w[-1]) if 0 <= e < len(change)]] = True
    return (change[border].mean() / change[~border].mean()).item()


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
@pytest.mark.parametrize("closed_loop", [False, True])
def test_no_seam_is_seen(scheduler, closed_loop):
    def mean(**settings):
        plan = OverlappingWindows(160, 25, closed_loop=closed_loop, **settings)
        return sum(seams(plan, scheduler, seed) for seed in range(3)) / 3

    assert mean() <= 1.2
    assert mean(weights="flat", moving=False) > 1.2  # the measure does see them


def test_a_loop_has_no_jump_at_its_end():
    """Windows that smooth what they see bring the last frame to the first only if they run round."""
    jumps = []
    for closed_loop in (False, True):
        plan = OverlappingWindows(32, 25, closed_loop=closed_loop)
        latents = run(plan, lambda x, window: 2 * (x.mean(2, keepdim=True) - x), noise(32))
        change = latents.diff(dim=2).abs().mean((0, 1, 3, 4))
        jumps.append(((latents[:, :, 0] - latents[:, :, -1]).abs().mean() / change.mean()).item())
    assert jumps[1] < 1.2 < 1.7 < jumps[0], jumps
