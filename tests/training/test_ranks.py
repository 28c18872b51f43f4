"""Training on several processes: each draws its own share, and together they make the step of one with all of it."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import nn
from torch.utils.data import Dataset

from animagic.training import Trainer, TrainingConfig

STEPS = 3


class Points(Dataset):
    """Item `step` is a batch that depends on the step alone."""

    def __getitem__(self, step):
        return {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(step))}


class Union(Dataset):
    """Item `step` is all that the processes drew in that step, with their noise."""

    def __init__(self, drawn: list[list[dict[str, torch.Tensor]]]):
        self.drawn = drawn

    def __getitem__(self, step):
        return {name: torch.cat([rank[step][name] for rank in self.drawn]) for name in ("x", "noise")}


class Objective:
    """Calls a part of the model by its name, as the objectives of an autoencoder do; remembers what it was given."""

    def __init__(self):
        self.drawn = []

    def __call__(self, model, batch, generator):
        noise = batch.get("noise", torch.randn(8, 3, generator=generator))
        self.drawn.append({"x": batch["x"], "noise": noise})
        error = model["head"](model["body"](batch["x"] + noise)) - batch["x"].sum(1, keepdim=True)
        return error.square().mean(), {"size": float(noise.square().mean())}


def train(folder: Path, batches: Dataset, steps: int = STEPS) -> tuple[Trainer, Objective]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 4), nn.Tanh()), "head": nn.Linear(4, 1)})
    config = TrainingConfig(steps, learning_rate=0.05, warmup=0, decay=1, workers=0, log_every=1, save_every=1)
    trainer = Trainer(model, objective := Objective(), batches, config, folder)
    trainer.run()
    return trainer, objective


def one_of_two(rank: int, folder: Path, port: int) -> None:
    """A process: trains, goes on for a step as a run that is started again does, and leaves what it saw."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    for state in (AcceleratorState, PartialState):  # of the process this one was forked from
        state._reset_state()
    _, objective = train(folder / "run", Points())
    trainer, more = train(folder / "run", Points(), STEPS + 1)
    average = trainer.average.state_dict()
    torch.save((trainer.model.state_dict(), average, objective.drawn + more.drawn), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes saw and learned: (folder, [(weights, average, batches) of each])."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = "spawn" if torch.cuda.is_available() else "fork"  # a fork has the imports already
    torch.multiprocessing.start_processes(one_of_two, (folder, port), nprocs=2, start_method=method)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_every_process_draws_its_own_batches_and_noise(two):
    _, [(_, _, first), (_, _, second)] = two
    assert len(first) == len(second) == STEPS + 1
    for name in ("x", "noise"):
        seen = [drawn[name] for drawn in first + second]
        assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_together_they_are_one_process_with_all_of_it(two, tmp_path):
    folder, [(weights, average, first), (others, other_average, second)] = two
    for ours, theirs in ((weights, others), (average, other_average)):
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    train(tmp_path, Union([first, second]))  # in two runs, as they did: the rate falls at the end of each
    alone, _ = train(tmp_path, Union([first, second]), STEPS + 1)
    torch.testing.assert_close(weights, alone.model.state_dict())
    torch.testing.assert_close(average, alone.average.state_dict())
    logs = [[json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
            for path in (folder / "run", tmp_path)]  # fmt: skip
    assert [line["step"] for line in logs[0]] == [1, 2, 3, 4]  # only one of them writes
    for name in ("loss", "gradient_norm", "size"):
        assert [line[name] for line in logs[0]] == pytest.approx([line[name] for line in logs[1]], abs=2e-6)
