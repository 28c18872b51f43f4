"""Training on several processes: each draws its own share, and together they make the step of one with all of it."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from animagic.training import Course, Stage, train

STEPS = 3


class Points(Dataset):
    """Item i is a batch that depends on i alone."""

    def __init__(self, seed: int, steps: int):
        pass

    def __getitem__(self, item):
        return {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(item))}


class Union(Dataset):
    """Item i is all that the processes drew in step i, with their noise."""

    def __init__(self, drawn: list[list[dict[str, torch.Tensor]]]):
        self.drawn = drawn

    def __getitem__(self, item):
        return {name: torch.cat([rank[item][name] for rank in self.drawn]) for name in ("x", "noise")}


class Run:
    """A recipe of one stage; keeps its model and what its objective was given, and leaves a mark where it writes."""

    def __init__(self, data, rank: int = 0):
        self.rank, self.drawn = rank, []
        stage = Stage("toy", self.start, lambda: self.loss, data, save=lambda task, _: self.mark(task.root, "saved"))
        self.course = Course([stage], lambda recipe, root: self.mark(root, "exported"))

    def mark(self, root: Path, what: str) -> Path:
        with open(root / "marks", "a") as file:
            file.write(f"{what} by {self.rank}\n")
        return root / what

    def start(self, task):
        file = task.root / "start.pt"
        if not file.exists():
            torch.manual_seed(self.rank)
            model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 4), nn.Tanh()), "head": nn.Linear(4, 1)})
            torch.save(model, file)
            self.mark(task.root, "started")
        self.model = torch.load(file, weights_only=False)
        return self.model, {}

    def loss(self, model, batch, generator):
        """Calls parts of the model by name, as the objectives of autoencoders do."""
        noise = batch.get("noise", torch.randn(8, 3, generator=generator))
        self.drawn.append({"x": batch["x"], "noise": noise})
        error = model["head"](model["body"](batch["x"] + noise)) - batch["x"].sum(1, keepdim=True)
        return error.square().mean(), {"size": float(noise.square().mean())}

    def __call__(self, folder: Path) -> Path:
        """Trains, and goes on for a step, as a run that is started again with more steps."""
        settings = {"steps": STEPS, "learning_rate": 0.05, "warmup": 0, "decay": 1, "workers": 0, "log_every": 1}
        recipe = {"toy": {"objective": {}, "data": {}, "training": {**settings, "save_every": 1}}}
        folder.mkdir(exist_ok=True)
        train(recipe, [self.course], folder)
        return train(recipe, [self.course], folder, steps=STEPS + 1)


def one_of_two(rank: int, folder: Path, port: int) -> None:
    """A process as torchrun starts it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    for state in (AcceleratorState, PartialState):  # of the process this one was forked from
        state._reset_state()
    run = Run(Points, rank)
    made = run(folder)
    torch.save((run.model.state_dict(), run.drawn, str(made)), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run of two processes: (its folder, [(weights, batches, result) of each])."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    method = "spawn" if torch.cuda.is_available() else "fork"  # a fork has the imports already
    torch.multiprocessing.start_processes(one_of_two, (folder, port), nprocs=2, start_method=method)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_every_process_draws_its_own_batches_and_noise(two):
    _, [(_, first, _), (_, second, _)] = two
    assert len(first) == len(second) == STEPS + 1
    for name in ("x", "noise"):
        seen = [drawn[name] for drawn in first + second]
        assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_only_the_main_process_writes(two):
    folder, [(*_, made), (*_, other)] = two
    marks = (folder / "marks").read_text().splitlines()
    assert marks == ["started by 0", "saved by 0", "exported by 0", "saved by 0", "exported by 0"]
    assert made == other == str(folder / "exported")
    log = (folder / "toy" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4]


def test_together_they_are_one_process_with_all_of_it(two, tmp_path):
    folder, [(weights, first, _), (others, second, _)] = two
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
    alone = Run(lambda seed, steps: Union([first, second]))
    alone(tmp_path)
    torch.testing.assert_close(weights, alone.model.state_dict())
    averages = [load_file(path / "toy" / "average.safetensors") for path in (folder, tmp_path)]
    torch.testing.assert_close(*averages)
    logs = [[json.loads(line) for line in (path / "toy" / "log.jsonl").open()] for path in (folder, tmp_path)]
    for name in ("loss", "gradient_norm", "size"):
        assert [line[name] for line in logs[0]] == pytest.approx([line[name] for line in logs[1]], abs=2e-6)
