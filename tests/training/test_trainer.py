"""The trainer: rates, averages, logs, and going on as if nothing had happened."""

import json
import math
import multiprocessing
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from animagic.errors import CheckpointError, InputError
from animagic.training import Trainer, TrainingConfig

QUICK = {"learning_rate": 0.05, "warmup": 0, "decay": 1, "workers": 0, "log_every": 1, "save_every": 3}


class Points(Dataset):
    """Item `step` is a batch that depends on the step alone."""

    def __len__(self):
        return 1000

    def __getitem__(self, step):
        return {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(step))}


def objective(model, batch, generator):
    """A random regression: the randomness of a step must come back with the step."""
    noise = torch.randn(8, 3, generator=generator)
    loss = (model(batch["x"] + 0.1 * noise) - batch["x"].sum(1, keepdim=True)).square().mean()
    return loss, {"noise": float(noise.mean()), "nothing": float("nan")}


def toy(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def trainer(folder, steps: int = 6, *, model=None, objective=objective, on_log=None, **settings) -> Trainer:
    config = TrainingConfig(steps=steps, **{**QUICK, **settings})
    return Trainer(toy() if model is None else model, objective, Points(), config, folder, on_log)


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a finished run leaves: weights, average, optimiser."""
    state = torch.load(folder / "state.pt", weights_only=True)
    moments = {
        f"optimiser.{kind}.{i}.{name}": torch.as_tensor(value)
        for kind, optimiser in enumerate(state["optimisers"])
        for i, moments in optimiser["state"].items()
        for name, value in moments.items()
    }
    average = {f"average.{k}": v for k, v in load_file(folder / "average.safetensors").items()}
    return {**state["model"], **average, **moments, "step": torch.tensor(state["step"])}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


class Stop:
    """Interrupts a run when a step is logged."""

    def __init__(self, step: int):
        self.step = step

    def __call__(self, line):
        if line["step"] == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def pictures():
    """A test that takes this fixture gets loss.png; for the others drawing it would be most of their time."""


@pytest.fixture(autouse=True)
def _pictures_on_request(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)


# The learning rate


def test_the_rate_warms_up_stays_and_falls_to_zero():
    config = TrainingConfig(steps=100, warmup=10, decay=20)
    rates = [config.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[9:81] == [1.0] * 72
    assert rates[80:] == pytest.approx([(20 - i) / 20 for i in range(20)])
    assert all(0 < rate <= 1 for rate in rates)


@pytest.mark.parametrize(("warmup", "decay"), [(0, 0), (0, 1), (1, 0)])
def test_a_rate_without_warmup_or_decay_is_constant(warmup, decay):
    config = TrainingConfig(steps=5, warmup=warmup, decay=decay)
    assert [config.rate(step) for step in range(5)] == [1.0] * 5


def test_a_short_run_never_reaches_the_peak():
    config = TrainingConfig(steps=4, warmup=100, decay=100)
    assert [config.rate(step) for step in range(4)] == pytest.approx([0.01, 0.02, 0.02, 0.01])


def test_the_optimiser_is_given_the_rate(tmp_path):
    rates = []
    run = trainer(tmp_path, warmup=3, decay=2, on_log=lambda _: rates.append(run.optimisers[0].param_groups[0]["lr"]))
    run.run()
    assert rates == pytest.approx([0.05 * run.config.rate(step) for step in range(6)])


def test_vectors_are_not_decayed(tmp_path):
    groups = trainer(tmp_path, weight_decay=0.3).optimisers[0].param_groups
    assert [(group["weight_decay"], {p.ndim for p in group["params"]}) for group in groups] == [
        (0.3, {2}),
        (0.0, {1}),
    ]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"optimiser": "sgd"}, {"log_every": 0}, {"save_every": 0}, {"precision": "fp8"}], ids=str
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError):
        TrainingConfig(**{"steps": 10, **wrong})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this device may have bfloat16")
def test_a_precision_that_the_device_lacks_is_refused(tmp_path):
    with pytest.raises(InputError, match="no bfloat16"):
        trainer(tmp_path, precision="bf16")


# The average


def test_the_average_follows_with_a_memory_that_grows(tmp_path):
    expected, model = [p.detach().clone() for p in toy().parameters()], toy()

    def follow(line):
        decay = min(0.2, line["step"] / (line["step"] + 9))  # (1 + i) / (10 + i) of step i = 0, 1, ...
        for average, current in zip(expected, model.parameters(), strict=True):
            average.mul_(decay).add_(current.detach(), alpha=1 - decay)

    average = trainer(tmp_path, model=model, ema=0.2, on_log=follow).run()
    for ours, reference in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, reference)
        assert not ours.requires_grad
    assert not average.training
    assert_same(average.state_dict(), load_file(tmp_path / "average.safetensors"))


def test_frozen_weights_stay_as_they_are(tmp_path):
    model = toy()
    model[0].requires_grad_(False)
    before = {k: v.clone() for k, v in model[0].state_dict().items()}
    average = trainer(tmp_path, model=model).run()
    assert_same(before, model[0].state_dict())
    assert_same(before, average[0].state_dict())


# Going on


@pytest.mark.parametrize("stopped_at", [1, 2, 4, 5])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, stopped_at):
    trainer(tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "parts", on_log=Stop(stopped_at)).run()
    again = trainer(tmp_path / "parts", model=toy(seed=1))  # what it starts with does not matter if it was saved
    assert again.step == (3 if stopped_at > 3 else 0)
    if again.step == 0:
        again = trainer(tmp_path / "parts")
    again.run()
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


def deep() -> torch.nn.Module:
    torch.manual_seed(0)
    blocks = torch.nn.ModuleList([torch.nn.Linear(3, 3)])
    return torch.nn.ModuleDict({"blocks": blocks, "head": torch.nn.Linear(3, 1)})


def deep_objective(model, batch, generator):
    return (model["head"](model["blocks"][0](batch["x"])) - 1).square().mean(), {}


def test_muon_takes_the_matrices_of_repeated_blocks_and_resumes(tmp_path):
    settings = {"objective": deep_objective, "optimiser": "muon"}
    run = trainer(tmp_path / "whole", model=deep(), **settings)
    muon, adamw = ([tuple(p.shape) for group in o.param_groups for p in group["params"]] for o in run.optimisers)
    assert (muon, adamw) == ([(3, 3)], [(1, 3), (3,), (1,)])
    run.run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "parts", model=deep(), on_log=Stop(4), **settings).run()
    trainer(tmp_path / "parts", model=deep(), **settings).run()
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    other = trainer(tmp_path / "other", model=deep(), objective=deep_objective)
    other.run()
    assert not torch.equal(other.average["blocks"][0].weight, run.average["blocks"][0].weight)


def test_loading_ahead_in_a_process_changes_nothing(tmp_path):
    trainer(tmp_path / "here").run()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "ahead", workers=1, on_log=Stop(4)).run()
    trainer(tmp_path / "ahead", workers=1).run()
    assert_same(final_state(tmp_path / "here"), final_state(tmp_path / "ahead"))


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = trainer(tmp_path).run()
    again = trainer(tmp_path, on_log=Stop(1), model=toy(seed=1))
    assert again.step == 6
    assert_same(first.state_dict(), again.run().state_dict())


def test_a_finished_run_can_be_made_longer(tmp_path):
    trainer(tmp_path, decay=0).run()
    longer = trainer(tmp_path, steps=9, decay=0)
    assert longer.step == 6
    longer.run()
    trainer(tmp_path / "at once", steps=9, decay=0).run()
    assert_same(final_state(tmp_path), final_state(tmp_path / "at once"))


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer(tmp_path / name, seed=seed).run()
    assert_same(final_state(tmp_path / "a"), final_state(tmp_path / "b"))
    assert not torch.equal(final_state(tmp_path / "a")["0.weight"], final_state(tmp_path / "c")["0.weight"])


def test_a_run_that_is_told_to_stop_saves_and_goes_on_later(tmp_path):
    trainer(tmp_path / "whole", steps=8).run()
    saved, first = [], trainer(tmp_path / "parts", steps=8, log_every=3)
    first.run(saved.append, stop=lambda: first.step == 5)
    assert (saved, first.finished) == ([3, 5], False)
    second = trainer(tmp_path / "parts", steps=8, log_every=3)
    second.run(saved.append, stop=threading.Event().is_set)
    assert (saved, second.finished) == ([3, 5, 6, 8], True)
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == [3, 5, 6, 8]


def test_a_folder_of_another_model_is_refused(tmp_path):
    trainer(tmp_path).run()
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit this recipe"):
        trainer(tmp_path, model=nn.Linear(3, 1))


def test_the_average_goes_on_from_the_state_and_not_from_the_file_beside_it(tmp_path):
    """The two files cannot be replaced in one instant, so only one of them counts."""
    before = trainer(tmp_path).run().state_dict()
    (tmp_path / "average.safetensors").unlink()
    assert_same(before, trainer(tmp_path).average.state_dict())


@pytest.mark.parametrize(
    "dies_at",
    [
        "average.new",
        "state.new",
    ],
)
def test_a_crash_while_saving_leaves_a_whole_checkpoint(tmp_path, monkeypatch, dies_at):
    trainer(tmp_path / "whole").run()
    replace, saves = Path.replace, []

    def dying(self, target):
        saves.append(self.name)
        if self.name == dies_at and saves.count(dies_at) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "crashed").run()
    monkeypatch.undo()
    trainer(tmp_path / "crashed").run()
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "crashed"))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_torn_checkpoint_leaves_the_one_before_it(tmp_path):
    trainer(tmp_path / "whole", steps=9).run()
    trainer(tmp_path / "torn", steps=9).run(stop=lambda: False)
    torn(tmp_path / "torn" / "state.pt")
    with pytest.warns(UserWarning, match=r"state\.pt is damaged"):
        again = trainer(tmp_path / "torn", steps=9)
    assert again.step == 6
    again.run()
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "torn"))


def test_torn_checkpoints_are_not_taken_for_none(tmp_path):
    trainer(tmp_path).run()
    torn(tmp_path / "state.pt")
    torn(tmp_path / "state.previous.pt")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match=r"state\.pt is damaged, and there is no other"),
    ):
        trainer(tmp_path)


def test_what_was_written_halfway_is_removed(tmp_path):
    trainer(tmp_path).run()
    (tmp_path / "state.new").write_bytes(b"half")
    trainer(tmp_path)
    assert not list(tmp_path.glob("*.new"))


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    refused = []

    def second(line):
        with pytest.raises(InputError, match="is being trained in by another process; wait, or stop that one"):
            trainer(tmp_path)
        refused.append(line["step"])

    trainer(tmp_path, on_log=second).run()
    assert refused == [1, 2, 3, 4, 5, 6]
    assert trainer(tmp_path).finished


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_killed_process_leaves_a_folder_to_go_on_in(tmp_path):
    settings = {"steps": 60, "workers": 1}
    trainer(tmp_path / "whole", **settings).run()

    def train_slowly():
        trainer(tmp_path / "killed", **settings, on_log=lambda _: time.sleep(0.05)).run()

    process = multiprocessing.get_context("fork").Process(target=train_slowly)
    process.start()
    while process.is_alive() and not (tmp_path / "killed" / "state.previous.pt").exists():
        time.sleep(0.01)
    with pytest.raises(InputError):
        trainer(tmp_path / "killed", **settings)
    process.kill()
    process.join()
    again = trainer(tmp_path / "killed", **settings)
    assert 3 <= again.step < 60
    again.run()
    assert_same(final_state(tmp_path / "whole"), final_state(tmp_path / "killed"))


# Logs


def test_every_line_of_the_log_is_a_mean_over_its_steps(tmp_path, pictures):
    seen, losses = [], []

    def watched(model, batch, generator):
        loss, figures = objective(model, batch, generator)
        losses.append(loss.item())
        return loss, figures

    trainer(tmp_path, steps=7, log_every=3, objective=watched, on_log=seen.append).run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == seen
    assert [line["step"] for line in lines] == [3, 6, 7]
    means = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]]
    assert [line["loss"] for line in lines] == pytest.approx(means, abs=1e-5)
    # A figure that had no sample is left out.
    work = {"seconds_per_step", "samples", "pflop", "gflops", "share_of_matmul"}
    assert all(set(line) == {"step", "loss", "gradient_norm", "noise", *work} for line in lines)
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"


def test_the_log_tells_every_step_once_after_an_interruption(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, on_log=Stop(5)).run()
    trainer(tmp_path).run()
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_samples_and_arithmetic_are_summed_over_interruptions(tmp_path):
    lines = []
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, on_log=Stop(5)).run()
    trainer(tmp_path, on_log=lines.append).run()
    assert [line["samples"] for line in lines] == [32, 40, 48]
    step = 2 * 8 * (2 * 3 * 4 + 3 * 4 * 1)  # the data need no gradient
    assert [line["pflop"] for line in lines] == pytest.approx([n * step / 1e15 for n in (4, 5, 6)], rel=1e-3)
    assert all(line["gflops"] > 0 and line["share_of_matmul"] > 0 for line in lines)


def test_the_figures_of_an_objective_may_be_tensors(tmp_path):
    def with_tensors(model, batch, generator):
        loss, figures = objective(model, batch, generator)
        return loss, {name: torch.tensor(value) for name, value in figures.items()}

    plain, tensors = [], []
    trainer(tmp_path / "plain", on_log=plain.append).run()
    trainer(tmp_path / "tensors", objective=with_tensors, on_log=tensors.append).run()
    assert [line["noise"] for line in tensors] == pytest.approx([line["noise"] for line in plain], abs=2e-6)
    assert "nothing" not in tensors[0]


def test_a_run_that_was_never_saved_leaves_no_lines(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, on_log=Stop(2)).run()
    trainer(tmp_path).run()
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == list(range(1, 7))


def test_a_run_may_be_saved_before_it_is_logged(tmp_path, pictures):
    trainer(tmp_path, save_every=2, log_every=5).run()
    assert (tmp_path / "loss.png").exists()


# Trouble


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    def breaks(model, batch, generator):
        loss, figures = objective(model, batch, generator)
        breaks.steps += 1
        return loss * (math.nan if breaks.steps == 5 else 1), figures

    breaks.steps = 0
    with pytest.raises(FloatingPointError, match="step 5: loss or gradient is not finite; lower the learning rate"):
        trainer(tmp_path, objective=breaks).run()
    state = final_state(tmp_path)
    assert state["step"] == 3
    assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.parametrize("trouble", ["infinite loss", "infinite gradient"])
def test_weights_that_are_no_numbers_are_never_saved(tmp_path, trouble):
    def breaks(model, batch, generator):
        loss, figures = objective(model, batch, generator)
        breaks.steps += 1
        if breaks.steps == 3:  # a step at which the run is saved
            loss = loss * math.inf if trouble == "infinite loss" else loss + (loss * 0).sqrt()
        return loss, figures

    breaks.steps = 0
    with pytest.raises(FloatingPointError):
        trainer(tmp_path, objective=breaks).run()
    if (tmp_path / "state.pt").exists():
        assert all(tensor.isfinite().all() for tensor in final_state(tmp_path).values())
