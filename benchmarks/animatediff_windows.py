"""How do time and memory of a long AnimateDiff video grow with its length, in overlapping windows?

    OMP_NUM_THREADS=2 python benchmarks/animatediff_windows.py   # writes docs/benchmarks/animatediff-windows-cpu.md
    python benchmarks/animatediff_windows.py --quick             # short videos, one round, writes nothing

Every length is made by `AnimateDiffPipeline.stream`, from text to pixels, in a process of its own, so that its peak
memory is its own; the lengths take turns, round after round. Frames are thrown away as they come, as they are where a
video is written or sent: what grows is what the sampler holds. This process imports nothing heavy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from magi1_tiny import cpu_name, matmul_rate, peak_mib, verdict

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "animatediff-windows-cpu.md"
PLOT = ROOT / "docs" / "images" / "animatediff-windows.svg"
PROMPT = "a red ball bounces on a green floor"
LENGTHS, QUICK_LENGTHS = (16, 32, 64, 96, 128, 160), (8, 16, 24)


@dataclass(frozen=True)
class Job:
    model: str
    frames: int
    steps: int


# ---- in a process of its own -------------------------------------------------------------------------------


def work(job: Job) -> dict[str, Any]:
    """Make a video of that length; count its seconds, memory and network calls."""
    import torch

    import animagic

    pipe = animagic.load(job.model)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.float().requires_grad_(False)
    size = pipe.sampling.context_frames  # said at every call: else what the motion module just bears is made whole

    def make(frames: int, steps: int) -> None:
        generator = torch.Generator().manual_seed(0)
        settings = {"num_frames": frames, "num_inference_steps": steps, "output_type": "np", "context_frames": size}
        for _ in pipe.stream(PROMPT, generator=generator, **settings):
            pass

    make(size, 1)  # kernels are chosen and buffers made at the first call
    loaded, rate = peak_mib(), matmul_rate()
    began, began_cpu = time.perf_counter(), time.process_time()
    make(job.frames, job.steps)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    steps = list(pipe.plan(job.frames, job.steps, context_frames=size).steps())
    sampling, ratio = pipe.sampling, pipe.pixels_per_latent
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "grown": peak_mib() - loaded,
        "loaded": loaded,
        "rate": max(rate, matmul_rate()),
        "calls": sum(len(step.windows) for step in steps),
        "latents": 4 * pipe.unet.config.in_channels * (sampling.height // ratio) * (sampling.width // ratio) / 2**20,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "size": size,
        "overlap": sampling.context_overlap,
        "picture": f"{sampling.width}x{sampling.height}",
    }


# ---- in the process that asks ------------------------------------------------------------------------------


def run_job(job: Job) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def line_through(xs: list[float], ys: list[float]) -> tuple[float, float, float]:
    """Least squares: (at zero, slope, R^2)."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread
    start = y - slope * x
    error = sum((start + slope * a - b) ** 2 for a, b in zip(xs, ys, strict=True))
    total = sum((b - y) ** 2 for b in ys)
    return start, slope, 1 - error / total if total else 1.0


def plot(lengths: list[float], seconds: list[float], start: float, slope: float) -> str:
    """Seconds over frames, and the line through them: an SVG."""
    wide, high, left, bottom = 560, 300, 56, 40
    far, most = max(lengths), max(seconds) * 1.08

    def at(frames: float, value: float) -> tuple[float, float]:
        return left + (wide - left - 20) * frames / far, high - bottom - (high - bottom - 16) * value / most

    (x0, y0), (x1, y1) = at(0, max(0.0, start)), at(far, start + slope * far)
    parts = [f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#3f51b5" stroke-width="1.5"/>']
    for frames, value in zip(lengths, seconds, strict=True):
        x, y = at(frames, value)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#d84315"/>')
        parts.append(f'<text x="{x:.1f}" y="{high - bottom + 16}" text-anchor="middle">{frames:.0f}</text>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y - 7:.1f}" text-anchor="end">{value:.1f}</text>')
    base, axis = high - bottom, "#888888"
    parts.append(f'<path d="M{left} 16V{base}H{wide - 20}" fill="none" stroke="{axis}"/>')
    parts.append(f'<text x="{(wide + left) / 2:.0f}" y="{high - 6}" text-anchor="middle">frames</text>')
    parts.append(f'<text x="14" y="{high / 2:.0f}" transform="rotate(-90 14 {high / 2:.0f})">seconds</text>')
    text = 'font-family="sans-serif" font-size="12" fill="#666666"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" {text}>{"".join(parts)}</svg>\n'


def report(results: dict[Job, list[dict[str, Any]]], rounds: int, load: float, picture: str | None) -> tuple[str, str]:
    """(The page, the plot). picture: the plot's address on the page."""

    def mid(job: Job, name: str) -> float:
        return median(result[name] for result in results[job])

    jobs = list(results)
    first, frames = results[jobs[0]][0], [float(job.frames) for job in jobs]
    seconds, cpu_time = ([mid(job, name) for job in jobs] for name in ("seconds", "cpu_seconds"))
    start, slope, straight = line_through(frames, seconds)
    cpu_straight = line_through(frames, cpu_time)[2]
    # The first length is one window: it holds no more than the network's own working memory.
    growth = (mid(jobs[-1], "grown") - mid(jobs[0], "grown")) / (frames[-1] - frames[0])
    lines = [
        "# Long AnimateDiff videos in windows",
        "",
        "Written by `benchmarks/animatediff_windows.py`, which measures everything on this page in one run.",
        "",
        f"{Path(jobs[0].model).name}, {first['picture']}, {jobs[0].steps} steps, windows of {first['size']} frames "
        f"that share {first['overlap']} at least and move from step to step; from text to pixels, streamed. "
        f"{cpu_name()}, {os.cpu_count()} cores, of which {first['threads']} used; PyTorch {first['torch']}, float32; "
        f"a large matrix product runs at {max(mid(job, 'rate') for job in jobs) / 1e9:.0f} GFLOP/s; "
        f"{datetime.date.today().isoformat()}; medians of {rounds} rounds in which the lengths take turns.",
        "",
    ]
    if load > 0.3:
        lines += [
            f"**The machine was busy with other work** (load {load:.1f} a core before the run): its times are too "
            "long; CPU time and memory hold.",
            "",
        ]
    lines += [
        "| frames | calls of the network | seconds | CPU seconds | CPU, ms a frame "
        "| memory over the model's, MiB | latents, MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for job in jobs:
        cells = [job.frames, f"{mid(job, 'calls'):.0f}", f"{mid(job, 'seconds'):.2f}", f"{mid(job, 'cpu_seconds'):.2f}"]
        cells += [f"{1000 * mid(job, 'cpu_seconds') / job.frames:.0f}", f"{mid(job, 'grown'):.1f}"]
        lines.append("| " + " | ".join(map(str, [*cells, f"{first['latents'] * job.frames:.2f}"])) + " |")
    if picture is not None:
        lines += ["", f"![Seconds over frames, and the line through them]({picture})"]
    lines += [
        "",
        f"- Time is linear in the number of frames: R² = {straight:.4f} (of CPU time: {cpu_straight:.4f}); "
        f"{slope:.3f} s a frame; target: at least 0.99: {verdict(straight >= 0.99)}.",
        f"- From {jobs[0].frames} to {jobs[-1].frames} frames, memory grows by {1024 * growth:.0f} KiB a frame. A "
        f"frame's latents are {1024 * first['latents']:.0f} KiB; the noise, the sum of the windows' predictions, their "
        "weights and the solver's last step are as large again each. Pixels are decoded 16 frames at a time and kept "
        "by nobody.",
    ]
    return "\n".join(lines) + "\n", plot(frames, seconds, start, slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="animatediff-tiny", help="a zoo name or a folder")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--lengths", type=int, nargs="+", help=f"default: {', '.join(map(str, LENGTHS))}")
    parser.add_argument("--quick", action="store_true", help="short videos, 2 steps, one round; no page is written")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        print(json.dumps(work(Job(**json.loads(asked.job)))))
        return

    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    lengths, steps, rounds = asked.lengths or LENGTHS, asked.steps, asked.rounds
    if asked.quick:
        lengths, steps, rounds = asked.lengths or QUICK_LENGTHS, 2, 1
    jobs = [Job(asked.model, frames, steps) for frames in lengths]
    results: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    for round_ in range(rounds):
        for job in jobs if round_ % 2 == 0 else jobs[::-1]:
            results[job].append(run_job(job))
            seconds = results[job][-1]["seconds"]
            print(f"round {round_ + 1}: {job.frames} frames: {seconds:.2f} s", file=sys.stderr, flush=True)
    output = asked.output or (None if asked.quick else REPORT)
    picture = (
        None
        if output is None
        else os.path.relpath(PLOT if output == REPORT else output.with_suffix(".svg"), output.parent)
    )
    page, drawing = report(results, rounds, load, picture)
    print(page)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8")
        (output.parent / picture).write_text(drawing, "utf-8")


if __name__ == "__main__":
    main()
