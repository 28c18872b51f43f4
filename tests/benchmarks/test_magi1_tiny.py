"""The benchmark runs, compares like with like, and writes a whole page. Nothing here depends on the time it takes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "magi1_tiny.py"
_spec = importlib.util.spec_from_file_location("magi1_tiny", SCRIPT)
benchmark = importlib.util.module_from_spec(_spec)
sys.modules["magi1_tiny"] = benchmark  # dataclasses look their module up
_spec.loader.exec_module(benchmark)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A pipeline folder of random weights with the text encoder of the embedded model."""
    from transformers import AutoModel, AutoTokenizer

    from animagic import AutoencoderKLMagi1, Magi1Pipeline, Magi1Transformer3DModel, zoo

    torch.manual_seed(0)
    transformer = Magi1Transformer3DModel(
        num_layers=1, hidden_size=32, ffn_hidden_size=64, num_attention_heads=2, num_query_groups=1, kv_channels=16,
        in_channels=4, out_channels=4, caption_channels=384, caption_max_length=64,
    )  # fmt: skip
    vae = AutoencoderKLMagi1(
        embed_dim=256, depth=1, num_heads=2, mlp_ratio=1, video_length=24, video_size=32, z_chans=4, scaling_factor=1.0
    )
    sampling = {
        "num_steps": 8, "num_frames": 24, "video_size_h": 32, "video_size_w": 32, "scale_factor": 1.0,
        "cfg_t_range": [0.0, 0.3], "prev_chunk_scales": [1.5, 1.0], "text_scales": [3.0, 0.0],
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("model") / "random"
    Magi1Pipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=AutoModel.from_pretrained(zoo.entry("magi1-tiny").folder / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(zoo.entry("magi1-tiny").folder / "tokenizer"),
        config={"runtime_config": sampling},
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(model):
    import animagic

    pipe = animagic.load(model)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    return pipe


def test_both_ways_make_the_same_chunk(pipe):
    (ours,), (naive,) = benchmark.staircase(pipe, 1, 4), benchmark.whole_clip(pipe, 1, 4)
    assert ours.shape == (24, 32, 32, 3)
    assert ours.std() > 0
    np.testing.assert_allclose(ours, naive, atol=1e-5)


def test_both_ways_make_all_frames(pipe):
    for make in (benchmark.staircase, benchmark.whole_clip):
        assert [len(frames) for frames in make(pipe, 3, 4)] == [24, 24, 24]


def test_arithmetic_is_counted_with_attention(pipe):
    one, four = (benchmark.count_flop(lambda n=n: list(benchmark.whole_clip(pipe, n, 4))) for n in (1, 4))
    assert four > 2 * one  # reading the prompt is the same for both
    q, k = torch.ones(1, 2, 96, 16), torch.ones(1, 1, 192, 16)
    counted = benchmark.count_flop(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True))
    assert counted == 4 * 2 * 96 * 192 * 16


def test_flatness_looks_at_the_chunks_with_a_full_window():
    per_chunk = [9.0, *[1.0] * 12, *[1.2] * 12, *[1.0] * 12, *[0.1] * 3]
    ends = np.cumsum(per_chunk).tolist()
    thirds, deviation = benchmark.flatness([{"ends": ends, "window_size": 4}] * 2)
    assert thirds == pytest.approx([1.0, 1.2, 1.0])
    assert deviation == pytest.approx(1.2 / (3.2 / 3) - 1)
    assert benchmark.flatness([{"ends": ends[:5], "window_size": 4}]) is None


def test_the_process_that_measures_nothing_holds_little():
    """Its memory would count as the peak of the processes that it starts."""
    code = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); assert not {{'torch', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_quick_run_writes_the_page(model, script, tmp_path):
    page = tmp_path / "page.md"
    printed = script("magi1_tiny.py", "--quick", "--model", model, "-o", page)
    text = page.read_text("utf-8")
    assert text in printed
    rows = [row.split("|")[1:-1] for row in text.splitlines() if row.startswith(("| 24 ", "| 240 "))]
    assert [row[2].strip() for row in rows] == ["staircase", "whole"] * 2
    assert all(len(row) == 10 for row in rows)
    assert "Memory of 10 chunks (240 frames) against 1" in text
    assert "Seconds a chunk" in text
