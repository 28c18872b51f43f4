"""`animagic doctor --model` and `animagic generate --memory`: what is predicted, chosen, said and refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from animagic.doctor import in_words, parse_memory, predict
from animagic.errors import CheckpointError, InputError
from animagic.media import read_metadata
from animagic.pipelines.memory import Predictor


@pytest.mark.parametrize(
    ("text", "size"),
    [("12GB", 12 * 10**9), ("11.5 GiB", 11.5 * 2**30), ("800mb", 8 * 10**8), ("900MiB", 900 * 2**20), ("1tb", 10**12)],
)
def test_amounts_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "12", "GB", "-3GB", "0GB", "12 apples", "1e400GB", "nanGB", "12G"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match="number with its unit"):
        parse_memory(text)


def test_a_published_model_on_a_gpu_that_is_not_there():
    found = predict("magi1-4.5b", 720, 720, 240, device="cuda")
    assert (found["frames"], found["steps"], found["dtype"]) == (240, 64, "bfloat16")
    assert found["peak_bytes"] == max(sum(stage.values()) for stage in found["stages"].values())
    assert 25e9 < found["peak_bytes"] < 40e9
    peaks = [choice["peak_bytes"] for choice in found["choices"]]
    assert max(peaks) == peaks[0] == found["peak_bytes"]
    assert min(peaks) < peaks[0] / 3

    lines = in_words(found)
    assert lines[0].startswith("magi1-4.5b: 720x720, 240 frames, 64 steps, bfloat16, on cuda")
    bars = 0
    for part, size in found["stages"]["denoise"].items():
        row = next(line.removeprefix(part) for line in lines if line.startswith(f"{part}  "))
        assert row.split()[1] == f"{size / 1e9:.2f}"
        assert abs(row.count("█") / 40 - size / found["peak_bytes"]) < 0.02
        bars += row.count("█")
    assert 36 <= bars <= 44  # all of them are the whole
    assert any("GB" in line and "fullest moment" in line for line in lines)


def test_the_command_predicts(run, tiny_model):
    ran = run("doctor", "--model", tiny_model, "--size", "48x32", "--frames", 32, "--device", "cpu")
    assert (ran.code, ran.err) == (0, "")
    assert "48x32, 32 frames, 4 steps, float32, on cpu" in ran.out
    assert "libraries" in ran.out
    words = ("--device", "cuda", "--memory", "1.5GB", "--json", "--steps", 8, "--dtype", "bfloat16")
    found = json.loads(run("doctor", "--model", tiny_model, *words).out)
    assert (found["steps"], found["dtype"], found["techniques"]) == (8, "bfloat16", "nothing to be saved")


def test_the_command_predicts_animatediff(run, animatediff_model):
    found = json.loads(run("doctor", "--model", animatediff_model, "--frames", 24, "--device", "cuda", "--json").out)
    assert (found["width"], found["height"], found["frames"], found["steps"]) == (32, 32, 24, 3)
    assert found["stages"]["denoise"]["unet"] > 0
    assert {choice["techniques"] for choice in found["choices"]} >= {"autoencoder in tiles, model offload"}
    run("doctor", "--model", animatediff_model, "--memory", "10MB").refused("too little", "are needed")


def test_the_command_refuses_what_it_cannot_predict(run, tiny_model):
    run("doctor", "--size", "64x64").refused("needs --model")
    run("doctor", "--model", "magi1-5b").refused("magi1-5b", "4.5B_base")
    run("doctor", "--model", "owner/name").refused("owner/name", "folder")
    run("doctor", "--model", tiny_model, "--size", "50x32").refused("multiples of 16", "48x32")
    run("doctor", "--model", tiny_model, "--size", "big").refused("WIDTHxHEIGHT")
    run("doctor", "--model", tiny_model, "--frames", 0).refused("--frames is 0; it must lie between 1 and 100000")
    run("doctor", "--model", tiny_model, "--steps", 2).refused("steps must be at least 4")
    run("doctor", "--model", tiny_model, "--memory", "12").refused("12GB")
    run("doctor", "--model", tiny_model, "--memory", "10MB").refused("too little", "are needed", "smaller size")
    run("doctor", "--model", tiny_model, "--device", "toaster").refused("toaster", "cuda and cpu")
    run("doctor", "--model", tiny_model, "--dtype", "int8").refused("bfloat16 or float32")


def test_folders_and_configurations_that_are_damaged(tmp_path, tiny_model):
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="no model_index"):
        predict(str(tmp_path / "model"))
    (tmp_path / "model" / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        predict(str(tmp_path / "model"))
    (tmp_path / "config.json").write_text("no json")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        predict(str(tmp_path / "config.json"))


# generate --memory


@pytest.fixture
def budget(monkeypatch, tiny_model) -> int:
    """Bytes that are enough for the tiny model once its text encoder has gone. Python and its libraries, which would
    outweigh it, are left out, and the text encoder is made to weigh something."""
    from animagic.pipelines import memory

    monkeypatch.setattr(memory, "process_bytes", lambda: 10**6)
    heavy = SimpleNamespace(entries={"weight": SimpleNamespace(shape=(10**7,))})
    monkeypatch.setattr(memory, "SafetensorsFile", lambda file: heavy)
    # Loading both at once is what dropping it saves, so the text encoder alone must fit.
    return 41_500_000


def test_generate_says_what_it_chose_and_makes_the_same_frames(generate, frames_of, budget):
    assert generate("-o", "whole.mp4", "--frames", 16).code == 0
    ran = generate("-o", "dropped.mp4", "--frames", 16, "--memory", f"{budget / 1e6}MB")
    assert ran.code == 0, ran.err
    assert "text encoder dropped after use" in ran.err
    assert "tiles" not in ran.err
    np.testing.assert_array_equal(frames_of("dropped.mp4"), frames_of("whole.mp4"))
    stored = read_metadata("dropped.mp4")["request"]
    assert "memory" not in stored
    assert stored == read_metadata("whole.mp4")["request"]
    quiet = generate("-o", "quiet.mp4", "--frames", 16, "--memory", "8GB", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")


def test_tiles_are_stored_so_that_the_frames_can_be_made_again(generate, run, frames_of):
    assert generate("-o", "tiled.mp4", "--frames", 16, "--tiling").code == 0
    assert read_metadata("tiled.mp4")["request"]["tiling"] is True
    again = json.loads(run("reproduce", "tiled.mp4", "--json").out)
    assert again["equal_frames"] == again["frames"] == 16
    # A budget keeps them, too.
    assert generate("-o", "kept.mp4", "--frames", 16, "--tiling", "--memory", "8GB").code == 0
    np.testing.assert_array_equal(frames_of("kept.mp4"), frames_of("tiled.mp4"))


def test_a_budget_that_is_too_small_is_refused(generate, tmp_path):
    ran = generate("-o", "never.mp4", "--memory", "20MB")
    ran.refused("0.02 GB are too little", "are needed", "smaller size")
    assert not (tmp_path / "never.mp4").exists()
    generate("-o", "never.mp4", "--memory", "plenty").refused("number with its unit")
    generate("-o", "never.mp4", "--memory", "2GB", "--device", "cuda").refused("cuda")


def test_with_a_live_prompt_the_text_encoder_stays(tiny_model, budget):
    from animagic.requests import build_request, job_for

    request = build_request("a red ball", model=str(tiny_model), frames=16)
    assert job_for(request).fit(budget, "cpu").techniques.text == "drop"
    with pytest.raises(InputError, match="are needed"):
        job_for(request, lambda chunk: None).fit(budget, "cpu")


@pytest.mark.integration
def test_plain_doctor_predicts_the_published_models_once(run, monkeypatch):
    first = json.loads(run("doctor", "--json").out)["models"]
    assert "bfloat16" in first["MAGI-1 4.5B"]
    assert "fp8" in first["MAGI-1 24B"]
    monkeypatch.setattr(Predictor, "__init__", lambda *arguments, **named: pytest.fail("once is enough"))
    assert json.loads(run("doctor", "--json").out)["models"] == first
