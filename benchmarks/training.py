"""What does a step of training cost on this machine, how much of it is the optimiser, and who should draw?

    python benchmarks/training.py            # writes docs/benchmarks/training-cpu.md, about five minutes
    python benchmarks/training.py --quick RECIPE   # few steps, writes nothing: does it run?

On one thread. Seconds are of CPU time, which other work on the machine hardly changes. The stages of the recipes are
trained as `animagic train` does, but for a few steps, with a bank of few scenes. *Before* are PyTorch's optimisers,
which take parameters one after the other, and a moving average in a Python loop.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from magi1_tiny import cpu_name
from torch import nn

from animagic.requests.training import read_recipe, train
from animagic.training import trainer
from animagic.training.optimisers import Muon, fast_dtype, optimisers
from animagic.training.throughput import matmul_rate

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "training-cpu.md"
RECIPES = [ROOT / "recipes" / "video-autoencoder.yaml", ROOT / "recipes" / "magi1-tiny.yaml"]
CPU = torch.device("cpu")
_LINES = 6  # of the log of a stage
# The matrices of the blocks of a transformer with 8 layers of width 192: (rows, columns) -> how many.
MATRICES = {(192, 192): 32, (384, 192): 8, (192, 384): 8, (512, 192): 8, (192, 512): 8}


def before(model: nn.Module, kind: str, learning_rate: float, weight_decay: float, betas: Any) -> list[Any]:
    """The optimisers as PyTorch has them."""
    found: list[Any] = []
    for optimiser in optimisers(model, kind, learning_rate, weight_decay, betas):
        groups = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in optimiser.param_groups]
        if isinstance(optimiser, Muon):
            found.append(torch.optim.Muon(groups, lr=learning_rate, adjust_lr_fn="match_rms_adamw"))
        else:
            found.append(torch.optim.AdamW(groups, lr=learning_rate, betas=betas, foreach=False))
    return found


@torch.no_grad()
def average_in_a_loop(self: trainer.Trainer) -> None:
    decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
    for average, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
        average.lerp_(current.detach().to(average), 1 - decay)


def stages(recipe: dict[str, Any]) -> list[str]:
    """The sections that are trained."""
    return [name for name, section in recipe.items() if isinstance(section, dict) and "training" in section]


def steps_of(recipe: dict[str, Any], steps: int, workers: int) -> dict[str, dict[str, float]]:
    """Train every stage; for each CPU seconds a step in this process and in those that draw, GFLOP a step."""
    for name in stages(recipe):
        recipe[name]["training"] |= {"log_every": steps, "save_every": 100 * steps, "workers": workers}
        if "scenes" in recipe[name]["data"]:
            recipe[name]["data"] |= {"scenes": 32, "begin": 32}
    found: dict[str, list[dict[str, float]]] = {}

    def on_log(name: str, line: dict[str, float]) -> None:
        gflop = line["gflops"] * line["seconds_per_step"]
        found.setdefault(name, []).append({"at": time.process_time(), "gflop": gflop})

    drawn = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, folder, steps=_LINES * steps, threads=1, on_log=on_log)
    drawn = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - drawn
    return {
        name: {
            # The least, since other work only adds; the first line warms up.
            "seconds": min(after["at"] - line["at"] for line, after in pairwise(lines)) / steps,
            "gflop": lines[-1]["gflop"],
            "drawn": drawn / (_LINES * steps),
        }
        for name, lines in found.items()
    }


def seconds(step: Callable[[], object], rounds: int) -> float:
    """CPU seconds of a call: the least of several."""
    step()
    times = []
    for _ in range(rounds):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return min(times)


def of_optimisers(rounds: int) -> dict[str, float]:
    """CPU seconds of an update of MATRICES, and of moving average and clipping."""
    matrices = [nn.Parameter(torch.randn(shape)) for shape, count in MATRICES.items() for _ in range(count)]
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    average, current = [p.detach().clone() for p in matrices], [p.detach() for p in matrices]
    muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw")

    def in_a_loop() -> None:
        for one, other in zip(average, current, strict=True):
            one.lerp_(other, 0.01)

    return {
        "`torch.optim.Muon` (bfloat16)": seconds(muon.step, rounds),
        "ours, float32": seconds(Muon(matrices, dtype=torch.float32).step, rounds),
        "ours, bfloat16": seconds(Muon(matrices, dtype=torch.bfloat16).step, rounds),
        "`torch.optim.AdamW`, loop": seconds(torch.optim.AdamW(matrices, foreach=False).step, rounds),
        "`torch.optim.AdamW`, fused": seconds(torch.optim.AdamW(matrices, fused=True).step, rounds),
        "moving average, loop": seconds(in_a_loop, rounds),
        "moving average, `_foreach_lerp_`": seconds(lambda: torch._foreach_lerp_(average, current, 0.01), rounds),
    }


def without_bfloat16(rounds: int) -> dict[str, float]:
    """The same in a process that is told to make do without the CPU's instructions for bfloat16."""
    command = [sys.executable, __file__, "--optimisers", str(rounds)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    )
    return json.loads(done.stdout)


def page(recipes: list[Path], steps: int, rounds: int) -> str:
    torch.set_num_threads(1)
    rows, rate = [], matmul_rate(CPU, torch.float32, 1)
    for path in recipes:
        with (
            mock.patch.object(trainer, "optimisers", before),
            mock.patch.object(trainer.Trainer, "_update_average", average_in_a_loop),
        ):
            old = steps_of(read_recipe(path), steps, workers=0)
        new = steps_of(read_recipe(path), steps, workers=0)
        apart = steps_of(read_recipe(path), steps, workers=1) if len(new) == 1 else {}
        for name, ours in new.items():
            ways = {"before": old[name], "now": ours, "now, a process draws": apart.get(name)}
            for way, found in ways.items():
                if found is not None:
                    per_step, drawn = found["seconds"], found["drawn"] if way not in ("before", "now") else 0
                    cells = [f"{path.stem}, {name}", way, f"{per_step:.3f}", f"{drawn:.3f}", f"{found['gflop']:.1f}"]
                    cells += [
                        f"{found['gflop'] * 1e9 / per_step / rate:.0%}",
                        f"{old[name]['seconds'] / per_step:.2f} x",
                    ]
                    rows.append("| " + " | ".join(cells) + " |")
    here, emulated = of_optimisers(rounds), without_bfloat16(rounds)
    updates = [f"| {name} | {1e3 * here[name]:.1f} | {1e3 * emulated[name]:.1f} |" for name in here]
    chosen = str(fast_dtype(CPU)).removeprefix("torch.")
    return f"""# Training on a CPU

Written by `benchmarks/training.py`, which measures everything on this page in one run.

{cpu_name()}, {os.cpu_count()} cores, of which 1 used; PyTorch {torch.__version__}; a large float32 matrix product runs
at {rate / 1e9:.0f} GFLOP/s; {datetime.date.today().isoformat()}. All seconds are of CPU time and
the least of several, since the machine was shared with other work (load {os.getloadavg()[0]:.1f}); differences of 5 %
mean nothing.

## A step

*Before*: PyTorch's optimisers, one parameter after the other, and a Python loop for the moving average. *Share*: of the
rate of a large matrix product, reached by the arithmetic of the network, forward and backward; the optimiser counts as
time, not as arithmetic. *Drawn*: CPU seconds of the process that draws, if there is one.

| stage | way | seconds a step | drawn | GFLOP a step | share | faster |
|---|---|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

A process that draws (`workers: 1`) takes its part off the step where a second core is free. On one core the two take
turns on it, and `workers: 0` is best.

## Optimisers alone

Milliseconds for {sum(MATRICES.values())} matrices of a transformer with 8 layers of width 192: on this CPU, and as on
one whose bfloat16 is emulated (`ONEDNN_MAX_CPU_ISA=AVX512_CORE`). `optimiser: muon` computes in bfloat16 where the CPU
multiplies it fast, else in float32; on this machine in {chosen}.

| | this CPU | without bfloat16 |
|---|---:|---:|
{chr(10).join(updates)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path, default=RECIPES)
    parser.add_argument("--quick", action="store_true", help="few steps; no page is written")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    parser.add_argument("--optimisers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.optimisers:
        torch.set_num_threads(1)
        print(json.dumps(of_optimisers(arguments.optimisers)))
        return
    text = page(arguments.recipes, *((1, 1) if arguments.quick else (4, 5)))
    print(text)
    output = arguments.output or (None if arguments.quick else REPORT)
    if output is not None:
        output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
