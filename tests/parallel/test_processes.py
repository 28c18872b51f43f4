"""Windows spread over two processes give the numbers of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from animagic.parallel.processes import Group

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
from animagic.parallel.processes import joined
from animagic.timeline import FlowEuler, OverlappingWindows, Sampler, Timeline

torch.manual_seed(0)
network = torch.nn.Conv3d(2, 2, 3, padding=1)
noise = torch.randn(1, 2, 20, 4, 4)
calls = 0

def denoise(latents, window):
    global calls
    calls += 1
    return network(latents)

with joined() as group:
    seed = group.agree(7 + group.rank)
    plan = OverlappingWindows(20, 3, size=8, overlap=4)
    sampler = Sampler(plan, denoise, FlowEuler(torch.linspace(0, 1, 4)), Timeline(noise), parallel_map=group.map)
    latents = torch.cat([clean.latents for clean in sampler.run()], dim=2)
    file = f"{sys.argv[1]}/{group.size}-{group.rank}.safetensors"
    save_file({"latents": latents, "calls": torch.tensor(calls), "seed": torch.tensor(seed)}, file)
"""


@pytest.mark.parametrize("size", [2])
def test_two_processes_share_the_windows(tmp_path: Path, size):
    (tmp_path / "run.py").write_text(SCRIPT)
    alone = [sys.executable, str(tmp_path / "run.py"), str(tmp_path)]
    together = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(size),
        *alone[1:],
    ]
    for command in (alone, together):
        subprocess.run(
            command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=120
        )
    one = load_file(tmp_path / "1-0.safetensors")
    several = [load_file(tmp_path / f"{size}-{rank}.safetensors") for rank in range(size)]
    for made in several:
        assert torch.allclose(made["latents"], one["latents"], rtol=1e-5, atol=1e-6)
        assert made["seed"] == 7
    assert sum(int(made["calls"]) for made in several) == int(one["calls"])
    assert all(int(made["calls"]) for made in several)


def test_a_single_process_needs_no_group():
    group = Group()
    assert group.is_main
    assert group.agree("x") == "x"
    assert group.map(lambda item: item + 1, [1, 2]) == [2, 3]
