"""`animagic eval`, in this process, with an embedded model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from animagic.cli import main
from animagic.evaluation import SUITES
from animagic.media import read_image

TINY = ["eval", "text", "--count", "2", "--steps", "4", "--frames", "8", "--seed", "5", "-q"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [["eval"], ["eval", "--list"]])
def test_suites_are_listed_in_a_line_each(words, capsys, here):
    assert main(words) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SUITES)
    assert not list(here.iterdir())


@pytest.mark.integration
def test_a_model_is_measured(capsys, here):
    assert main([*TINY, "-o", "a.json", "--sheet", "a.png", "--json", "--resume"]) == 0
    line = json.loads(capsys.readouterr().out)
    report = json.loads((here / "a.json").read_text("utf-8"))
    assert line["summary"] == report["summary"]
    assert (line["output"], line["sheet"], line["cases"]) == ("a.json", "a.png", 2)
    assert [row["seed"] for row in report["rows"]["model"]] == [5, 6]
    assert (report["model"], report["steps"], report["frames"]) == ("magi1-tiny", 4, 8)
    assert read_image("a.png").shape[1] > 900
    assert {file.name for file in here.iterdir()} == {"a.json", "a.png"}  # what --resume kept is gone
    assert main([*TINY, "-o", "b.json"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("| text | model |")
    again = json.loads((here / "b.json").read_text("utf-8"))
    assert again["rows"] == report["rows"]


@pytest.mark.parametrize("resume", [False, True])
def test_ctrl_c_leaves_nothing_half_written(resume, monkeypatch, capsys, here):
    made = []

    def make_videos(pipe, variant, cases, clips, frames, settings):
        if made:
            raise KeyboardInterrupt
        made.extend(cases)
        return [np.zeros((frames, 64, 64, 3), np.uint8) for _ in cases]

    monkeypatch.setattr("animagic.evaluation.running.make_videos", make_videos)
    assert main([*TINY, "--batch", "1", "-o", "a.json", *(["--resume"] if resume else [])]) == 130
    assert {file.name for file in here.iterdir()} == ({"a.json.cases"} if resume else set())
    assert ("a.json.cases holds the finished cases" in capsys.readouterr().err) == resume


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "beauty"], "no suite 'beauty'; choose from text"),
        (["eval", "text", "--count", "0"], "count must be at least 1"),
        (["eval", "text", "--model", "nothing"], "no model 'nothing'"),
        (["eval", "text", "-o", "no/where.json"], "cannot be written"),
        (["eval", "text", "--sheet", "sheet.mp4"], "end --sheet in .png"),
        (["eval", "image", "--model", "animatediff-tiny"], "needs a model whose pipeline takes prefix_latents"),
        (
            ["eval", "people", "--model", "animatediff-tiny"],
            "takes a photo and a video that moves it; this one fits text",
        ),
        (["eval", "camera", "--model", "magi1-tiny"], "no motion LoRA"),
        (["eval", "text", "--steps", "3", "-q"], "steps"),
    ],
)
def test_wrong_input_is_one_sentence(words, message, capsys, here):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(here.iterdir())
