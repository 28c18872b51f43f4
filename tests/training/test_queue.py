"""A queue of toy stages: order, marks, scores, stopping, and going on after the hardest of signals."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from animagic.errors import CheckpointError, InputError
from animagic.training import Course, Stage
from animagic.training.queue import Measured, Stop, Task, progress, work
from animagic.training.stages import average_of, prepare, with_start

TRAINING = {"steps": 6, "workers": 0, "log_every": 1, "save_every": 2, "warmup": 0, "decay": 1, "learning_rate": 0.1}


@dataclass
class Numbers(Dataset):
    seed: int
    steps: int

    def __getitem__(self, item):
        return {"x": torch.randn(8, 3, generator=torch.Generator().manual_seed(item))}


@dataclass
class Objective:
    shared: float = 0.0  # how much it draws from the generators that the whole process shares

    def __call__(self, model, batch, generator):
        noise = torch.randn(8, 1, generator=generator)
        noise = noise + self.shared * (torch.randn(8, 1) + random.random() + np.random.rand())
        return (model(batch["x"]) - noise).square().mean(), {}


def start(stage):
    torch.manual_seed(stage.config.seed)
    return with_start(nn.Linear(3, 1), stage.section), {}


def export(recipe, root):
    """A folder with what has been trained so far. Draws from every generator, as making a network does."""
    torch.rand(1), random.random(), np.random.rand()
    model = root / "model"
    for stage in ("first", "second"):
        (model / stage).mkdir(parents=True, exist_ok=True)
        if (root / stage / "average.safetensors").exists():
            save_file(average_of(root / stage), model / stage / "model.safetensors")
    return model


COURSES = [Course([Stage(name, start, Objective, Numbers) for name in ("first", "second")], export)]


@dataclass
class Judge:
    """Gives the scores of a list in turn, and keeps what it is asked to ship."""

    scores: list[float]
    best: float = -np.inf
    shipped: list[dict] = field(default_factory=list)
    on_measure: object = None

    def measure(self, model):
        if self.on_measure:
            self.on_measure()
        score = self.scores.pop(0)
        return Measured(score, {"colour": score}, {}, np.zeros((8, 8, 3), np.uint8))

    def score_to_beat(self):
        return self.best

    def ship(self, model, measured, line):
        self.best = measured.score
        self.shipped.append(line)


def task(
    root: Path, part: str = "first", judge=None, every: int = 2, begin: Path | None = None, objective=(), **training
) -> Task:
    section = {"objective": dict(objective), "data": {}, "training": {**TRAINING, **training}}
    recipe = json.loads(json.dumps({"first": section, "second": section}))
    return Task(prepare(recipe, COURSES, root, [part]), every, judge, begin)


def stop_at(step: int):
    def on_log(name: str, line: dict) -> None:
        if line["step"] == step:
            signal.raise_signal(signal.SIGTERM)

    return on_log


def lines(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "scores.jsonl").read_text().splitlines()]


def steps(root: Path, stage: str = "first") -> list[int]:
    return [json.loads(line)["step"] for line in (root / stage / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def charts():
    """A test that takes this fixture gets them; for the others drawing them would be most of their time."""


@pytest.fixture(autouse=True)
def _charts_on_request(request, monkeypatch):
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)
    if "charts" not in request.fixturenames:
        monkeypatch.setattr("animagic.training.progress._charts", lambda stage: "")


# What is kept where runs are not


def test_what_is_kept_goes_on_where_the_run_is_lost(tmp_path):
    kept = tmp_path / "kept"
    with Stop() as stop:
        work([replace(task(tmp_path / "run"), keep=kept)], stop, stop_at(4))
    reached = load_file(tmp_path / "run" / "first" / "average.safetensors")
    shutil.rmtree(tmp_path / "run")

    seen = []
    both = [replace(task(tmp_path / "run", name), keep=kept) for name in ("first", "second")]
    assert work(both, Stop(), lambda name, line: seen.append((name, line["step"], line["samples"])))
    assert seen[:2] == [("first", 6, 6 * 8), ("second", 1, 8)]  # the signal at 4 ended it after step 5
    average = load_file(tmp_path / "run" / "first" / "average.safetensors")
    assert all((average[name] - reached[name]).abs().max() < 0.1 for name in reached)
    assert {file.name for file in kept.iterdir()} == {"first.safetensors", "second.safetensors"}
    shutil.rmtree(tmp_path / "run")
    again = [replace(task(tmp_path / "run", name), keep=kept) for name in ("first", "second")]
    count = len(seen)
    assert work(again, Stop(), lambda name, line: seen.append(name))
    assert len(seen) == count  # what was finished is finished


# Order, and what is measured


def test_stages_are_trained_in_order_and_only_once(tmp_path):
    seen = []
    tasks = [task(tmp_path / "b", "second"), task(tmp_path / "a")]
    assert work(tasks, Stop(), on_log=lambda name, line: seen.append((name, line["step"])))
    assert seen == [(name, step) for name in ("second", "first") for step in range(1, 7)]
    assert work(tasks, Stop(), on_log=lambda name, line: seen.append((name, line["step"])))
    assert len(seen) == 12
    assert not (tmp_path / "a" / "scores.jsonl").exists()


def test_it_is_measured_at_the_marks_and_shipped_when_it_is_better(tmp_path):
    judge, heard = Judge([10.0, 30.0, 20.0], best=15.0), []
    assert work([task(tmp_path, judge=judge)], Stop(), on_score=lambda name, line: heard.append(line))
    assert [(line["step"], line["score"], line["to_beat"], line["shipped"]) for line in lines(tmp_path)] == [
        (2, 10.0, 15.0, False), (4, 30.0, 15.0, True), (6, 20.0, 30.0, False)]  # fmt: skip
    assert heard == lines(tmp_path)
    assert [line["step"] for line in judge.shipped] == [4]


def test_the_last_step_is_a_mark(tmp_path):
    judge = Judge([1.0, 2.0])
    assert work([task(tmp_path, judge=judge, every=4)], Stop())
    assert [line["step"] for line in lines(tmp_path)] == [4, 6]
    assert judge.shipped[0]["to_beat"] is None  # nothing was shipped before


def test_measuring_changes_nothing_in_training(tmp_path):
    shared = {"shared": 1.0}
    work([task(tmp_path / "a", objective=shared)], Stop())
    noisy = Judge([1.0, 2.0, 3.0], on_measure=lambda: (torch.rand(9), np.random.rand(9), random.random()))
    work([task(tmp_path / "b", judge=noisy, objective=shared)], Stop())
    assert_same(tmp_path / "a", tmp_path / "b")


def assert_same(a: Path, b: Path) -> None:
    one, other = (load_file(folder / "first" / "average.safetensors") for folder in (a, b))
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (torch.load(folder / "first" / "state.pt", weights_only=True)["model"] for folder in (a, b))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_mark_that_was_missed_is_made_up_for(tmp_path):
    assert work([task(tmp_path)], Stop())
    late = Judge([5.0])
    assert work([task(tmp_path, judge=late)], Stop())
    assert [line["step"] for line in lines(tmp_path)] == [6]
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_what_is_trained_anew_is_measured_anew(tmp_path):
    assert work([task(tmp_path, judge=Judge([1.0, 2.0, 3.0])), task(tmp_path, "second", Judge([4.0] * 3))], Stop())
    shutil.rmtree(tmp_path / "first")
    assert work([task(tmp_path, judge=Judge([5.0, 6.0, 7.0]))], Stop())
    assert [line["score"] for line in lines(tmp_path)] == [4.0, 4.0, 4.0, 5.0, 6.0, 7.0]


# Where it begins


def test_it_begins_from_shipped_weights_of_which_it_keeps_a_copy(tmp_path):
    shipped = tmp_path / "shipped"
    (shipped / "first").mkdir(parents=True)
    weights = {"weight": torch.full((1, 3), 7.0).half(), "bias": torch.zeros(1).half()}
    save_file(weights, shipped / "first" / "model.safetensors")
    settings = {"begin": shipped, "learning_rate": 1e-9}
    assert not work([task(tmp_path / "run", **settings)], Stop(seconds=1e-9))  # nothing is read before it is needed
    assert not (tmp_path / "run").exists()
    with Stop() as stop:
        assert not work([task(tmp_path / "run", **settings)], stop, on_log=stop_at(2))
    save_file({name: -tensor for name, tensor in weights.items()}, shipped / "first" / "model.safetensors")
    (tmp_path / "run" / "first" / "state.pt").unlink()  # killed before the first save
    assert work([task(tmp_path / "run", **settings)], Stop())
    assert average_of(tmp_path / "run" / "first")["weight"].tolist() == [pytest.approx([7.0] * 3)]
    with pytest.raises(CheckpointError, match="second"):
        work([task(tmp_path / "other", "second", begin=shipped)], Stop())


def test_shipped_weights_of_another_design_are_refused(tmp_path):
    (tmp_path / "shipped" / "first").mkdir(parents=True)
    save_file(
        {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "shipped" / "first" / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="weight has the shape"):
        work([task(tmp_path / "run", begin=tmp_path / "shipped")], Stop())


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves(tmp_path, number):
    work([task(tmp_path / "whole")], Stop())
    before = signal.getsignal(number)
    with Stop() as stop:
        hit = lambda name, line: signal.raise_signal(number) if line["step"] == 3 else None  # noqa: E731
        assert not work([task(tmp_path / "cut")], stop, on_log=hit)
        assert stop.signal == number
    assert signal.getsignal(number) is before
    assert steps(tmp_path / "cut")[-1] == 4  # it is asked after each step
    assert work([task(tmp_path / "cut")], Stop())
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_it_stops_when_its_time_is_over(tmp_path):
    assert not work([task(tmp_path / "run")], Stop(seconds=0))
    assert not (tmp_path / "run").exists()


def test_a_signal_while_measuring_leaves_the_mark_for_the_next_time(tmp_path):
    judge = Judge([1.0, 2.0, 3.0], on_measure=lambda: signal.raise_signal(signal.SIGTERM))
    with Stop() as stop:
        assert not work([task(tmp_path, judge=judge)], stop)
    assert steps(tmp_path) == [1, 2]
    judge.on_measure = None
    assert work([task(tmp_path, judge=judge)], Stop())
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]


def test_other_errors_are_not_hidden(tmp_path):
    def fail():
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError, match="no such luck"):
        work([task(tmp_path, judge=Judge([], on_measure=fail))], Stop())


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_queue import Stop, task, work

    def on_log(name, line):
        if line["step"] == 5:  # the last save was at step 4
            os.kill(os.getpid(), signal.SIGKILL)

    work([task(Path(sys.argv[1]), workers=1)], Stop(), on_log)
"""


def test_a_killed_queue_goes_on_to_the_same_weights(tmp_path):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(cut), str(Path(__file__).parent)]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert steps(cut) == [1, 2, 3, 4, 5]
    tasks = [task(cut, workers=1)]
    assert [(row.step, row.state) for row in progress(tasks)] == [(4, "waiting")]
    assert work(tasks, Stop())
    assert steps(cut) == [1, 2, 3, 4, 5, 6]
    assert work([task(whole)], Stop())
    assert_same(whole, cut)


HOLDING = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_queue import Stop, task, work

    def on_log(name, line):
        print(line["step"], flush=True)
        sys.stdin.read()

    work([task(Path(sys.argv[1]))], Stop(), on_log)
"""


def test_two_queues_do_not_train_in_one_folder(tmp_path, monkeypatch):
    command = [sys.executable, "-c", textwrap.dedent(HOLDING), str(tmp_path), str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, **pipes) as other:
        try:
            assert other.stdout.readline() == "1\n"
            tasks = [task(tmp_path), task(tmp_path, "second"), task(tmp_path / "else")]
            assert [row.state for row in progress(tasks)] == ["running", "waiting", "waiting"]
            monkeypatch.setattr("animagic.training.queue.PATIENCE", 0)
            with pytest.raises(InputError, match="another queue trains in"):
                work(tasks, Stop())
        finally:
            other.kill()
    assert [row.state for row in progress(tasks)] == ["waiting"] * 3


# What is shown


def test_progress_and_the_page(tmp_path, charts):
    tasks = [task(tmp_path, judge=Judge([41.5, 42.5, 43.5])), task(tmp_path, "second")]
    assert [row.state for row in progress(tasks)] == ["waiting", "waiting"]
    assert not list(tmp_path.iterdir())
    with Stop() as stop:
        work(tasks, stop, on_log=lambda name, line: name == "second" and stop_at(2)(name, line))
    first, second = progress(tasks)
    assert (first.stage, first.step, first.steps, first.score, first.state) == ("first", 6, 6, 43.5, "done")
    assert (second.step, second.score, second.state) == (3, None, "waiting")
    assert first.loss == json.loads((tmp_path / "first" / "log.jsonl").read_text().splitlines()[-1])["loss"]
    page = (tmp_path / "log.html").read_text()
    assert page.count("<svg") == 2  # a chart for each stage
    assert "3 of 6" in page
    assert "running" in page
    assert "first, step 6: score 43.5" in page
    assert "data:image/jpeg;base64,/9j/" in page
    assert set(re.findall(r"https?://[^/]+", page)) <= {"http://www.w3.org"}  # names, not addresses


@pytest.mark.parametrize(("every", "said"), [(3, "is saved every 2 steps"), (0, "every is 0")])
def test_marks_are_where_it_is_saved(tmp_path, every, said):
    with pytest.raises(InputError, match=said):
        task(tmp_path, every=every)
