"""What does MagicAnimate cost on this machine, beside the way of the original, and how does it grow with the video?

    OMP_NUM_THREADS=1 python benchmarks/magicanimate_tiny.py   # writes docs/benchmarks/magicanimate-cpu.md
    python benchmarks/magicanimate_tiny.py --quick             # few frames and steps, one round, writes nothing

The networks have the shape of recipes/magicanimate-tiny.yaml (or of another recipe) and random weights: numbers and
times do not depend on training. Side by side, from noise to latents, in one process, the ways taking turns: that of the
original (`magicanimate_original.py`), the same with one saving after the other, and ours. Then videos of several
lengths, from poses to pixels, each in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from magi1_tiny import count_flop, cpu_name, matmul_rate, peak_mib, verdict

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "magicanimate-cpu.md"
RECIPE = ROOT / "recipes" / "magicanimate-tiny.yaml"
LENGTHS, QUICK_LENGTHS = (16, 64, 200), (16, 32)
OURS, PUBLISHED = "ours", "as published"


@dataclass(frozen=True)
class Job:
    recipe: str
    frames: int
    steps: int


# ---- networks ----------------------------------------------------------------------------------------------


def make_pipe(recipe: Path) -> Any:
    """The pipeline of a recipe, with random weights that all do something."""
    import torch
    import yaml
    from diffusers import ControlNetModel, UNet2DConditionModel

    from animagic import AppearanceEncoder, MagicAnimatePipeline, MagicAnimateUNet
    from animagic.layers.autoencoder import ConvAutoencoder

    read = yaml.safe_load(recipe.read_text("utf-8"))
    torch.manual_seed(0)
    spatial = UNet2DConditionModel(**read["unet"]["model"])
    unet = MagicAnimateUNet.from_unet2d(spatial, **read["unet"].get("motion", {}))
    widths = tuple(read["unet"]["pose_channels"])
    controlnet = ControlNetModel.from_unet(spatial, conditioning_embedding_out_channels=widths)
    vae = ConvAutoencoder(patch_length=1, latent_channels=spatial.config.in_channels)
    for network in (unet, controlnet):
        for name, parameter in network.named_parameters():
            if "temporal_transformer.proj_out.weight" in name or ("controlnet_" in name and parameter.ndim == 4):
                torch.nn.init.normal_(parameter, std=0.5 / parameter[0].numel() ** 0.5)
    parts = (unet, AppearanceEncoder.from_unet2d(spatial), controlnet, vae)
    pipe = MagicAnimatePipeline(*(part.eval().requires_grad_(False) for part in parts), config=read["sampling"])
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_poses(frames: int, height: int, width: int, kind: str) -> Any:
    """Somebody who waves, drawn when it is needed."""
    import numpy as np

    from animagic.poses import Poses
    from animagic.systems.magicanimate.poses import DrawnPoses

    rows = {0: 0.15, 11: 0.3, 13: 0.45, 15: 0.55, 23: 0.55, 25: 0.75, 27: 0.92}  # of the height: nose to ankle
    points = np.zeros((frames, 1, 33, 3), np.float32)
    for i in range(33):
        near = max(row for row in rows if row <= i)
        side = 0.0 if i == 0 else (0.06 if i % 2 else -0.06)
        swing = 0.1 * np.sin(np.arange(frames) / 3) if 13 <= i <= 22 else 0.0
        points[:, 0, i, 0], points[:, 0, i, 1] = width * (0.5 + side + swing), height * rows[near]
    return DrawnPoses(Poses(points, np.ones((frames, 1, 33), np.float32), height, width, 12.0), kind)


# ---- in a process of its own -------------------------------------------------------------------------------


def work(job: Job) -> dict[str, Any]:
    """Make a video of that length; count its seconds and memory."""
    import torch

    pipe = make_pipe(Path(job.recipe))
    sampling, ratio = pipe.sampling, pipe.pixels_per_latent
    picture = torch.randn(1, pipe.latent_channels, sampling.height // ratio, sampling.width // ratio)

    def make(frames: int, steps: int) -> None:
        poses = make_poses(frames, sampling.height, sampling.width, sampling.pose)
        given = {"pose_frames": poses, "reference_latents": picture, "windows": "published"}
        for _ in pipe.stream(
            generator=torch.Generator().manual_seed(0), num_inference_steps=steps, output_type="np", **given
        ):
            pass

    loaded = peak_mib()
    make(2, 1)  # kernels are chosen at the first call; so little that what it holds is not the most
    rate = matmul_rate()
    began, began_cpu = time.perf_counter(), time.process_time()
    make(job.frames, job.steps)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    plan = pipe.plan(job.frames, job.steps, windows="published")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "grown": peak_mib() - loaded,
        "rate": max(rate, matmul_rate()),
        "calls": sum(len(step.windows) for step in plan.steps()),
        "latents": 4 * picture.numel() / 2**20,
    }


# glibc keeps freed memory in pieces that later tensors do not fit into, unless each piece is one of the system's own.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}


def run_job(job: Job, **environment: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(job: Job) -> dict[str, Any]:
    """Time as it is; memory where what is freed goes back to the system at once, which takes twice the time."""
    return run_job(job) | {"kept": run_job(job, **RETURNED)["grown"]}


# ---- side by side ------------------------------------------------------------------------------------------


def make_ways(pipe: Any, frames: int, steps: int) -> dict[str, Callable[[], Any]]:
    """Name -> function that makes the latents of one video."""
    import torch
    from magicanimate_original import PUBLISHED as HAS
    from magicanimate_original import SAVINGS, animate

    sampling, ratio = pipe.sampling, pipe.pixels_per_latent
    size = (sampling.height // ratio, sampling.width // ratio)
    noise = torch.randn(1, pipe.latent_channels, frames, *size)
    picture = torch.randn(1, pipe.latent_channels, *size)
    drawn = make_poses(frames, sampling.height, sampling.width, sampling.pose)
    poses = drawn[range(frames)]
    text = torch.zeros(1, sampling.text_tokens, pipe.unet.config.cross_attention_dim)
    windows = [list(w.frames) for w in next(iter(pipe.plan(frames, steps, windows="published").steps())).windows]
    whole = torch.from_numpy(poses).permute(0, 3, 1, 2).float() / 255

    def original(*savings: str) -> Callable[[], Any]:
        given = (pipe, noise, picture, whole, text, windows, steps, sampling.guidance_scale)
        return lambda: animate(*given, savings=savings)

    def ours() -> Any:
        return pipe(
            latents=noise, reference_latents=picture, pose_frames=drawn, windows="published",
            num_inference_steps=steps, output_type="latent",
        ).frames  # fmt: skip

    names = list(SAVINGS)
    ways = {"the picture with every window": original(), PUBLISHED: original(*HAS)}
    for number in range(len(HAS) + 1, len(names) + 1):
        ways[f"+ {SAVINGS[names[number - 1]]}"] = original(*names[:number])
    return ways | {OURS: ours}


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    made = {name: way() for name, way in ways.items()}  # also chooses kernels
    ours = made[OURS]
    results: dict[str, Any] = {
        "difference": {name: float((one - ours).norm() / ours.norm()) for name, one in made.items()},
        "flop": {name: count_flop(way) for name, way in ways.items()},
        "seconds": {name: [] for name in ways},
        "cpu_seconds": {name: [] for name in ways},
        "rate": 0.0,
    }
    for round_ in range(rounds):
        results["rate"] = max(results["rate"], matmul_rate())
        for name in list(ways) if round_ % 2 == 0 else list(ways)[::-1]:
            began, began_cpu = time.perf_counter(), time.process_time()
            ways[name]()
            results["seconds"][name].append(time.perf_counter() - began)
            results["cpu_seconds"][name].append(time.process_time() - began_cpu)
        print(f"round {round_ + 1} of {rounds} is done", file=sys.stderr, flush=True)
    return results


def ratio(above: list[float], below: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(above, below, strict=True))


# ---- the page ----------------------------------------------------------------------------------------------


def side_by_side(results: dict[str, Any], busy: bool) -> list[str]:
    clock = results["cpu_seconds" if busy else "seconds"]
    rate, ours = results["rate"], results["flop"][OURS]
    lines = [
        "| way | seconds | CPU seconds | against ours | saved of the published time | GFLOP | floor, seconds "
        "| x floor |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    before = ""
    for name, spent in clock.items():
        saved = ratio([b - s for b, s in zip(clock[before], spent, strict=True)], clock[PUBLISHED]) if before else 0
        flop, middle = results["flop"][name], median(spent)
        cells = [name, *(f"{median(results[c][name]):.2f}" for c in ("seconds", "cpu_seconds"))]
        cells += [f"{ratio(spent, clock[OURS]):.2f}", f"{saved:.1%}" if before else ""]
        cells += [f"{flop / 1e9:.1f}", f"{flop / rate:.2f}", f"{middle * rate / flop:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
        before = name
    faster, worst = ratio(clock[PUBLISHED], clock[OURS]), max(results["difference"].values())
    naive = ratio(clock["the picture with every window"], clock[OURS])
    arithmetic = results["flop"][PUBLISHED] / ours
    return [
        *lines,
        "",
        "Each way has the savings of those above it. *Floor* is how long the arithmetic (matrix products, "
        "convolutions, attention) takes at the rate of a large matrix product, measured in the same run.",
        "",
        f"- The published way takes {faster:.2f} x our time (its arithmetic is {arithmetic:.2f} x ours); target: at "
        f"least 1.5: {verdict(faster >= 1.5)}. With the picture encoded for every window it takes {naive:.2f} x.",
        f"- Numbers: the latents of all ways differ from ours by at most {worst:.1e} (relative); target: at most 1e-4: "
        f"{verdict(worst <= 1e-4)}.",
    ]


def lengths_table(results: dict[Job, list[dict[str, Any]]]) -> list[str]:
    def mid(job: Job, name: str) -> float:
        return median(one[name] for one in results[job])

    lines = [
        "| frames | calls of the network | seconds | CPU seconds | CPU, ms a call "
        "| memory over the model's, MiB | without what malloc keeps | latents, MiB | that beside latents |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    jobs = list(results)
    beside = {}
    for job in jobs:
        latents = mid(job, "latents") * job.frames
        beside[job] = mid(job, "kept") - latents
        cells = [str(job.frames), f"{mid(job, 'calls'):.0f}", f"{mid(job, 'seconds'):.2f}"]
        cells += [f"{mid(job, 'cpu_seconds'):.2f}", f"{1000 * mid(job, 'cpu_seconds') / mid(job, 'calls'):.0f}"]
        cells += [f"{mid(job, 'grown'):.1f}", f"{mid(job, 'kept'):.1f}", f"{latents:.2f}", f"{beside[job]:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    middle, last = jobs[-2], jobs[-1]
    growth = beside[last] / beside[middle]
    linear = mid(last, "cpu_seconds") / mid(last, "calls") / (mid(middle, "cpu_seconds") / mid(middle, "calls"))
    return [
        *lines,
        "",
        f"- Memory over the model's, beside the latents and what malloc keeps: {growth:.3f} x from "
        f"{middle.frames} to {last.frames} frames; "
        f"target: at most 1.1: {verdict(growth <= 1.1)}.",
        f"- CPU time a call: {linear:.2f} x from {middle.frames} to {last.frames} frames: time is linear in the "
        "number of windows.",
    ]


def report(
    asked: Any, results: dict[str, Any], lengths: dict[Job, list[dict[str, Any]]], pipe: Any, load: float
) -> str:
    import torch

    sampling = pipe.sampling
    lines = [
        "# MagicAnimate on a CPU",
        "",
        "Written by `benchmarks/magicanimate_tiny.py`, which measures everything on this page in one run.",
        "",
        f"Networks as in `recipes/{Path(asked.recipe).name}`, random weights, {sampling.width}x{sampling.height}, "
        f"guidance {sampling.guidance_scale}, windows of {sampling.context_frames} frames laid as published (overlap "
        f"{sampling.context_overlap}, round the end). {cpu_name()}, {os.cpu_count()} cores, of which "
        f"{torch.get_num_threads()} used; PyTorch {torch.__version__}, float32; a large matrix product runs at "
        f"{results['rate'] / 1e9:.0f} GFLOP/s; {datetime.date.today().isoformat()}; medians of {asked.rounds} rounds "
        "in which the ways take turns.",
        "",
    ]
    busy = load > 0.3
    if busy:
        lines += [
            f"**The machine was busy with other work** (load {load:.1f} a core before the run): ratios, shares and "
            "floors are those of CPU time.",
            "",
        ]
    lines += [
        "## Beside the original's way",
        "",
        f"{asked.frames} frames in {asked.steps} steps, from noise to latents.",
        "",
        *side_by_side(results, busy),
        "",
        "## Videos of several lengths",
        "",
        f"From poses to pixels in {asked.long_steps} steps, streamed, each in a process of its own.",
        "",
        *lengths_table(lengths),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose networks are made")
    parser.add_argument("--frames", type=int, default=32, help="of the video side by side")
    parser.add_argument("--steps", type=int, default=4, help="of the video side by side")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--lengths", type=int, nargs="+", help=f"frames; default: {', '.join(map(str, LENGTHS))}")
    parser.add_argument("--long-steps", type=int, default=2, help="of the videos of several lengths")
    parser.add_argument("--long-rounds", type=int, default=2, help="how often those are made")
    parser.add_argument("--quick", action="store_true", help="few frames and steps, one round; no page is written")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        print(json.dumps(work(Job(**json.loads(asked.job)))))
        return
    lengths = asked.lengths or LENGTHS
    if asked.quick:
        lengths = asked.lengths or QUICK_LENGTHS
        asked.frames, asked.steps, asked.rounds, asked.long_steps, asked.long_rounds = 20, 2, 1, 1, 1

    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    jobs = [Job(str(asked.recipe), frames, asked.long_steps) for frames in lengths]
    long: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    # First, while this process holds little: what it held would count as theirs.
    for round_ in range(asked.long_rounds):
        for job in jobs if round_ % 2 == 0 else jobs[::-1]:
            long[job].append(measured(job))
            print(f"{job.frames} frames: {long[job][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    pipe = make_pipe(asked.recipe)
    results = measure(make_ways(pipe, asked.frames, asked.steps), asked.rounds)
    page = report(asked, results, long, pipe, load)
    print(page)
    output = asked.output or (None if asked.quick else REPORT)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
