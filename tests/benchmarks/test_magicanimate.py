"""The benchmark scripts of MagicAnimate run, at small sizes, and what they say holds: all ways give the same numbers,
and ours has less to compute than the original's."""

from __future__ import annotations

import re

import pytest
import yaml

RECIPE = {
    "unet": {
        "model": {
            "sample_size": 4, "in_channels": 4, "out_channels": 4, "block_out_channels": [32, 32],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1, "attention_head_dim": 2,
            "cross_attention_dim": 8, "norm_num_groups": 8,
        },
        "motion": {"motion_num_attention_heads": 2},
        "pose_channels": [8, 8, 8, 8],
    },
    "sampling": {
        "num_frames": 8, "height": 32, "width": 32, "context_frames": 8, "context_overlap": 2, "text_tokens": 1
    },
}  # fmt: skip


def test_beside_the_original(script, rows, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    page = script("magicanimate_tiny.py", "--quick", "--recipe", recipe, "-o", tmp_path / "page.md")
    table = rows(page)
    assert [row[0] for row in table][:2] == ["the picture with every window", "as published"]
    assert table[-1][0] == "ours"
    gflop = [float(row[5]) for row in table]
    assert gflop == sorted(gflop, reverse=True)
    assert float(re.search(r"differ from ours by at most (\S+) \(relative\)", page)[1]) < 1e-4
    assert "from 16 to 32 frames" in page
    assert (tmp_path / "page.md").read_text() == page.removesuffix("\n")


@pytest.mark.parametrize("ways", [["original", "ours"], ["pixels"]])
def test_published_shapes_made_small(script, rows, ways):
    small = ("--width", "32", "--size", "64x64", "--frames", "2", "--steps", "2", "--rounds", "1", "--device", "cpu")
    page = script("magicanimate_shapes.py", *small, "--ways", *ways)
    assert [row[0] for row in rows(page)] == ["2"] * len(ways)
    assert "32 channels at the first level" in page
