"""Schedulers of diffusers in our loop: bit for bit what they give by hand."""

import itertools

import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler
from safetensors.torch import load, save

from animagic.errors import CheckpointError, InputError
from animagic.timeline import (
    OverlappingWindows,
    Plan,
    Sampler,
    SchedulerSolver,
    Staircase,
    Step,
    Timeline,
    WholeClip,
    Window,
    build_scheduler,
)
from animagic.timeline.schedulers import SCHEDULERS

SHAPE = (2, 2, 7, 3, 2)
NOISY = ("euler_a", "lcm")
WHAT_MATTERS = [
    *((name, {}) for name in SCHEDULERS),
    ("ddim", {"clip_sample": True, "timestep_spacing": "trailing"}),
    ("euler", {"timestep_spacing": "trailing"}),
    ("dpm++_2m", {"algorithm_type": "sde-dpmsolver++"}),
    ("lcm", {"original_inference_steps": 100}),
]
anyone = pytest.mark.parametrize(("name", "config"), WHAT_MATTERS, ids=lambda value: str(value))


def randn(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Frames are alone: windows cannot change what is predicted."""
    return torch.sin(2 * latents + 0.01 * float(timestep)) + 0.3 * latents


def denoiser(solver: SchedulerSolver):
    return lambda latents, window: network(
        solver.model_input(latents, window.levels[0]), solver.timesteps[window.levels[0]]
    )


def sampler(solver: SchedulerSolver, latents: torch.Tensor, plan: Plan | None = None, **settings) -> Sampler:
    plan = plan or WholeClip(latents.shape[2], solver.num_steps)
    timeline = Timeline(lambda frames: latents[:, :, frames.start : frames.stop])
    return Sampler(plan, denoiser(solver), solver, timeline, **settings)


def ours(solver: SchedulerSolver, latents: torch.Tensor, plan: Plan | None = None) -> torch.Tensor:
    (clean,) = sampler(solver, latents, plan).run()
    return clean.latents


def by_hand(scheduler, latents: torch.Tensor, num_steps: int, generator=None) -> torch.Tensor:
    scheduler.set_timesteps(num_steps)
    latents = latents * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        prediction = network(scheduler.scale_model_input(latents, timestep), timestep)
        drawn = {} if type(scheduler).__name__.startswith(("PNDM", "UniPC", "Heun")) else {"generator": generator}
        latents = scheduler.step(prediction, timestep, latents, **drawn).prev_sample
    return latents


# The same numbers


@anyone
@pytest.mark.parametrize("num_steps", [1, 4, 9])
def test_a_scheduler_in_our_loop_gives_what_it_gives_by_hand(name, config, num_steps):
    expected = by_hand(build_scheduler(name, **config), randn(), num_steps, torch.Generator().manual_seed(5))
    solver = SchedulerSolver(build_scheduler(name, **config), num_steps, torch.Generator().manual_seed(5))
    assert torch.equal(ours(solver, solver.initial_noise(randn())), expected)


@pytest.mark.parametrize("name", NOISY)
def test_a_generator_for_each_video(name):
    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (5, 6)]

    expected = by_hand(build_scheduler(name), randn(), 4, generators())
    solver = SchedulerSolver(build_scheduler(name), 4, generators())
    assert torch.equal(ours(solver, solver.initial_noise(randn())), expected)


@pytest.mark.parametrize("name", NOISY)
def test_without_a_generator_the_noise_follows_the_global_seed(name):
    def run(seed):
        torch.manual_seed(seed)
        solver = SchedulerSolver(build_scheduler(name), 4)
        return ours(solver, solver.initial_noise(randn()))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_a_scheduler_with_two_calls_a_step_has_more_levels():
    scheduler = HeunDiscreteScheduler(beta_start=0.00085, beta_end=0.012)
    solver = SchedulerSolver(scheduler, 5)
    assert solver.num_steps == 9
    assert torch.equal(ours(solver, solver.initial_noise(randn())), by_hand(scheduler, randn(), 5))
    assert SchedulerSolver(build_scheduler("pndm"), 5).num_steps == 6


@anyone
@pytest.mark.parametrize("closed_loop", [False, True])
def test_windows_change_nothing_where_frames_are_alone(name, config, closed_loop):
    """The scheduler is called once a step however many windows there are; the average of equals is the same."""
    latents = randn(shape=(1, 2, 23, 3, 2))
    whole, cut = (
        SchedulerSolver(build_scheduler(name, **config), 6, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    latents = whole.initial_noise(latents)
    plan = OverlappingWindows(23, cut.num_steps, size=8, overlap=3, stride=2, closed_loop=closed_loop)
    torch.testing.assert_close(ours(cut, latents, plan), ours(whole, latents), atol=1e-4, rtol=1e-4)


def test_the_scheduler_that_was_given_is_left_alone():
    scheduler = build_scheduler("dpm++_2m")
    before = dict(vars(scheduler))
    solver = SchedulerSolver(scheduler, 4)
    ours(solver, solver.initial_noise(randn()))
    assert all(vars(scheduler)[key] is value for key, value in before.items())
    assert scheduler.model_outputs == [None, None]


# A part of the schedule


@anyone
def test_strength_leaves_out_the_first_steps_as_diffusers_does(name, config):
    clean, noise = randn(1), randn(2)
    solver = SchedulerSolver(build_scheduler(name, **config), 10, torch.Generator().manual_seed(5), strength=0.6)
    got = ours(solver, solver.add_noise(clean, noise))

    scheduler = build_scheduler(name, **config)
    scheduler.set_timesteps(10)
    timesteps = scheduler.timesteps[4:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(4)
    assert torch.equal(solver.timesteps, timesteps)
    assert solver.num_steps == len(timesteps)
    latents, generator = scheduler.add_noise(clean, noise, timesteps[:1].repeat(2)), torch.Generator().manual_seed(5)
    for timestep in timesteps:
        prediction = network(scheduler.scale_model_input(latents, timestep), timestep)
        drawn = {"generator": generator} if name not in ("pndm", "unipc") else {}
        latents = scheduler.step(prediction, timestep, latents, **drawn).prev_sample
    assert torch.equal(got, latents)


@anyone
def test_noise_can_be_added_for_any_level_at_any_time(name, config):
    """Less and less of it, and without disturbing a run."""
    clean, noise = randn(1), randn(2)
    solver = SchedulerSolver(build_scheduler(name, **config), 6, torch.Generator().manual_seed(5))
    expected = ours(
        SchedulerSolver(build_scheduler(name, **config), 6, torch.Generator().manual_seed(5)),
        solver.add_noise(clean, noise),
    )
    distances = []

    def add(progress):
        distances.extend((solver.add_noise(clean, noise, i) - clean).norm().item() for i in range(solver.num_steps))

    (got,) = sampler(solver, solver.add_noise(clean, noise), on_step=add).run()
    assert torch.equal(got.latents, expected)
    once = distances[: solver.num_steps]
    assert distances == once * solver.num_steps
    assert all(a >= b for a, b in itertools.pairwise(once))
    assert once[-1] < 0.7 * once[0]


# Stopping and going on


def snapshot(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As it comes back from a file."""
    return load(save({key: value.contiguous() for key, value in state.items()}))


@anyone
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_run_resumes_exactly_after_any_step(name, config, strength):
    def make(seed):
        generator = [torch.Generator().manual_seed(seed + i) for i in range(2)]
        solver = SchedulerSolver(build_scheduler(name, **config), 8, generator, strength)
        plan = OverlappingWindows(7, solver.num_steps, size=4, overlap=2, closed_loop=True)
        return sampler(solver, solver.initial_noise(randn()), plan)

    states, kept = [], []
    whole = make(5)
    whole.on_step = lambda progress: (states.append(whole.state_dict()), kept.append(snapshot(whole.state_dict())))
    (expected,) = whole.run()
    for state, copy in zip(states[:-1], kept, strict=False):
        for given in (state, copy):
            resumed = make(77)  # the noise to come belongs to the state
            resumed.load_state_dict(given)
            (got,) = resumed.run()
            assert torch.equal(got.latents, expected.latents)
        again = whole  # a sampler that has run can be taken back
        again.load_state_dict(copy)
        again.on_step = None
        assert torch.equal(next(again.run()).latents, expected.latents)


def test_a_state_that_does_not_fit_is_refused():
    latents = randn()
    run = sampler(SchedulerSolver(build_scheduler("euler_a"), 4), latents)
    state = run.state_dict()
    one_each = [torch.Generator(), torch.Generator()]
    with pytest.raises(CheckpointError, match="has 1 generators, this one 2"):
        sampler(SchedulerSolver(build_scheduler("euler_a"), 4, one_each), latents).load_state_dict(state)
    del state["solver.note"]
    with pytest.raises(CheckpointError, match="lacks 'note'; it cannot be resumed"):
        run.load_state_dict(state)


# What it cannot run


class Stairs(Plan):
    num_steps = total_steps = 4

    def steps(self):
        yield Step((Window(range(7), (0, 0, 0, 1, 1, 1, 1)),))


class Halves(Plan):
    num_steps = total_steps = 4

    def steps(self):
        yield Step((Window(range(4), (0,) * 4),))
        yield Step((Window(range(3, 7), (0,) * 4),))


class TwoLevels(Plan):
    num_steps = total_steps = 4

    def steps(self):
        yield Step((Window(range(4), (0,) * 4), Window(range(4, 7), (1,) * 3)))


class Gap(Plan):
    num_steps = total_steps = 4

    def steps(self):
        yield Step((Window(range(3), (0,) * 3), Window(range(4, 7), (0,) * 3)))


@pytest.mark.parametrize("plan", [Stairs(), Halves(), TwoLevels(), Gap(), Staircase(2, 4, chunk_width=3)], ids=lambda plan: type(plan).__name__)
def test_frames_at_different_levels_are_refused(plan):
    solver = SchedulerSolver(build_scheduler("euler"), 4)
    with pytest.raises(InputError, match=r"through its levels together.*OverlappingWindows"):
        list(sampler(solver, randn(), plan).run())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "at least 1"),
        ({"num_steps": 4, "strength": 0.0}, "above 0 and at most 1"),
        ({"num_steps": 4, "strength": 1.5}, "above 0 and at most 1"),
        ({"num_steps": 4, "strength": 0.2}, "leaves none of 4 steps"),
        ({"num_steps": 51}, "LCMScheduler cannot make 51 steps"),
    ],
)
def test_settings_that_leave_nothing_to_do_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SchedulerSolver(build_scheduler("lcm"), **settings)


# By name


def test_the_schedule_is_that_of_animatediff():
    alphas = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), dim=0).float()
    for name in SCHEDULERS:
        torch.testing.assert_close(build_scheduler(name).alphas_cumprod, alphas, atol=1e-6, rtol=1e-6)
    ddim = SchedulerSolver(build_scheduler("ddim"), 25)
    assert ddim.timesteps[[0, 1, -1]].tolist() == [961, 921, 1]
    assert not ddim.scheduler.config.clip_sample


def test_few_step_models_can_be_run():
    trailing = build_scheduler("euler", timestep_spacing="trailing")  # AnimateDiff-Lightning
    assert SchedulerSolver(trailing, 4).timesteps.tolist() == [999, 749, 499, 249]
    assert SchedulerSolver(build_scheduler("lcm", original_inference_steps=4), 4).num_steps == 4


def test_another_scheduler_for_a_model_keeps_what_it_was_trained_with():
    base = DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
    euler = build_scheduler("euler", base, timestep_spacing="trailing")
    assert (euler.config.beta_schedule, euler.config.prediction_type) == ("scaled_linear", "v_prediction")
    assert euler.config.timestep_spacing == "trailing"
    assert build_scheduler("dpm++_2m_karras", base).config.use_karras_sigmas


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("dim", {}, "'dim' is unknown; choose one of ddim, euler"),
        ("euler", {"clip_sample": True}, "euler has no setting clip_sample; it knows .*timestep_spacing"),
        ("ddim", {"beta_schedule": "round"}, "ddim cannot be made so: .*round"),
    ],
)
@pytest.mark.parametrize("base", [None, DDIMScheduler()], ids=["new", "like another"])
def test_an_unknown_name_or_setting_is_named(name, config, message, base):
    with pytest.raises(InputError, match=message):
        build_scheduler(name, base, **config)
