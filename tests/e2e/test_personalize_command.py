"""`animagic personalize`: from a folder of pictures to a file that other commands take; wrong input; Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from animagic.media import read_image, write_image
from animagic.training import personalization as room


@pytest.fixture
def pictures(tmp_path) -> Path:
    for i in range(3):
        pixels = np.full((40, 40, 3), 30, np.uint8)
        pixels[10:30, 10 : 20 + 4 * i, 0] = 230
        (tmp_path / "pictures").mkdir(exist_ok=True)
        write_image(tmp_path / "pictures" / f"{i}.png", pixels)
    return tmp_path / "pictures"


@pytest.fixture
def learn(run, pictures, tiny_picture_model, monkeypatch):
    """Runs `animagic personalize pictures WORDS`, briefly."""
    monkeypatch.setitem(room._SAMPLING, "num_inference_steps", 2)
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)

    def learn(*words, steps=3, model=tiny_picture_model):
        return run("personalize", "pictures", "--model", model, "--steps", steps, *words)

    return learn


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_lora(learn, tmp_path):
    ran = learn("-o", "ball.safetensors", "--prompt", "a red ball", "--rank", 2, "--json", "--threads", 1)
    assert ran.code == 0, ran
    said = json.loads(ran.out)
    assert {**said, "seconds": 0} == {
        "output": "ball.safetensors", "samples": "ball-samples.png", "seed": 0, "seconds": 0,
    }  # fmt: skip
    assert said["seconds"] > 0
    assert {min(tensor.shape) for tensor in load_file("ball.safetensors").values()} == {2}
    assert read_image("ball-samples.png").ndim == 3
    assert names(tmp_path) == {"pictures", "ball.safetensors", "ball-samples.png"}


def test_a_new_word(learn):
    ran = learn("-o", "look.safetensors", "--method", "textual-inversion", "--token", "<look>", "--initial-word", "red")
    assert (ran.code, ran.out) == (0, "look.safetensors\n"), ran
    assert "look-samples.png" in ran.err
    assert [tuple(t.shape) for t in load_file("look.safetensors").values()] == [(1, 16)]


def test_dreambooth_with_prior_preservation(learn, tmp_path):
    words = ["--prompt", "a red ball", "--class-prompt", "a ball", "--prior-preservation", 2, "--train-text-encoder"]
    ran = learn("-o", "ball", "--method", "dreambooth", *words)
    assert (ran.code, ran.out) == (0, "ball\n"), ran
    assert {"model_index.json", "unet", "text_encoder", "vae"} <= names(tmp_path / "ball")
    again = learn("-o", "more.safetensors", "--prompt", "a ball", model="ball")  # it is a model itself
    assert again.code == 0, again


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "x.safetensors", "--method", "magic"], ["method 'magic' is unknown", "dreambooth", "lora"]),
        (["-o", "x.safetensors"], ["0.png has no caption", "give a prompt"]),
        (["-o", "x.safetensors", "--prompt", "a ball", "--prior-preservation", "4"], ["class prompt go together"]),
        (["-o", "x.safetensors", "--method", "textual-inversion"], ["needs a token"]),
        (["-o", "x.safetensors", "--method", "textual-inversion", "--token", "ball"], ["knows ball already"]),
        (["-o", "x.safetensors", "--prompt", "a ball", "--token", "<x>"], ["token goes with", "textual-inversion"]),
        (["-o", "x.safetensors", "--prompt", "a ball", "--threads", "0"], ["threads must be at least 1"]),
        (["-o", "x.bin", "--prompt", "a ball"], ["x.bin must end in .safetensors"]),
        (["-o", "nowhere/x.safetensors", "--prompt", "a ball"], ["nowhere is not a folder"]),
        (["--prompt", "a ball"], ["Missing option", "--output"]),
        (["-o", "x.safetensors", "--rank", "two"], ["--rank", "integer"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_input(learn, tmp_path, words, said):
    learn(*words).refused(*said)
    assert names(tmp_path) == {"pictures"}


def test_wrong_pictures(learn, pictures, tmp_path):
    write_image(pictures / "1.png", np.zeros((40, 20, 3), np.uint8))
    learn("-o", "x.safetensors", "--prompt", "a ball").refused("1.png has 20x40 pixels", "32x32")
    (pictures / "1.png").write_text("no picture")
    learn("-o", "x.safetensors", "--prompt", "a ball").refused("1.png is damaged or of an unknown kind")
    (tmp_path / "none").mkdir()
    pictures.rename(tmp_path / "others")
    (tmp_path / "none").rename(pictures)
    learn("-o", "x.safetensors", "--prompt", "a ball").refused("pictures holds no pictures")
    learn("-o", "x.safetensors", "--prompt", "a ball", model="no-such-model").refused("no model 'no-such-model'")


def test_interrupted_and_resumed(learn, interrupt, tiny_picture_model, tmp_path):
    words = ["--prompt", "a red ball", "--save-every", 10]
    arguments = ["--model", tiny_picture_model, "--steps", 4000, "-o", "x.safetensors", *words]
    kept = tmp_path / "x.safetensors.unfinished"
    ran = interrupt((kept / "state.pt").exists, "personalize", "pictures", *arguments)
    assert (ran.code, ran.out) == (130, ""), ran
    assert "x.safetensors.unfinished holds what is done so far" in ran.err
    assert "--resume" in ran.err
    assert names(tmp_path) == {"pictures", "x.safetensors.unfinished"}
    learn("-o", "x.safetensors", *words, steps=4000).refused("unfinished run", "resume it")
    learn("-o", "x.safetensors", "--resume", *words, steps=20).refused("other settings (steps)")
