"""Windows that move: every frame is seen at every step, no border stays, and a stream holds a steady front."""

import itertools
from collections import Counter
from math import ceil, gcd

import pytest
import torch

from animagic.errors import InputError
from animagic.timeline import FlowEuler, MovingFront, PlanSummary, Sampler, ShiftingWindow, Timeline, flow_levels
from animagic.timeline.shifting import golden_shift

SIZES = [(8, 0), (8, 3), (16, 4), (16, 15), (2, 1), (1, 0)]
LENGTHS = (1, 7, 16, 17, 19, 40, 96, 161)
FRONTS = [(8, 8, 1), (8, 3, 1), (7, 4, 1), (4, 8, 1), (5, 7, 1), (1, 3, 1), (6, 1, 1), (16, 6, 2), (5, 6, 3), (4, 4, 4)]
SHAPE = (1, 2, 1, 2, 3)


def noise(frames: range) -> torch.Tensor:
    """The same noise for the same frame, whenever it is asked for."""
    return torch.cat([torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + f)) for f in frames], dim=2)


def smoothing(latents, window):
    """What a frame gets depends on its window, its level and its neighbours."""
    level = torch.tensor(window.levels, dtype=latents.dtype)[:, None, None]
    return torch.cos(latents) + latents.mean(2, keepdim=True) + 0.1 * level + 0.01 * window.frames[0]


def sampler(plan, denoiser=smoothing, **settings) -> Sampler:
    return Sampler(plan, denoiser, FlowEuler(flow_levels(plan.num_steps)), Timeline(noise), **settings)


def counted(window) -> list[int]:
    """The frames for which a window has a say."""
    return [frame for frame, weight in zip(window.frames, window.weights, strict=True) if weight > 0]


def backwards(function, items):
    return [function(item) for item in items[::-1]][::-1]


def assert_resumes_exactly(plan, steps: int) -> None:
    """Run once; then from the state after every step, on fresh objects, to the same bits."""
    states, outputs = [], []
    whole = sampler(plan, on_step=lambda progress: states.append(whole.state_dict()))
    for clean in whole.run():
        outputs.append(clean)
        if whole.steps_done >= steps:
            break
    for state in states[:-1]:
        resumed = sampler(plan)
        resumed.load_state_dict(state)
        expected = [clean for clean in outputs if clean.frames.start >= int(state["clean_frames"])]
        got = list(itertools.islice(resumed.run(), len(expected)))
        assert [clean.frames for clean in got] == [clean.frames for clean in expected]
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(got, expected, strict=True))


# Shifting windows: where they lie


@pytest.mark.parametrize(("size", "overlap"), SIZES)
@pytest.mark.parametrize("shift", [None, 0, 1, 5])
def test_every_frame_is_predicted_at_every_step_and_windows_keep_their_size(size, overlap, shift):
    for num_frames in LENGTHS:
        plan = ShiftingWindow(num_frames, 7, size, overlap, shift)
        for level, step in enumerate(plan.steps()):
            share = torch.zeros(num_frames)
            for window in step.windows:
                assert len(window.frames) == len(window.weights) == min(size, num_frames)
                assert window.levels == (level,) * len(window.frames)
                share[list(window.frames)] += torch.tensor(window.weights)
                assert counted(window)
            assert step.span == range(num_frames)
            assert share.min() > 0


def test_weights_rise_to_the_middle_and_stay_where_they_were_when_a_window_is_moved_in():
    first, second = ShiftingWindow(20, 2, size=7, overlap=2, shift=3).steps()
    assert [window.weights for window in first.windows[:3]] == [(1, 2, 3, 4, 3, 2, 1)] * 3
    # At step 1 windows begin at -2, 3, 8 and 13.
    assert [window.frames for window in second.windows] == [range(7), range(3, 10), range(8, 15), range(13, 20)]
    assert second.windows[0].weights == (3, 4, 3, 2, 1, 0, 0)
    assert first.windows[-1].frames == range(13, 20)  # the one from 15 on
    assert first.windows[-1].weights == (0, 0, 1, 2, 3, 4, 3)


@pytest.mark.parametrize(("size", "overlap"), SIZES)
@pytest.mark.parametrize("num_steps", [1, 4, 8, 30])
def test_no_border_stays_in_one_place(size, overlap, num_steps):
    """Where the clip itself does not end, a frame is the first of a window at one step in `hop`, and so the last."""
    for num_frames in LENGTHS:
        plan, first, last = ShiftingWindow(num_frames, num_steps, size, overlap), Counter(), Counter()
        for step in plan.steps():
            first.update(frame for w in step.windows if (frame := counted(w)[0]) > 0)
            last.update(frame for w in step.windows if (frame := counted(w)[-1]) < num_frames - 1)
        most = ceil(num_steps / (size - overlap))
        assert max(first.values(), default=0) <= most
        assert max(last.values(), default=0) <= most


def test_windows_that_do_not_shift_keep_their_borders():
    borders = Counter(counted(w)[0] for step in ShiftingWindow(96, 12, shift=0).steps() for w in step.windows)
    assert set(borders.values()) == {12}


@pytest.mark.parametrize("hop", range(1, 40))
def test_the_shift_visits_every_offset_and_keeps_successive_ones_apart(hop):
    shift = golden_shift(hop)
    assert gcd(shift, hop) == 1
    assert sorted(step * shift % hop for step in range(hop)) == list(range(hop))
    if hop > 6:  # below, only 1 and hop - 1 may be left
        assert min(shift, hop - shift) > hop / 5


def test_a_short_clip_is_one_window():
    for step in ShiftingWindow(16, 3).steps():
        (window,) = step.windows
        assert window.frames == range(16)


def test_describe_counts_windows():
    # At offset 0 windows begin at 0, 12 and 24; at the others one that begins before the clip comes to them.
    assert ShiftingWindow(40, 2, shift=5).describe() == PlanSummary(2, 3 + 4, 7, 40, 40)
    calls = [ShiftingWindow(n, 4).describe().network_calls for n in range(16, 500, 12)]
    assert all(0 <= b - a <= 4 * 2 for a, b in itertools.pairwise(calls))


# Shifting windows: in the loop


def test_predictions_are_averaged_as_the_weights_say():
    """Against a plain loop over frames: Euler on the weighted mean of what each window said."""
    plan, times = ShiftingWindow(21, 3, size=6, overlap=2), flow_levels(3)
    (clean,) = sampler(plan).run()
    assert clean.frames == range(21)
    expected = noise(range(21))
    for level, step in enumerate(plan.steps()):
        sums, shares = torch.zeros_like(expected), torch.zeros(21)
        for start in plan.starts_at(level):
            window = next(w for w in step.windows if w.frames.start == min(max(start, 0), 15))
            prediction = smoothing(expected[:, :, list(window.frames)], window)
            for place, frame in enumerate(window.frames):
                weight = max(0, min(frame - start + 1, start + 6 - frame))
                sums[:, :, frame] += weight * prediction[:, :, place]
                shares[frame] += weight
        expected = expected + (times[level + 1] - times[level]) * sums / shares[:, None, None]
    torch.testing.assert_close(clean.latents, expected, atol=1e-5, rtol=1e-5)


def test_windows_may_be_called_in_any_order():
    plan = ShiftingWindow(40, 4, size=8, overlap=3)
    (a,), (b,) = (sampler(plan, parallel_map=order).run() for order in (map, backwards))
    assert torch.equal(a.latents, b.latents)


def test_shifting_windows_resume_exactly_after_any_step():
    assert_resumes_exactly(ShiftingWindow(30, 6, size=8, overlap=2), 6)


def seams(plan: ShiftingWindow, seed: int) -> float:
    """Frame-to-frame change at the borders of the last step's windows, divided by that elsewhere, for a network whose
    windows do not agree on what the scene looks like."""
    generator, times = torch.Generator().manual_seed(seed), flow_levels(plan.num_steps)
    motion = torch.sin(torch.arange(plan.num_frames) * 2 * torch.pi / 20)[:, None, None]

    def disagreeing(latents, window):
        clean = motion[list(window.frames)] + 0.5 * torch.randn(1, 2, 1, 2, 3, generator=generator)
        return (clean - latents) / (1 - times[window.levels[0]])

    (clean,) = sampler(plan, disagreeing).run()
    change = clean.latents.diff(dim=2).abs().mean((0, 1, 3, 4))
    *_, last = plan.steps()
    border = torch.zeros(len(change), dtype=torch.bool)
    border[[e for w in last.windows for e in (counted(w)[0] - 1, counted(w)[-1]) if 0 <= e < len(change)]] = True
    return (change[border].mean() / change[~border].mean()).item()


def test_no_seam_is_seen():
    plan = ShiftingWindow(160, 8)
    assert sum(seams(plan, seed) for seed in range(8)) / 8 <= 1.2
    abrupt = ShiftingWindow(160, 8, overlap=0)
    assert sum(seams(abrupt, seed) for seed in range(8)) / 8 > 1.2  # the measure does see them


# The moving front: what is denoised when


@pytest.mark.parametrize(("num_steps", "front", "k"), FRONTS)
@pytest.mark.parametrize("num_frames", [1, 2, 5, 23])
def test_every_frame_goes_through_every_level_once_in_order(num_steps, front, k, num_frames):
    for context in (0, 3):
        plan, seen, clean = MovingFront(num_frames, num_steps, front, context, k), {}, []
        steps = list(plan.steps())
        assert len(steps) == plan.total_steps
        for step in steps:
            (window,) = step.windows
            assert 1 <= sum(level < num_steps for level in window.levels) <= front
            assert list(window.levels) == sorted(window.levels, reverse=True)
            clean += step.clean
            for frame, level in zip(window.frames, window.levels, strict=True):
                seen.setdefault(frame, []).append(level)
        assert clean == list(range(num_frames))
        assert sorted(seen) == list(range(num_frames))
        for levels in seen.values():
            assert levels[:num_steps] == list(range(num_steps))
            assert set(levels[num_steps:]) <= ({num_steps} if context else set())


@pytest.mark.parametrize(("num_steps", "front", "k"), FRONTS)
def test_frames_enter_and_leave_at_the_calls_that_the_plan_says(num_steps, front, k):
    plan, entered, left = MovingFront(None, num_steps, front, 2, k), {}, {}
    for call, step in enumerate(itertools.islice(plan.steps(), 20 * num_steps)):
        (window,) = step.windows
        for frame in window.frames:
            entered.setdefault(frame, call)
        left |= dict.fromkeys(step.clean, call + 1)
        if call >= 4 * num_steps:
            assert sum(level < num_steps for level in window.levels) == front
            assert len(window.frames) == plan.size
    assert len(left) > 15 * front
    for frame, call in left.items():
        assert entered[frame] == plan.enters_at(frame) == (frame // k * k * num_steps) // front
        assert call == plan.calls_before(frame) == entered[frame] + num_steps  # the same delay for every frame
    # A steady rate: `front` frames in any `num_steps` calls.
    assert all(left[frame + front] - left[frame] == num_steps for frame in list(left)[: -front - 1])


def test_frames_in_flight_stand_like_stairs():
    plan = MovingFront(5, num_steps=4, front=2, context=1)
    assert [(step.windows[0].frames, step.windows[0].levels, step.clean) for step in plan.steps()][:6] == [
        (range(1), (0,), range(0)),
        (range(1), (1,), range(0)),
        (range(2), (2, 0), range(0)),
        (range(2), (3, 1), range(1)),
        (range(3), (4, 2, 0), range(1, 1)),
        (range(3), (4, 3, 1), range(1, 2)),
    ]


def test_an_endless_front_begins_like_a_long_one():
    endless, long = MovingFront(None, 7, 4), MovingFront(60, 7, 4)
    assert endless.total_steps is None
    assert list(itertools.islice(endless.steps(), 98)) == list(itertools.islice(long.steps(), 98))
    with pytest.raises(InputError, match="endless"):
        endless.describe()


def test_describe_counts_the_front():
    # 10 frames, one in two calls; the last enters at call 18.
    assert MovingFront(10, 8, front=4, context=3).describe() == PlanSummary(26, 26, 8, 7, 10)
    assert MovingFront(10, 8, front=4, context=0, frames_per_exit=2).describe() == PlanSummary(24, 24, 8, 4, 10)


# The moving front: in the loop


@pytest.mark.parametrize(("num_steps", "front", "k"), FRONTS)
def test_clean_frames_are_read_and_stay_as_they_are(num_steps, front, k):
    plan, made, read = MovingFront(20, num_steps, front, 3, k), {}, Counter()

    def watching(latents, window):
        for place, (frame, level) in enumerate(zip(window.frames, window.levels, strict=True)):
            if level == num_steps:
                assert torch.equal(latents[:, :, place], made[frame])
                read[frame] += 1
        return smoothing(latents, window)

    run = sampler(plan, watching)
    for clean in run.run():
        made |= {frame: clean.latents[:, :, i].clone() for i, frame in enumerate(clean.frames)}
        # What the step wrote at a clean frame is what it was, to the bit.
        for frame in range(run.timeline.start, clean.frames.start):
            assert torch.equal(run.timeline.state(range(frame, frame + 1))[:, :, 0], made[frame])
    assert sorted(made) == list(range(20))
    assert len(read) >= 12


def test_an_endless_front_holds_only_its_context_and_itself():
    plan, asked, held, made = MovingFront(None, 5, front=4, context=3), [], [], []

    def drawn(frames):
        asked.extend(frames)
        return noise(frames)

    run = Sampler(plan, smoothing, FlowEuler(flow_levels(5)), Timeline(drawn))
    run.on_step = lambda progress: held.append(run.timeline.state_dict()["latents"].shape[2])
    for clean in run.run():
        made += clean.frames
        if len(made) >= 500:
            break
    assert made == list(range(500))
    assert max(held) == 7
    assert set(held[10:]) == {7}
    assert run.timeline.state_dict()["latents"].untyped_storage().nbytes() == 4 * 7 * 2 * 2 * 3
    assert asked == list(range(len(asked)))  # every frame once, in order
    assert len(asked) <= 500 + 4


@pytest.mark.parametrize(("num_steps", "front", "k"), FRONTS)
def test_a_front_resumes_exactly_after_any_step(num_steps, front, k):
    assert_resumes_exactly(MovingFront(7, num_steps, front, 2, k), 1000)


def test_an_endless_front_resumes_exactly():
    assert_resumes_exactly(MovingFront(None, 5, 3), 20)


# Wrong values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShiftingWindow(0, 4), "num_frames must be at least 1"),
        (lambda: ShiftingWindow(40, 0), "num_steps must be at least 1"),
        (lambda: ShiftingWindow(40, 4, size=0), "size must be at least 1"),
        (
            lambda: ShiftingWindow(40, 4, overlap=16),
            "overlap must be 0 to 15, less than the window's 16 frames, not 16",
        ),
        (lambda: ShiftingWindow(40, 4, shift=-1), "the shift must be 0 or more frames a step, not -1"),
        (lambda: MovingFront(0, 4), "num_frames must be at least 1"),
        (lambda: MovingFront(4, 0), "num_steps must be at least 1"),
        (lambda: MovingFront(4, 4, front=0), "front must be at least 1"),
        (lambda: MovingFront(4, 4, frames_per_exit=0), "frames_per_exit must be at least 1"),
        (lambda: MovingFront(4, 4, context=-1), "the context cannot have -1 frames"),
        (lambda: MovingFront(4, 4, 8, frames_per_exit=3), "3 frames cannot leave together from a front of 8"),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
