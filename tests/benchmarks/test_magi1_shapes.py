"""The benchmark of the published shapes runs, and its page compares what it has measured."""

from __future__ import annotations

import importlib

import pytest

from animagic.systems.magi1 import published


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

    # Imported first: a module that is imported meanwhile would keep the small one for all tests that follow.
    importlib.import_module("animagic.systems.magi1.memory")
    monkeypatch.setattr(published, "config_of", config_of)


def test_it_compares_both_layouts(small, script, rows):
    page = script("magi1_shapes.py", "--model", "4.5B_base", "--size", "32x32", "--chunks", 5, "--device", "cpu")
    assert "64 steps a chunk of 24 frames" in page
    plain, fp8 = rows(page)
    assert "published FP8 layout" in fp8[0]
    seconds, against, *others = zip(*(map(float, row[1:]) for row in (plain, fp8)), strict=True)
    assert min(seconds) > 0
    assert against == pytest.approx((1, seconds[1] / seconds[0]), abs=0.02)
    assert min(value for column in others for value in column) >= 0
