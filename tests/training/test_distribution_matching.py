"""Distillation by distribution matching, on points in the plane."""

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.utils.data import Dataset

from animagic.errors import InputError
from animagic.timeline import FlowEuler, flow_levels
from animagic.training import Trainer, TrainingConfig, distribution_matching
from animagic.training.distribution_matching import (
    Discrete,
    Distillation,
    DistributionMatching,
    Examples,
    FlowMatching,
)

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False}
CENTRES = 1.5 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
GROUP = 16
"""Points of one sample: (2, GROUP) as latents of two channels."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def even(steps: int) -> torch.Tensor:
    return torch.linspace(0, 1, steps + 1)


def points(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 2): four heaps."""
    return CENTRES[torch.randint(4, (count,), generator=generator)] + 0.25 * torch.randn(count, 2, generator=generator)


class Heaps(Dataset):
    def __init__(self, size: int = 8):
        self.size = size

    def __len__(self):
        return 10_000

    def __getitem__(self, item):
        return {"points": points(self.size * GROUP, seeded(item)), "index": item}


class Velocity(nn.Module):
    """(size, 2, n) and times (size,) or (size, n) -> velocities of every point for itself."""

    def __init__(self, width: int = 64):
        super().__init__()
        layers = [nn.Linear(10, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)]
        self.body = nn.Sequential(*layers, nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, times):
        times = times[:, None].expand(len(x), x.shape[2]) if times.ndim == 1 else times
        angles = math.pi * times[..., None] * torch.tensor([0.5, 1.0, 2.0, 4.0])
        return self.body(torch.cat([x.mT, angles.sin(), angles.cos()], -1)).mT


@dataclass(kw_only=True)
class Matching(DistributionMatching):
    delayed: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.diffusion, self.asked = FlowMatching(even), []

    def examples(self, batch, generator):
        clean = batch["points"].reshape(-1, GROUP, 2).mT.contiguous()
        delays = torch.arange(GROUP).expand(len(clean), GROUP) // 6 if self.delayed else None
        return Examples(clean, "all", batch.get("weights"), delays)

    def predict(self, network, noisy, times, conditions):
        assert conditions == "all"
        return network(noisy, times)

    def guided(self, noisy, times, conditions, attenuation):
        self.asked.append(attenuation)
        return self.teacher(noisy, times)


def fresh(width: int = 8, seed: int = 0) -> Velocity:
    torch.manual_seed(seed)
    return Velocity(width)


def distillation(teacher: nn.Module, student: nn.Module | None = None) -> Distillation:
    return Distillation(copy.deepcopy(student or teacher).requires_grad_(True), teacher)


# What comes out


@pytest.fixture(scope="module")
def teacher() -> Velocity:
    net, generator, steps = fresh(64), seeded(), 1500
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.0, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    for _ in range(steps):
        clean = points(256, generator).T[None]
        noise, times = (
            make(1, *shape, generator=generator) for make, *shape in ((torch.randn, 2, 256), (torch.rand, 256))
        )
        loss = (net(torch.lerp(noise, clean, times[:, None]), times) - (clean - noise)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    return net.requires_grad_(False)


@torch.no_grad()
def drawn(net: nn.Module, steps: int) -> torch.Tensor:
    """4,000 points by Euler steps."""
    x, times = torch.randn(1, 2, 4000, generator=seeded(5)), even(steps)
    for begin, end in pairwise(times):
        x = x + (end - begin) * net(x, begin[None])
    return x[0].T


def distance(x: torch.Tensor) -> float:
    """Sliced Wasserstein distance to the heaps."""
    directions = nn.functional.normalize(torch.randn(2, 64, generator=seeded()), dim=0)
    real = points(len(x), seeded(9))
    return float(((x @ directions).sort(0).values - (real @ directions).sort(0).values).abs().mean())


def trained(teacher, folder, steps: int, **settings) -> nn.Module:
    objective = Matching(teacher=teacher, student_every=3, last_share=1.0, **settings)
    training = {"learning_rate": 2e-3, "warmup": 0, "decay": steps - 200, "weight_decay": 0.0, "betas": (0.9, 0.99)}
    config = TrainingConfig(steps, **training, ema=0.98, workers=0, save_every=10_000, log_every=steps)
    return Trainer(distillation(teacher), objective, Heaps(), config, folder).run().student


def test_four_steps_are_as_good_as_many(teacher, tmp_path):
    student = trained(teacher, tmp_path, 600, ramp=150, base="teacher", teacher_steps=4)
    many, few, made = distance(drawn(teacher, 50)), distance(drawn(teacher, 4)), drawn(student, 4)
    assert few > 4 * many
    assert distance(made) < 1.5 * many
    nearest = torch.cdist(made, CENTRES).min(1)
    assert (nearest.indices.bincount(minlength=4) / len(made)).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert (nearest.values < 0.8).float().mean() > 0.9


def test_matching_alone_makes_samples_likelier(teacher, tmp_path):
    student = trained(teacher, tmp_path, 400, ramp=1, base_weight=0.0)
    assert distance(drawn(student, 4)) < 0.6 * distance(drawn(teacher, 4))


# Who learns from what


def gradients(model: Distillation, index: int, **settings) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    objective = Matching(teacher=fresh(seed=3).requires_grad_(False), ramp=10, **settings)
    loss, _ = objective(model, {**Heaps()[0], "index": index}, seeded(1))
    loss.backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    return {name: p.grad for name, p in model.named_parameters()}


def of(part: str, found: dict) -> list:
    return [grad for name, grad in found.items() if name.startswith(part)]


def test_the_student_learns_once_in_a_while_and_the_critic_always():
    model = distillation(fresh())
    for index in range(6):
        found = gradients(model, index, student_every=3)
        assert all(grad is not None for grad in of("critic", found))
        assert all((grad is not None) == (index in (2, 5)) for grad in of("student", found)), index


def test_each_loss_reaches_its_own_network(monkeypatch):
    model = distillation(fresh(), fresh(seed=1))
    both, alone = gradients(model, 4), gradients(model, 3)
    for one, other in zip(of("critic", both), of("critic", alone), strict=True):
        torch.testing.assert_close(one, other)
    error = DistributionMatching._critic_error
    monkeypatch.setattr(DistributionMatching, "_critic_error", lambda *given: error(*given).detach())
    without = gradients(model, 4)
    assert all(grad is None for grad in of("critic", without))
    for one, other in zip(of("student", both), of("student", without), strict=True):
        assert one.any()
        torch.testing.assert_close(one, other)


def test_the_gradient_of_matching():
    """(fake - real) / mean |sample - real|, as each latent counts."""
    sample = torch.randn(3, 2, GROUP, generator=seeded()).requires_grad_(True)
    real, fake = (torch.randn(3, 2, GROUP, generator=seeded(seed)) for seed in (1, 2))
    weights = torch.rand(3, 1, GROUP, generator=seeded(3)) + 0.5

    def finds(clean):
        return lambda noisy, times: (clean - noisy) / (1 - times)[:, None, None]

    objective = Matching(teacher=finds(real))
    made = torch.ones(3, 1, 1, dtype=torch.bool)
    loss, _ = objective._mismatch(finds(fake), sample, made, Examples(real, "all", weights), seeded())
    loss.backward()
    expected = (fake - real) / (sample - real).abs().mean((1, 2), keepdim=True)
    expected = expected * weights / (2 * weights.sum())
    torch.testing.assert_close(sample.grad, expected.detach(), rtol=1e-3, atol=1e-6)


def test_guidance_is_weaker_only_where_samples_are_judged():
    objective = Matching(teacher=fresh(), student_every=1, attenuation=3.0, base="teacher", teacher_steps=2)
    objective(distillation(fresh()), Heaps()[0], seeded())
    assert objective.asked == [3.0, 1.0, 1.0]


def test_weights_over_the_steps():
    objective = Matching(teacher=fresh(), ramp=100, base_weight=0.2, matching_weight=2.0)
    assert [objective.weights_at(step) for step in (0, 50, 100, 900)] == [
        (1.0, 0.0), pytest.approx((0.6, 1.0)), pytest.approx((0.2, 2.0)), pytest.approx((0.2, 2.0))
    ]  # fmt: skip


def test_weights_count(monkeypatch):
    model, made = distillation(fresh(), fresh(seed=1)), {"student_every": 1, "ramp": 4, "base_weight": 0.5}
    objective = Matching(teacher=fresh(), **made)
    loss, values = objective(model, Heaps()[0] | {"index": 2}, seeded())
    monkeypatch.setattr(objective, "_mismatch", lambda *_: (torch.tensor(7.0), torch.tensor(3.0)))
    replaced, other = objective(model, Heaps()[0] | {"index": 2}, seeded())
    assert values["critic"] == other["critic"]
    assert replaced.item() == pytest.approx((other["critic"] + 0.5 * 7 + 0.75 * other["base"]).item(), rel=1e-5)
    assert loss != replaced


def test_several_processes_count_as_one(monkeypatch):
    monkeypatch.setattr(distribution_matching, "processes", lambda: SimpleNamespace(num_processes=2))
    model = distillation(fresh())
    learns = [all(g is not None for g in of("student", gradients(model, i, student_every=2))) for i in range(6)]
    assert learns == [False, False, True, True, False, False]


def test_regions_count():
    """Where the weight is zero, nothing is learned."""
    batch = Heaps()[0]
    other = batch | {"points": batch["points"].clone().reshape(-1, GROUP, 2)}
    other["points"][:, 8:] += 3
    other["points"] = other["points"].reshape(-1, 2)
    weights = torch.cat([torch.ones(1, 1, 8), torch.zeros(1, 1, 8)], 2)
    objective = Matching(teacher=fresh(), matching_weight=0.0)
    model = distillation(fresh())
    losses = [
        objective(model, one | {"weights": w}, seeded())[0].item() for one in (batch, other) for w in (weights, None)
    ]
    assert losses[0] == pytest.approx(losses[2])
    assert losses[1] != pytest.approx(losses[3])


# Training


def final(folder) -> dict:
    state = torch.load(folder / "state.pt", weights_only=True)
    moments = {(i, name): x for i, one in state["optimisers"][0]["state"].items() for name, x in one.items()}
    return {**state["model"], **{f"average.{name}": x for name, x in state["average"].items()}, **moments}


def quick(folder, steps: int = 7, **settings) -> Trainer:
    config = TrainingConfig(steps, learning_rate=0.01, warmup=0, decay=1, workers=0, save_every=4, log_every=1)
    objective = Matching(teacher=fresh(seed=3).requires_grad_(False), ramp=4, student_every=3, **settings)
    return Trainer(distillation(fresh()), objective, Heaps(), config, folder)


def test_resumed_it_is_the_same(tmp_path):
    quick(tmp_path / "whole").run()
    asked = iter(range(100))
    broken = quick(tmp_path / "broken")
    broken.run(stop=lambda: next(asked) == 3)  # after step 4: in between two steps of the student
    assert broken.step == 4
    quick(tmp_path / "broken").run()
    whole, broken = final(tmp_path / "whole"), final(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_steps_of_the_critic_leave_the_student_alone(tmp_path):
    """Weights (there is weight decay) and moments."""
    trainer, seen = quick(tmp_path), []
    first = copy.deepcopy(trainer.model.student.state_dict())

    def look() -> bool:
        state = trainer.optimisers[0].state
        moments = [state[p]["exp_avg"].clone() for p in trainer.model.student.parameters() if p in state]
        seen.append([*(x.clone() for x in trainer.model.student.state_dict().values()), *moments])
        return False

    trainer.run(stop=look)
    same = [len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in pairwise(seen)]
    assert all(map(torch.equal, seen[1], first.values()))
    assert same == [True, False, True, True, False]  # not asked after the last one


def test_without_matching_there_is_no_critic(tmp_path):
    objective = Matching(teacher=fresh(seed=3), matching_weight=0.0, base="teacher", teacher_steps=2)
    model = Distillation(fresh(), None)
    loss, values = objective(model, Heaps()[0], seeded())
    loss.backward()
    assert values.keys() == {"base"}
    assert all(p.grad is not None for p in model.student.parameters())


# Noise, steps and levels


@pytest.fixture(params=["flow", "epsilon", "v_prediction"])
def diffusion(request):
    return FlowMatching() if request.param == "flow" else Discrete({**SCHEDULE, "prediction_type": request.param})


def test_predictions_stand_for_clean_latents_and_noise(diffusion):
    clean, noise = (torch.randn(5, 3, 4, 2, generator=seeded(seed)) for seed in (0, 1))
    times = diffusion.sample_times(5, seeded())
    assert times.shape == (5,)
    for given in (times, times[:, None].expand(5, 4)):
        noisy, target = diffusion.add_noise(clean, noise, given), diffusion.target(clean, noise, given)
        for one, other in zip(diffusion.split(target, noisy, given), (clean, noise), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    if isinstance(diffusion, Discrete):
        scheduler = DDIMScheduler(**SCHEDULE)
        torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, times))
        expected = scheduler.get_velocity(clean, noise, times) if diffusion.velocity else noise
        torch.testing.assert_close(target, expected)
    else:
        torch.testing.assert_close(target, clean - noise)


def test_two_states_tell_what_they_are_made_of(diffusion):
    clean, noise = (torch.randn(4, 3, 4, 2, generator=seeded(seed)) for seed in (0, 1))
    times = diffusion.schedule(4)
    begins, ends = times[:4], times[1:]
    begin, end = diffusion.add_noise(clean, noise, begins), diffusion.add_noise(clean, noise, ends)
    for one, other in zip(diffusion.between(begin, end, begins, ends), (clean, noise), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(diffusion.add_noise(clean, noise, times[-1:].expand(4)), clean)
    assert all(torch.isfinite(x).all() for x in diffusion.between(begin, begin, begins, begins))


def net(x, times):
    return torch.sin(3 * x) + 0.1 * times.reshape(len(times), 1, -1)


def last_sample(objective: Matching) -> torch.Tensor:
    return objective.sample(net, Examples(torch.zeros(2, 2, GROUP), "all"), seeded())[0]


def test_samples_are_those_of_euler():
    objective = Matching(teacher=fresh(), last_share=1.0)
    objective.diffusion = FlowMatching()
    generator = seeded()
    torch.rand(2, generator=generator)
    x, solver = torch.randn(2, 2, GROUP, generator=generator), FlowEuler(flow_levels(4))
    for level in range(4):
        x = solver.step(x[..., None, None], net(x, solver.times[level].expand(2))[..., None, None], [level] * GROUP)
        x = x[..., 0, 0]
    torch.testing.assert_close(last_sample(objective), x)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [4, 5, 8])
def test_samples_are_those_of_ddim(predicts, steps):
    config = {**SCHEDULE, "prediction_type": predicts, **Discrete.student_scheduler}
    objective = Matching(teacher=fresh(), last_share=1.0, sampling_steps=steps)
    objective.diffusion, scheduler = Discrete(config), DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    assert objective.diffusion.schedule(steps).tolist() == [*scheduler.timesteps.tolist(), -1]
    generator = seeded()
    torch.rand(2, generator=generator)
    x = torch.randn(2, 2, GROUP, generator=generator)
    for time in scheduler.timesteps:
        x = scheduler.step(net(x, time.expand(2)), time, x).prev_sample
    torch.testing.assert_close(last_sample(objective), x, rtol=1e-3, atol=1e-3)


def test_every_step_is_learned_from(monkeypatch):
    """Half of the time the last step; else any."""
    objective, seen = Matching(teacher=fresh(), last_share=0.5), []
    monkeypatch.setattr(objective, "predict", lambda network, noisy, times, _: seen.append(times) or noisy)
    counts = [0] * 4
    for seed in range(400):
        seen.clear()
        objective.sample(None, Examples(torch.zeros(1, 2, GROUP), "all"), seeded(seed))
        counts[len(seen) - 1] += 1
    assert counts == pytest.approx([50, 50, 50, 250], abs=30)


def test_frames_that_stand_behind():
    """Frames that are finished stay as they are, later ones go on beside them."""
    objective = Matching(teacher=fresh(), delayed=True, last_share=1.0, sampling_steps=3)
    seen = []
    objective.predict = lambda network, noisy, times, _: seen.append((noisy, times)) or net(noisy, times)
    examples = objective.examples(Heaps()[0], seeded())
    sample, made = objective.sample(None, examples, seeded())
    third = 1 / 3
    assert [x[0, [0, 6, 12]].tolist() for _, x in seen] == [
        pytest.approx(row)
        for row in ([0, 0, 0], [third, 0, 0], [2 * third, third, 0], [1, 2 * third, third], [1, 1, 2 * third])
    ]
    states = [x for x, _ in seen]
    assert torch.equal(states[3][:, :, :6], states[4][:, :, :6])
    assert torch.equal(sample[:, :, :12], states[4][:, :, :12])
    assert made[0, 0].tolist() == [False] * 12 + [True] * 4
    assert torch.equal(states[0][:, :, 12:], states[2][:, :, 12:])
    loss, _ = Matching(teacher=fresh(), delayed=True, student_every=1, base="teacher", teacher_steps=2)(
        distillation(fresh()), Heaps()[0], seeded()
    )
    assert torch.isfinite(loss)


def test_many_steps_of_the_teacher_at_once(diffusion):
    objective = Matching(teacher=net, teacher_steps=3)
    objective.diffusion = diffusion
    clean = torch.randn(4, 2, GROUP, generator=seeded())
    examples, level = Examples(clean, "all"), torch.arange(4)
    begins, ends = objective._times(level), objective._times(level + 1)
    noisy = diffusion.add_noise(clean, torch.randn(clean.shape, generator=seeded(1)), begins)
    learned, noise = objective._taught(noisy, level, examples)
    target = diffusion.target(learned, noise, begins)
    state, fine = noisy, diffusion.schedule(12)
    for i in range(3):
        now, then = fine[3 * level + i], fine[3 * level + i + 1]
        state = diffusion.add_noise(*diffusion.split(net(state, now), state, now), then)
    reached = diffusion.add_noise(*diffusion.split(target, noisy, begins), ends)
    torch.testing.assert_close(reached, state, rtol=1e-3, atol=2e-3)


def test_other_predictions_are_refused():
    with pytest.raises(InputError, match="predict sample cannot be trained here"):
        Discrete({**SCHEDULE, "prediction_type": "sample"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampling_steps": 0}, "sampling_steps must be at least 1, not 0"),
        ({"attenuation": 0.5}, "attenuation must be at least 1, not 0.5"),
        ({"last_share": 2}, "last_share must be from 0 to 1, not 2"),
        ({"base": "both"}, "base 'both' is unknown; choose data or teacher"),
        ({"base_weight": 0.0, "matching_weight": 0.0}, "must not be negative, and not both 0"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(InputError, match=said):
        Matching(teacher=fresh(), **settings)
