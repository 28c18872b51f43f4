"""The benchmark of the published shapes runs, and its page holds what was measured. Nothing here depends on time."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import pytest

from animagic.systems.magi1 import published

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "magi1_shapes.py"
_spec = importlib.util.spec_from_file_location("magi1_shapes", SCRIPT)
benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benchmark)


@pytest.fixture
def small(monkeypatch):
    """The published configurations with networks that a test can run."""
    full = published.config_of

    def config_of(name):
        config = full(name)
        config["model_config"] |= {
            "num_layers": 3, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4,
            "num_query_groups": 2, "kv_channels": 16, "caption_channels": 32, "caption_max_length": 128,
        }  # fmt: skip
        return config

    monkeypatch.setattr(published, "config_of", config_of)


def test_it_measures_both_layouts_and_writes_them_down(small):
    args = argparse.Namespace(model="4.5B_base", layers=None, size="32x32", chunks=6, device="cpu")
    results = {way: benchmark.measure(args, way) for way in ("plain", "fp8")}
    for one in results.values():
        assert one["seconds"] > 15 * one["step"] * 0.5  # a chunk takes sixteen steps with all chunks in flight
        assert 0 < one["predicted peak"] < one["peak"]  # which is that of the whole process
        assert one["steps"] == 64
    assert results["plain"]["operations"] > 1e6
    page = benchmark.report(args, results)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1
    assert "the published FP8 layout" in rows[3]
    assert "1.00" in rows[2]
