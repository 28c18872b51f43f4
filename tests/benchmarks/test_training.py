"""The benchmark of training runs on a small recipe."""

from __future__ import annotations

import yaml

RECIPE = {
    "autoencoder": {
        "model": {"patch_length": 2, "latent_channels": 2, "widths": [8, 8, 8]},
        "objective": {"motion": 4.0},
        "data": {"batch_size": 2, "num_frames": 2, "height": 16, "width": 16},
        "training": {"steps": 10, "workers": 0},
    },
}


def test_every_way_of_a_step_and_every_optimiser_is_measured(script, rows, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    page = script("training.py", "--quick", recipe)
    assert [row[:2] for row in rows(page)] == [
        ["small, autoencoder", way] for way in ("before", "now", "now, a process draws")
    ]
    assert len({row[4] for row in rows(page)}) == 1  # the arithmetic does not depend on the way
    assert all(float(row[2]) > 0 for row in rows(page))
    assert page.count("`torch.optim.Muon` (bfloat16) |") == 1
