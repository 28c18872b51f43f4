"""Every example is run, in an empty folder, with few steps, and what it writes is looked at."""

from __future__ import annotations

import json
import re
import runpy
import sys
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FEW = ["--steps", "4"]
FEWEST = ["--steps", "2"]  # of AnimateDiff; MAGI-1 needs four
# Example -> its arguments here, and the files that it writes: frames of a video, or None for anything else.
RUNS: dict[str, tuple[list[str], dict[str, int | None]]] = {
    "demo": (FEW, {"magi1-tiny.mp4": 48, "magi1-tiny-distilled.mp4": 48, "demo.png": None}),
    "text_to_video": ([*FEW, "--frames", "24"], {"text_to_video.mp4": 24}),
    "image_to_video": ([*FEW, "--frames", "20"], {"image_to_video.mp4": 20}),
    "video_to_video": ([*FEW, "--frames", "12"], {"clip.mp4": 24, "video_to_video.mp4": 36}),
    "stream_long_video": ([*FEW, "--frames", "60"], {"long_video.mp4": 60}),
    "prompt_per_chunk": ([*FEW, "--frames", "96"], {"story.mp4": 96}),
    "enhance_prompt": (FEW, {"enhanced.mp4": 24}),
    "live_prompt": ([*FEW, "--frames", "72"], {"live.mp4": 72}),
    "preview_and_callback": ([*FEW, "--stop-after", "2"], {"preview.png": None}),
    "resume": (FEW, {}),
    "draw_a_plan": (
        [],
        {
            "plan-staircase.png": None,
            "plan-picture-first.png": None,
            "plan-windows.png": None,
            "plan-loop.png": None,
            "plan-whole.png": None,
        },
    ),
    "lora": (FEW, {"warm_-1.mp4": 24, "warm_0.5.mp4": 24, "warm_1.mp4": 24}),
    "own_latents": (FEW, {"half_way.mp4": 24}),
    "train_tiny": ([], {"train_tiny/model/model_index.json": None, "train_tiny/transformer/loss.png": None}),
    "personalize": (
        FEWEST,
        {"personalize.mp4": 16, "blueprint.safetensors": None, "blueprint-samples.png": None},
    ),
    "sparse_control": (FEWEST, {"sparse_control.mp4": 16, "sparse/network/config.json": None}),
    "animatediff_looks": (FEWEST, {"plain.mp4": 16, "blueprint.mp4": 16, "watercolour.mp4": 16, "looks.png": None}),
    "animatediff_motion": (FEWEST, {"rises.mp4": 16, "falls.mp4": 16, "grows.mp4": 16, "zoom-in.mp4": 16}),
    "animatediff_travel": ([*FEWEST, "--frames", "18"], {"travel.mp4": 18}),
    "animatediff_loop": ([*FEWEST, "--frames", "18"], {"loop.gif": 18}),
    "animatediff_noise": (
        [*FEWEST, "--frames", "18"],
        {"noise-independent.mp4": 18, "noise-shared.mp4": 18, "noise-refined.mp4": 18},
    ),
    "animate_person": (FEWEST, {"animate_person.mp4": 24}),
    "talk": ([*FEWEST, "--voice", "voice.wav"], {"talk.mp4": 13}),
    "client": (FEW, {"client.mp4": 48, "client-stream.mp4": 48}),
    "low_memory": ([*FEW, "--model", "magi1-tiny"], {}),
    "quantize": (FEW, {"quantize.mp4": 24, "magi1-tiny-fp8/model_index.json": None}),
    "compiled": ([*FEW, "--frames", "24", "--backend", "aot_eager"], {}),
    "read_original_weights": (["--weights", "weights", "--config", "config.json"], {"latents.safetensors": None}),
}


@pytest.fixture
def empty_folder(quick_models, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks as small as these are slower on several threads of a busy machine
    yield tmp_path
    torch.set_num_threads(threads)


def run(name: str, arguments: list[str], monkeypatch) -> None:
    """In this process: a fresh one would spend most of its time on importing PyTorch."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def save_original_weights(folder: Path) -> None:
    """A random transformer of MAGI-1's kind, in two shards under the original names, with its configuration."""
    from safetensors.torch import save_file

    from animagic import Magi1Transformer3DModel

    network = {
        "num_layers": 1, "hidden_size": 32, "ffn_hidden_size": 64, "num_attention_heads": 2, "num_query_groups": 1,
        "kv_channels": 16, "caption_channels": 16, "caption_max_length": 50,
    }  # fmt: skip
    runtime = {"num_steps": 4, "chunk_width": 6, "cfg_number": 3}
    config = {"model_config": {**network, "model_name": "videodit_ardf"}, "runtime_config": runtime}
    weights = list(Magi1Transformer3DModel(**network).state_dict().items())
    (folder / "weights").mkdir()
    for i, part in enumerate((weights[::2], weights[1::2]), start=1):
        save_file(dict(part), folder / "weights" / f"model-{i:05d}-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def save_voice(path: Path) -> None:
    """Half a second of a hum: a text could only be read aloud where espeak-ng or flite is installed."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((6000 * np.sin(np.arange(8000) * 0.1)).astype("<i2").tobytes())


@pytest.fixture
def address(start, tmp_path_factory):
    """Starts a server; returns its address."""

    def address() -> str:
        pytest.importorskip("fastapi", reason="a server needs fastapi: pip install -e '.[serve]'")
        process = start("serve", "--port", 0, "--folder", tmp_path_factory.mktemp("server"), "--threads", 1)
        found = (re.search(r"serving at (http://\S+?);", line) for line in process.stderr)
        return next(match[1] for match in found if match)

    return address


@pytest.mark.parametrize("name", RUNS)
def test_example(name, empty_folder, address, monkeypatch, capsys):
    from animagic.media import read_video

    arguments, written = RUNS[name]
    if name == "client":
        arguments = [*arguments, "--url", address()]
    if name == "read_original_weights":
        save_original_weights(empty_folder)
    if name == "talk":
        save_voice(empty_folder / "voice.wav")
    if name in ("personalize", "sparse_control", "train_tiny"):
        pytest.importorskip("skia", reason="drawing needs skia-python: pip install -e '.[train]'")
    run(name, arguments, monkeypatch)
    said = capsys.readouterr().out
    for file, frames in written.items():
        path = empty_folder / "out" / file
        assert path.stat().st_size > 0
        if frames is not None:
            assert len(read_video(path).frames) == frames
    if name == "resume":
        assert "interrupted with 1 of 2 chunks" in said
        assert "the same frames: True" in said
    if name == "compiled":
        assert said.count("24 frames") == 2
    if name == "preview_and_callback":
        assert said.count("step") == 2
    assert {path.name for path in empty_folder.iterdir()} <= {"out", "weights", "config.json", "voice.wav"}


def test_every_example_is_run_and_short():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert {script.stem for script in scripts} == set(RUNS)
    for script in scripts:
        lines = script.read_text("utf-8").splitlines()
        assert len(lines) <= 25, f"{script.name} has {len(lines)} lines"
        assert lines[0].startswith('"""'), f"{script.name} does not say what it shows"
