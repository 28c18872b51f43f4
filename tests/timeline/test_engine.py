"""The loop: streams in order, holds only what is in flight, stops and goes on without a trace."""

import io
import itertools

import pytest
import torch

from animagic.errors import CheckpointError
from animagic.pipelines.text import TextEmbedding
from animagic.systems.magi1.denoiser import Magi1Denoiser, Magi1Sampling
from animagic.systems.magi1.prompts import ChunkPrompts, null_caption
from animagic.timeline import (
    FlowEuler,
    Plan,
    Sampler,
    Staircase,
    Step,
    Timeline,
    WholeClip,
    Window,
    flow_levels,
)
from animagic.timeline.engine import advance

CHANNELS, HEIGHT, WIDTH = 2, 2, 3


def fixed_noise(frames: range, channels: int = CHANNELS) -> torch.Tensor:
    """The same noise for the same frame, whenever it is asked for."""
    return torch.cat(
        [
            torch.randn(1, channels, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(100 + frame))
            for frame in frames
        ],
        dim=2,
    )


def target(frames: range) -> torch.Tensor:
    return torch.sin(torch.arange(frames.start, frames.stop))[None, None, :, None, None].expand(
        1, CHANNELS, -1, HEIGHT, WIDTH
    )


class Straight:
    """Points every frame straight at its target: the result is known whatever the plan."""

    def __init__(self, times: torch.Tensor):
        self.times, self.windows = times, []

    def __call__(self, latents, window):
        self.windows.append(window)
        left = (1 - self.times[torch.tensor(window.levels)]).clamp_min(1e-6)[:, None, None]
        return (target(window.frames) - latents) / left


class Counting:
    """A network with a memory, as a cache is: what it says depends on how often it has been asked."""

    def __init__(self):
        self.calls = torch.zeros(())

    def __call__(self, latents, window):
        self.calls = self.calls + 1
        return torch.cos(latents * self.calls) + 0.1 * latents.mean()

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def sampler(plan, denoiser=None, prefix=None, noise=fixed_noise, **settings) -> Sampler:
    times = flow_levels(plan.num_steps)
    return Sampler(plan, denoiser or Straight(times), FlowEuler(times), Timeline(noise, prefix), **settings)


def snapshot(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# What comes out


@pytest.mark.parametrize(
    "plan",
    [
        WholeClip(18, 8),
        Staircase(3, 8, window_size=1),
        Staircase(3, 8, window_size=4),
        Staircase(9, 4, window_size=2, chunk_width=2),
    ],
    ids=repr,
)
def test_any_plan_carries_every_frame_to_its_target(plan):
    outputs = list(sampler(plan).run())
    assert [frame for clean in outputs for frame in clean.frames] == list(range(18))
    for clean in outputs:
        torch.testing.assert_close(clean.latents, target(clean.frames), atol=1e-5, rtol=1e-5)


def test_chunks_come_out_as_soon_as_they_are_clean():
    steps = []
    run = sampler(Staircase(3, 8), on_step=lambda progress: steps.append(progress.step)).run()
    # The first after four stages of two steps, the others a stage later each.
    assert [(next(run).frames, len(steps)) for _ in range(3)] == [
        (range(6), 8),
        (range(6, 12), 10),
        (range(12, 18), 12),
    ]
    assert next(run, None) is None


def test_what_was_yielded_does_not_change_afterwards():
    run = sampler(Staircase(4, 8)).run()
    first = next(run)
    kept = first.latents.clone()
    list(run)
    assert torch.equal(first.latents, kept)


@pytest.mark.parametrize(("prefix_frames", "first_frame"), [(1, 0), (6, 6), (8, 8)])
def test_given_frames_are_what_the_network_reads(prefix_frames, first_frame):
    plan = Staircase(3, 8, prefix_frames=prefix_frames)
    prefix = torch.full((1, CHANNELS, prefix_frames, HEIGHT, WIDTH), 7.0)
    seen = []

    class Watching(Straight):
        def __call__(self, latents, window):
            given = prefix_frames - window.frames.start
            if given > 0:
                seen.append(latents[:, :, :given].clone())
            return super().__call__(latents, window)

    outputs = list(sampler(plan, Watching(flow_levels(8)), prefix).run())
    assert seen
    assert all((given == 7).all() for given in seen)
    assert outputs[0].frames.start == first_frame
    assert outputs[-1].frames.stop == 18


def test_windows_of_a_step_may_be_called_in_any_order():
    class TwoWindows(Plan):
        num_steps, total_steps = 4, 4

        def steps(self):
            for level in range(4):
                windows = tuple(Window(range(a, a + 5), (level,) * 5) for a in (0, 3, 5))
                yield Step(windows, clean=range(10) if level == 3 else range(0))

    def backwards(function, items):
        return [function(item) for item in items[::-1]][::-1]

    def velocity(latents, window):
        return torch.cos(latents) + window.frames.start

    (a,), (b,) = (
        sampler(TwoWindows(), velocity, parallel_map=order).run()
        for order in (lambda f, items: [f(i) for i in items], backwards)
    )
    assert torch.equal(a.latents, b.latents)
    assert a.frames == range(10)


# Windows that overlap


def randn(seed: int) -> torch.Tensor:
    return torch.randn((1, 2, 5, 3, 4), generator=torch.Generator().manual_seed(seed))


def test_predictions_are_averaged_by_weight_where_windows_overlap():
    solver = FlowEuler(torch.tensor([0.0, 0.5, 1.0]))
    start = randn(0)
    timeline = Timeline(lambda frames: start[:, :, frames.start : frames.stop].clone())
    windows = (
        Window(range(3), (0, 0, 0), weights=(1.0, 1.0, 3.0)),
        Window(range(2, 5), (0, 0, 0)),  # no weights: 1 everywhere
    )
    a, b = randn(1)[:, :, :3], randn(2)[:, :, :3]
    advance(timeline, solver, Step(windows), [a, b])
    mean = torch.cat([a[:, :, :2], (3 * a[:, :, 2:] + b[:, :, :1]) / 4, b[:, :, 1:]], dim=2)
    torch.testing.assert_close(timeline.state(range(5)), start + 0.5 * mean)


def test_frames_between_windows_are_left_alone():
    solver = FlowEuler(torch.tensor([0.0, 1.0]))
    start = randn(0)
    timeline = Timeline(lambda frames: start[:, :, frames.start : frames.stop].clone())
    ones = torch.ones(1, 2, 2, 3, 4)
    advance(timeline, solver, Step((Window(range(2), (0, 0)), Window(range(3, 5), (0, 0)))), [ones, ones])
    assert torch.equal(timeline.state(range(5))[:, :, 2], start[:, :, 2])
    torch.testing.assert_close(timeline.state(range(5))[:, :, [0, 1, 3, 4]], start[:, :, [0, 1, 3, 4]] + 1)


def test_a_step_begins_from_what_the_network_saw():
    """Where frames are given, the step goes from the given frame, not from the state beneath it."""
    solver, prefix = FlowEuler(torch.tensor([0.0, 0.5, 1.0])), randn(3)[:, :, :2]
    timeline = Timeline(lambda frames: randn(0)[:, :, frames.start : frames.stop].clone(), prefix)
    velocity = randn(1)
    advance(timeline, solver, Step((Window(range(5), (0,) * 5),)), [velocity])
    torch.testing.assert_close(timeline.state(range(2)), prefix + 0.5 * velocity[:, :, :2])
    assert torch.equal(timeline.read(range(5))[:, :, :2], prefix)


# Memory


def test_an_endless_run_holds_only_the_frames_in_flight():
    plan, asked = Staircase(None, 8), []

    def noise(frames):
        asked.extend(frames)
        return fixed_noise(frames)

    held, yielded = [], []
    run = sampler(plan, noise=noise)
    run.on_step = lambda progress: held.append(run.timeline.state_dict()["latents"].shape[2])
    for clean in itertools.islice(run.run(), 30):
        yielded += clean.frames
    assert max(held) == 30  # four chunks in flight and one that is clean
    assert run.timeline.state_dict()["latents"].untyped_storage().nbytes() == 4 * held[-1] * CHANNELS * HEIGHT * WIDTH
    assert yielded == list(range(180))
    assert asked == list(range(len(asked)))  # every frame once, in order
    assert len(asked) <= 180 + 24


def test_a_frame_that_was_forgotten_cannot_be_read():
    timeline = Timeline(fixed_noise)
    timeline.state(range(12))
    timeline.forget(6)
    assert (timeline.start, timeline.stop) == (6, 12)
    torch.testing.assert_close(timeline.state(range(6, 12)), fixed_noise(range(6, 12)))
    with pytest.raises(IndexError, match="frame 5 is gone"):
        timeline.state(range(5, 8))
    timeline.forget(3)  # nothing happens
    assert timeline.start == 6


# Progress


def test_progress_tells_where_a_run_stands():
    seen, plan = [], Staircase(3, 8, prefix_frames=6)
    outputs = list(sampler(plan, prefix=fixed_noise(range(6)), on_step=seen.append).run())
    assert [p.step for p in seen] == list(range(1, plan.total_steps + 1))
    assert {p.total_steps for p in seen} == {plan.total_steps}
    assert [p.plan_step for p in seen] == list(plan.steps())
    assert [p.clean_frames for p in seen] == list(itertools.accumulate(len(p.plan_step.clean) for p in seen))
    assert seen[-1].clean_frames == sum(len(clean.frames) for clean in outputs) == 12
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(seen))
    assert all(p.seconds_left >= 0 for p in seen)
    assert seen[-1].seconds_left == 0


def test_an_endless_run_has_no_end_to_tell():
    seen = []
    next(sampler(Staircase(None, 8), on_step=seen.append).run())
    assert all(p.total_steps is None and p.seconds_left is None for p in seen)


# Stopping and going on


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_in_on_step_ends_the_run(error):
    def stop(progress):
        if progress.step == 5:
            raise error("enough")

    run = sampler(Staircase(3, 8), on_step=stop)
    with pytest.raises(error, match="enough"):
        list(run.run())
    assert run.steps_done == 5
    # The state is that between two steps: the same sampler can go on.
    run.on_step = None
    for clean in run.run():
        torch.testing.assert_close(clean.latents, target(clean.frames), atol=1e-5, rtol=1e-5)
    assert run.clean_frames == 18


def assert_resumes_exactly(make):
    """Run once; then from the state after every step, on fresh objects, to the same bits."""
    states, whole, outputs = [], make(), []
    whole.on_step = lambda progress: states.append(snapshot(whole.state_dict()))
    for clean in whole.run():
        outputs.append(clean)
    assert len(states) == whole.plan.total_steps

    for state in states:
        resumed = make()
        resumed.load_state_dict(state)
        rest = list(resumed.run())
        done = int(state["clean_frames"])
        expected = [c for c in outputs if c.frames.start - outputs[0].frames.start >= done]
        assert [c.frames for c in rest] == [c.frames for c in expected]
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(rest, expected, strict=True))
        assert (resumed.steps_done, resumed.clean_frames) == (whole.steps_done, whole.clean_frames)


@pytest.mark.parametrize("prefix_frames", [0, 1, 8])
def test_a_run_resumes_exactly_after_any_step(prefix_frames):
    plan = Staircase(4, 8, prefix_frames=prefix_frames)
    prefix = fixed_noise(range(50, 50 + prefix_frames)) if prefix_frames else None
    assert_resumes_exactly(lambda: sampler(plan, Counting(), prefix))


def test_the_noise_that_is_still_to_be_drawn_belongs_to_the_state():
    class Drawn:
        """Noise from one generator, as pipelines draw it."""

        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)

        def __call__(self, frames):
            return torch.randn(1, CHANNELS, len(frames), HEIGHT, WIDTH, generator=self.generator)

        def state_dict(self):
            return {"generator": self.generator.get_state()}

        def load_state_dict(self, state):
            self.generator.set_state(state["generator"])

    assert_resumes_exactly(lambda: sampler(Staircase(6, 4), Counting(), noise=Drawn()))


@pytest.mark.parametrize("cfg_number", [1, 3])
@pytest.mark.parametrize("prefix_frames", [0, 1, 3])
def test_magi1_resumes_exactly_after_any_step(tiny_transformer, cfg_number, prefix_frames):
    """With the network itself: its cache of keys and values is part of the state."""
    transformer = tiny_transformer()
    sampling = Magi1Sampling(
        num_steps=4, chunk_width=2, cfg_number=cfg_number, distill=cfg_number == 1, noise2clean_kvrange=[3, 2]
    )
    plan = sampling.plan(4, prefix_frames)
    null = null_caption(transformer.y_embedder.null_caption_embedding, 1, length=5)
    text = TextEmbedding(torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1)), torch.ones(1, 6))
    prompts = ChunkPrompts(((0, text),), null, num_chunks=4).to(torch.device("cpu"))

    def noise(frames):
        return fixed_noise(frames, 4)[..., [0, 1]]  # 2 x 2: one token a frame

    def make():
        guided = sampling.guide(Magi1Denoiser(transformer, prompts, plan, sampling))
        prefix = noise(range(50, 50 + prefix_frames)) if prefix_frames else None
        return Sampler(plan, guided, FlowEuler(sampling.times()), Timeline(noise, prefix))

    assert_resumes_exactly(make)


def test_a_state_in_memory_is_a_state_and_not_a_window_on_the_run():
    """It must not go on changing with the run it was taken from, nor with a run that was loaded from it."""
    run = sampler(Staircase(3, 8), Counting())
    states = []
    run.on_step = lambda progress: states.append(run.state_dict())
    outputs = list(run.run())
    for _ in range(2):
        resumed = sampler(Staircase(3, 8), Counting())
        resumed.load_state_dict(states[2])
        rest = list(resumed.run())
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(rest, outputs, strict=True))


def test_noise_that_is_handed_out_is_not_written_to():
    whole = fixed_noise(range(18))
    kept = whole.clone()
    list(sampler(Staircase(3, 8), noise=lambda frames: whole[:, :, frames.start : frames.stop]).run())
    assert torch.equal(whole, kept)


def test_a_state_that_lacks_something_is_refused():
    run = sampler(Staircase(2, 8))
    next(run.run())
    state = run.state_dict()
    for key in ("steps_done", "clean_frames", "timeline.span"):
        with pytest.raises(CheckpointError, match="cannot be resumed"):
            sampler(Staircase(2, 8)).load_state_dict({k: v for k, v in state.items() if k != key})
