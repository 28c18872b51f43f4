"""A queue file: what it may say, how its models are measured, what they replace; and the command that works at it."""

import json
import math
import os
import re
import signal
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from animagic import InputError, zoo
from animagic.evaluation import Result
from animagic.requests.queue import Entry, Evaluation, Judge, read_queue
from animagic.zoo import shipping

pytest.importorskip("skia", reason="drawing needs skia-python: pip install -e '.[train]'")

RECIPE = """
system: magi1
text_encoder: {base}
vae:
  model: {{embed_dim: 256, depth: 1, encoder_depth: 0, num_heads: 4, mlp_ratio: 1, video_length: 8, video_size: 32,
           z_chans: 4, linear_path: true, scaling_factor: 1.0}}
  pca_batches: 1
  objective: {{motion: 4.0}}
  data: &data {{batch_size: 1, num_frames: 8, height: 32, width: 32}}
  training: &training {{steps: 4, log_every: 1, save_every: 2, workers: 0}}
transformer:
  model: {{num_layers: 1, hidden_size: 32, ffn_hidden_size: 48, num_attention_heads: 4, num_query_groups: 2,
           kv_channels: 8, in_channels: 4, out_channels: 4, caption_channels: 8, caption_max_length: 12,
           chunk_width: 2}}
  objective: {{drop_text: 0.1, prefix: 0.2, text_length: 12}}
  data: *data
  training: *training
sampling:
  runtime_config: {{num_frames: 8, video_size_h: 32, video_size_w: 32, num_steps: 4, scale_factor: 1.0,
                   chunk_width: 2, cfg_t_range: [0.0], prev_chunk_scales: [1.0], text_scales: [3.0]}}
"""
QUEUE = """
queue:
  - {recipe: small.yaml, part: vae, every: 2}
  - recipe: small.yaml
    part: transformer
    every: 4
    evaluation: {suite: text, count: 1, frames: 8, steps: 4, score: [colour, motion]}
    model: shelf
"""


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> zoo.EmbeddedModel:
    """An embedded model that has a card, and no weights yet."""
    folder = tmp_path / "zoo" / "shelf"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# shelf\n\n<!-- scores -->\n\nnothing\n\n<!-- /scores -->\n")
    monkeypatch.setitem(zoo._MODELS, "shelf", zoo.EmbeddedModel("shelf", folder, "a toy"))
    return zoo.entry("shelf")


@pytest.fixture
def here(tmp_path, tiny_model, shelf, monkeypatch):
    """A folder with a recipe and a queue; charts are left out, and this process keeps its priority."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)
    monkeypatch.setattr("animagic.training.progress._charts", lambda stage: "")
    monkeypatch.setattr(os, "nice", lambda by: by)
    Path("small.yaml").write_text(RECIPE.format(base=tiny_model))
    Path("queue.yaml").write_text(QUEUE)
    return tmp_path


# What it may say


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must have a list of stages under `queue`"),
        ("queue: {}", "must have a list of stages"),
        ("queue: [vae]", "entry 1 must have fields, not 'vae'"),
        ("queue: [{recipe: small.yaml, part: vae}]", "entry 1: every is missing"),
        ("queue: [{recipe: small.yaml, part: vae, every: 0}]", "entry 1: every is 0"),
        ("queue: [{recipe: small.yaml, part: vae, every: 3}]", "saved every 2 steps"),
        ("queue: [{recipe: small.yaml, part: vae, evry: 2}]", "entry 1: evry is unknown"),
        ("queue: [{recipe: small.yaml, part: sound, every: 2}]", "the part 'sound' is unknown"),
        ("queue: [{recipe: none.yaml, part: vae, every: 2}]", "none.yaml cannot be read"),
        ("queue: [{recipe: small.yaml, part: vae, every: 2, start: nothing}]", "there is no model 'nothing'"),
        ("queue: [{recipe: small.yaml, part: vae, every: 2, model: shelf}]", "add an evaluation"),
        ("queue: [{recipe: small.yaml, part: vae, every: 2, evaluation: {suite: beauty, score: [x]}}]", "'beauty'"),
        (
            "queue: [{recipe: small.yaml, part: vae, every: 2, evaluation: {suite: text}}]",
            "evaluation: score is missing",
        ),
        (QUEUE.replace("model: shelf", "model: shelves"), "no model 'shelves'"),
        ("queue: {", "not valid YAML"),
    ],
)
def test_what_cannot_be_used_is_refused(here, text, said):
    Path("queue.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        read_queue("queue.yaml")
    assert not Path("runs").exists()


def test_the_queue_of_the_embedded_models_can_be_used(monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    tasks = read_queue("recipes/queue.yaml")
    entries = yaml.safe_load((root / "recipes" / "queue.yaml").read_text())["queue"]
    assert len(tasks) == len(entries)
    assert all(task.run.stages for task in tasks)
    assert {entry["model"] for entry in entries if "model" in entry} <= set(zoo.names())


# Measuring


@pytest.fixture
def judged(monkeypatch):
    """Evaluation gives this summary, and keeps what it is asked to measure."""
    asked = []
    summary = {"model": {"colour": {"percent": 90.0, "interval": [80, 95]}, "psnr": {"mean": 30.0, "median": 31.0}}}

    def evaluate(pipe, suite, model="", **settings):
        asked.append((model, settings))
        row = {"prompt": "a red ball", "seen": {}, "right": {}, "values": {"psnr": 30.0}}
        confusion = {name: {"shape": {"ball": {"ball": 3, "star": 1}, "ring": {"ball": 1}}} for name in summary}
        report = {"suite": suite, "model": model, "seed": 1, "frames": 8, "steps": 4, "guidance": None, "cases": 4}
        report |= {
            "summary": summary,
            "by split": {},
            "confusion": confusion,
            "rows": {name: [row] for name in summary},
        }
        return Result(report, {name: [np.zeros((8, 40, 3), np.uint8)] for name in summary})

    monkeypatch.setattr("animagic.evaluation.evaluate", evaluate)
    monkeypatch.setattr("animagic.requests.queue.load_pipeline", lambda model: None)
    return asked, summary


def judge(root: Path, score=("colour", "psnr"), model: str | None = "shelf", **settings) -> Judge:
    return Judge(
        Evaluation(suite="text", score=list(score), **settings),
        Entry(recipe="r.yaml", part="x", every=1, model=model),
        root,
    )


def test_the_score_is_the_mean_of_what_is_named(judged, shelf, tiny_model, tmp_path):
    asked, summary = judged
    measured = judge(tmp_path, count=4, steps=8).measure(tiny_model)
    assert (measured.score, measured.values) == (60.0, {"colour": 90.0, "psnr": 30.0})
    assert asked[0][1] == {"count": 4, "steps": 8, "loras": {}, "motion_loras": {}}
    with pytest.raises(InputError, match=r"the suite text gives no 'shape'; choose from colour, psnr"):
        judge(tmp_path, ["shape"]).measure(tiny_model)
    summary["drawn"] = {"colour": {"percent": 100.0}}
    assert judge(tmp_path, ["drawn/colour"]).measure(tiny_model).score == 100.0
    with pytest.raises(InputError, match=r"no 'colour'; choose from model/colour, model/psnr, drawn/colour"):
        judge(tmp_path, ["colour"]).measure(tiny_model)


def test_the_score_to_beat_is_that_of_the_same_evaluation(judged, shelf, tiny_model, tmp_path):
    asked, _ = judged
    assert judge(tmp_path, model=None).score_to_beat() == math.inf
    assert judge(tmp_path).score_to_beat() == -math.inf  # no weights yet
    one = judge(tmp_path, count=4)
    line = {"score": 60.0, "values": {"colour": 90.0}, "step": 10, "steps": 20, "stage": "x", "pflop": 0.5,
            "time": "2026-11-28T12:00:00+00:00"}  # fmt: skip
    one.ship(tiny_model, one.measure(tiny_model), line)
    assert one.score_to_beat() == 60.0
    asked.clear()
    assert judge(tmp_path, count=4).score_to_beat() == 60.0  # as scores.json says
    assert not asked
    assert judge(tmp_path, count=5).score_to_beat() == 60.0  # measured another way: once more
    assert judge(tmp_path, count=5).score_to_beat() == 60.0  # but only once
    assert [model for model, _ in asked] == ["shelf"]
    assert shipping.scores(shelf)["evaluation"] == {"suite": "text", "score": ["colour", "psnr"], "count": 4}


def test_the_card_says_what_was_measured(judged, shelf, tiny_model, tmp_path):
    one = judge(tmp_path)
    line = {"score": 60.0, "values": {"colour": 90.0, "psnr": 30.0}, "step": 1200, "steps": 3000, "stage": "x",
            "pflop": 0.53, "time": "2026-11-28T12:00:00+00:00"}  # fmt: skip
    one.ship(tiny_model, one.measure(tiny_model), line)
    card = (shelf.folder / "README.md").read_text()
    assert "nothing" not in card
    assert "| colour | 90.0 % (80 to 95) |" in card
    assert "By shape: ball 75%, ring 0%." in card
    assert "Score 60.0: the mean of colour, psnr. Step 1,200 of 3,000 of x in `r.yaml`, 0.53 PFLOP" in card
    assert zoo.load("shelf").transformer is not None


# The command


def test_the_command_trains_measures_and_ships(here, run, shelf):
    ran = run("train", "--queue", "queue.yaml")
    assert (ran.code, ran.out) == (0, ""), ran
    assert "transformer  step 4  score" in ran.err
    assert "shipped" in ran.err
    assert ran.err.endswith("queue.yaml is done: nothing in it is left to train\n")
    line = json.loads(Path("runs/small/scores.jsonl").read_text())
    assert (line["stage"], line["step"], line["shipped"], line["to_beat"]) == ("transformer", 4, True, None)
    assert line["pflop"] > 0
    for name in ("transformer", "vae"):
        weights = f"{name}/diffusion_pytorch_model.safetensors"
        assert (shelf.folder / weights).read_bytes() == (here / "runs/small/model" / weights).read_bytes()
    assert shipping.scores(shelf)["score"] == line["score"]
    assert "data:image/jpeg" in Path("runs/small/log.html").read_text()

    ran = run("train", "--queue", "queue.yaml", "--status", "--json")
    rows = json.loads(ran.out)["stages"]
    assert [(row["stage"], row["step"], row["steps"], row["state"]) for row in rows] == [
        ("vae", 4, 4, "done"), ("transformer", 4, 4, "done")]  # fmt: skip
    ran = run("train", "--queue", "queue.yaml", "--status")
    assert re.search(r"^runs/small +transformer +4 of 4 +[\d.]+ +[\d.]+ +\S+ +done$", ran.out, re.MULTILINE), ran.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_a_sentence(here, run, monkeypatch, number, code):
    def press(name, line):
        if line["step"] == 1:  # a second one would end it at once
            signal.raise_signal(number)

    monkeypatch.setattr("animagic.cli.training._say_log", press)
    ran = run("train", "--queue", "queue.yaml", "--json")
    assert ran.code == code
    assert "vae of runs/small is saved at step 2 of 4; the same command goes on from there" in ran.err
    assert json.loads(ran.out) == {"done": False, "stage": "vae", "step": 2, "steps": 4}


def test_it_ends_when_its_time_is_over(here, run):
    ran = run("train", "--queue", "queue.yaml", "--minutes", 1e-9)
    assert (ran.code, ran.out) == (0, "")
    assert "vae of runs/small is saved at step 0 of 4" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a recipe file, or a queue"),
        (["small.yaml", "--queue", "queue.yaml"], "are not for a queue"),
        (["--queue", "queue.yaml", "--steps", 3], "are not for a queue"),
        (["--queue", "queue.yaml", "--minutes", 0], "--minutes is 0"),
        (["small.yaml", "--status"], "are for a queue"),
        (["--queue", "none.yaml"], "none.yaml cannot be read"),
        (["--queue", "queue.yaml", "--threads", 0], "threads must be at least 1"),
    ],
)
def test_wrong_input_is_one_sentence(here, run, words, said):
    run("train", *words).refused(said)


KILLED = """
    import os, signal, sys
    import animagic.cli.training as command

    def kill(name, line):
        if (name, line["step"]) == ("transformer", 3):  # the last save was at step 2
            os.kill(os.getpid(), signal.SIGKILL)

    command._say_log = kill
    from animagic.cli import main
    sys.exit(main(["train", "--queue", "queue.yaml"]))
"""


def test_a_killed_command_goes_on_to_the_same_weights(here, run):
    import subprocess

    Path("queue.yaml").write_text(QUEUE[: QUEUE.index("    evaluation")])
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = torch.load("runs/small/transformer/state.pt", weights_only=True)
    assert state["step"] == 2
    assert run("train", "--queue", "queue.yaml").code == 0
    Path("runs").rename("cut")
    assert run("train", "--queue", "queue.yaml").code == 0
    for part in ("vae", "transformer"):
        one, other = (load_file(f"{runs}/small/{part}/average.safetensors") for runs in ("cut", "runs"))
        assert all(torch.equal(one[name], other[name]) for name in one)
