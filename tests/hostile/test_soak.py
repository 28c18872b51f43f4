"""Hostile cases, by the hundred or by the thousand: whatever is typed and whatever a file holds, the promise holds."""

import json
import os

import pytest
from cases import KINDS
from soak import kit_of, soak

SEED = int(os.environ.get("SOAK_SEED", "0"))
RECIPE = {
    "system": "magi1",
    "text_encoder": "",
    "vae": {
        "model": {"embed_dim": 8, "depth": 1, "num_heads": 2, "video_length": 8, "video_size": 32, "z_chans": 4},
        "objective": {},
        "data": {"batch_size": 1, "num_frames": 8, "height": 32, "width": 32},
        "training": {"steps": 0, "workers": 0},
    },
    "transformer": {
        "model": {"num_layers": 1, "hidden_size": 32},
        "objective": {},
        "data": {"batch_size": 1, "num_frames": 8, "height": 32, "width": 32},
        "training": {"steps": 0, "workers": 0},
    },
    "sampling": {},
}
"""With steps that cannot be: a case that leaves them as they are is refused, too, and nothing is trained."""


@pytest.fixture
def kit(tiny_model, tmp_path):
    return kit_of(tiny_model, tmp_path, json.loads(json.dumps({**RECIPE, "text_encoder": str(tiny_model)})))


def report(kit, cases: int) -> None:
    tried, broken = soak(kit, cases, SEED)
    kinds = ", ".join(f"{count} {kind}" for kind, count in tried.items())
    print(f"{sum(tried.values())} cases tried ({kinds}), {len(broken)} broken")
    assert not broken, "\n".join(broken)
    assert set(tried) == set(KINDS)


def test_hostile_cases(kit):
    report(kit, int(os.environ.get("SOAK_CASES", "200")))


@pytest.mark.slow
def test_many_hostile_cases(kit):
    report(kit, int(os.environ.get("SOAK_CASES", "10000")))
