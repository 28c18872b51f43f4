"""What does a video of magi1-tiny cost on this machine, beside the naive way of making it?

    python benchmarks/magi1_tiny.py            # writes docs/benchmarks/magi1-tiny-cpu.md, about ten minutes
    python benchmarks/magi1_tiny.py --quick    # a few steps, one round, writes nothing: does it run?

Two ways of making the same number of frames with the same network, steps and guidance:

- staircase: `Magi1Pipeline.stream`, chunk after chunk, finished chunks in the key/value cache;
- whole: every chunk at once at one level, block-causal attention computed anew at each step, no cache.

Each measurement runs in a process of its own, so that its peak memory is its own; the ways take turns, round after
round, and what is compared are medians and medians of the rounds' ratios. This process imports nothing heavy: what it
held would count towards the peak of the processes that it starts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "magi1-tiny-cpu.md"
PROMPT = "a red ball bounces on a green floor"
WAYS = ("staircase", "whole")
COLUMNS = ("frames", "steps", "way", "seconds", "CPU seconds", "to the first frames", "memory, MiB", "GFLOP",
           "floor, seconds", "x floor")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One measurement. steps None: the model's own; count: also count the arithmetic (in a second, untimed run)."""

    model: str
    way: str
    chunks: int
    steps: int | None = None
    count: bool = False


# ---- in a process of its own -------------------------------------------------------------------------------


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def matmul_rate(seconds: float = 0.5, size: int = 512) -> float:
    """FLOP/s of a large float32 matrix product: the best of `seconds`."""
    import torch

    x, best, end = torch.randn(size, size), float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def whole_clip(pipe: Any, chunks: int, steps: int | None):
    """The naive way, as a stream: nothing comes before everything is done. Yields (frames, height, width, 3)."""
    import torch

    from animagic.timeline import ChunkNoise, FlowEuler, Sampler, Timeline, WholeClip

    sampling = pipe.configure(steps)
    prompts = pipe.embed_prompts(PROMPT, num_chunks=chunks)
    width, times = sampling.chunk_width, sampling.times()

    def denoise(latents, window, *, text=True, history=True, commit=False):
        prompt = prompts.at(0) if text else prompts.null
        alone = torch.tensor([[i * width, (i + 1) * width] for i in range(chunks)])
        return pipe.transformer(
            latents,
            times[window.levels[0]].expand(1, chunks),
            prompt.embeds[:, None],
            encoder_attention_mask=prompt.mask[:, None],
            caption_dropped=torch.full((1, chunks), not text),
            key_frames=None if history else alone,  # None: every chunk sees itself and all before it
            return_dict=False,
        )[0]

    size = pipe.vae.config.patch_size
    shape = (1, pipe.transformer.latent_channels, sampling.video_size_h // size, sampling.video_size_w // size)
    noise = ChunkNoise(shape, torch.Generator().manual_seed(sampling.seed), torch.device("cpu"), width)
    plan = WholeClip(chunks * width, sampling.num_steps)
    (clean,) = Sampler(plan, sampling.guide(denoise), FlowEuler(times), Timeline(noise)).run()
    for latents in clean.latents.split(width, dim=2):  # in pieces, as the other way does: the decoder is not the point
        with torch.no_grad():
            video = pipe.vae.decode(latents / sampling.scale_factor).sample
        yield (video[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 3, 0).numpy()


def staircase(pipe: Any, chunks: int, steps: int | None):
    """Our way. Yields (frames, height, width, 3)."""
    frames = chunks * pipe.sampling.chunk_width * pipe.sampling.temporal_downsample_factor
    for chunk in pipe.stream(PROMPT, num_frames=frames, num_inference_steps=steps, output_type="np"):
        yield chunk.frames[0]


def count_flop(run: Any) -> float:
    """Floating-point operations of the matrix products, convolutions and attentions of `run()`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def attention(query, key, value, *_, **__):
        return 4 * query[0] * query[1] * query[2] * key[2] * query[3]

    # The attention kernel of the CPU is the one that PyTorch's counter does not know.
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
        run()
    return float(counter.get_total_flops())


def work(job: Job) -> dict[str, Any]:
    """Carry out a job in this process."""
    import diffusers
    import torch
    import transformers

    import animagic

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    pipe = animagic.load(job.model)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    loaded, make = peak_mib(), {"staircase": staircase, "whole": whole_clip}[job.way]
    for _ in make(pipe, 1, pipe.sampling.window_size):  # kernels are chosen and buffers made at the first call
        pass

    rate, ends, cpu_ends = matmul_rate(), [], []
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in make(pipe, job.chunks, job.steps):
        ends.append(time.perf_counter() - began)
        cpu_ends.append(time.process_time() - began_cpu)
    peak, rate = peak_mib(), max(rate, matmul_rate())
    return {
        "first": ends[0],
        "seconds": ends[-1],
        "cpu_seconds": cpu_ends[-1],
        "ends": ends,  # when each chunk was there
        "cpu_ends": cpu_ends,  # the same, in seconds of CPU time
        "peak": peak,
        "loaded": loaded,
        "rate": rate,
        "flop": count_flop(lambda: list(make(pipe, job.chunks, job.steps))) if job.count else None,
        "parameters": sum(p.numel() for p in pipe.transformer.parameters()),
        "frames_per_chunk": pipe.sampling.chunk_width * pipe.sampling.temporal_downsample_factor,
        "num_steps": job.steps or pipe.sampling.num_steps,
        "window_size": pipe.sampling.window_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


# ---- in the process that asks ------------------------------------------------------------------------------


def run_job(job: Job) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(jobs: list[Job], rounds: int) -> dict[Job, list[dict[str, Any]]]:
    """Every job once a round, in turns."""
    results: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    for round_ in range(rounds):
        for job in jobs:
            asked = Job(job.model, job.way, job.chunks, job.steps, count=round_ == 0)
            results[job].append(run_job(asked))
            seconds = results[job][-1]["seconds"]
            print(f"round {round_ + 1}: {job.way}, {job.chunks} chunks: {seconds:.2f} s", file=sys.stderr, flush=True)
    return results


def mid(results: list[dict[str, Any]], name: str) -> float:
    return median(result[name] for result in results)


def ratio(above: list[dict[str, Any]], below: list[dict[str, Any]], name: str) -> float:
    """The median of the rounds' ratios."""
    return median(a[name] / b[name] for a, b in zip(above, below, strict=True))


def flatness(results: list[dict[str, Any]], clock: str = "ends") -> tuple[list[float], float] | None:
    """Seconds a chunk in the first, middle and last third of a long video, and the largest deviation from their mean.

    Only chunks during which the window is full count: the first one waits for the staircase to fill, and while the
    last ones are finished there is nothing left to begin. Medians over the rounds, then over the third.
    """
    chunks = len(results[0]["ends"])
    steady = range(1, chunks - results[0]["window_size"] + 1)
    if len(steady) < 6:
        return None
    seconds = [median(result[clock][i] - result[clock][i - 1] for result in results) for i in steady]
    third = len(seconds) // 3
    thirds = [median(seconds[:third]), median(seconds[third:-third]), median(seconds[-third:])]
    mean = sum(thirds) / 3
    return thirds, max(abs(value / mean - 1) for value in thirds)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def verdict(holds: bool) -> str:
    return "met" if holds else "missed"


def comparison(results: dict[Job, list[dict[str, Any]]]) -> list[str]:
    """The table of both ways at every length, and their ratios."""
    rows = ["| " + " | ".join(COLUMNS) + " |", "|---:|---:|---|" + "---:|" * (len(COLUMNS) - 3)]
    ratios = []
    settings = sorted({(job.steps or 0, job.chunks) for job in results})
    for steps, chunks in settings:
        ways = {job.way: r for job, r in results.items() if (job.steps or 0, job.chunks) == (steps, chunks)}
        frames = chunks * next(iter(ways.values()))[0]["frames_per_chunk"]
        for way, r in sorted(ways.items()):
            flop = r[0]["flop"]
            far = median(result["seconds"] * result["rate"] / flop for result in r)
            grown = median(result["peak"] - result["loaded"] for result in r)
            cells = [frames, r[0]["num_steps"], way]
            cells += [f"{mid(r, name):.2f}" for name in ("seconds", "cpu_seconds", "first")]
            cells += [f"{mid(r, 'peak'):.0f} (+{grown:.0f})", f"{flop / 1e9:.0f}"]
            cells += [f"{flop / mid(r, 'rate'):.2f}", f"{far:.1f}"]
            rows.append("| " + " | ".join(map(str, cells)) + " |")
        if len(ways) == 2:
            naive, ours = ways["whole"], ways["staircase"]
            ratios.append(
                f"- {frames} frames, {ours[0]['num_steps']} steps: the naive way takes "
                f"{ratio(naive, ours, 'seconds'):.2f} x the time ({ratio(naive, ours, 'cpu_seconds'):.2f} x the "
                f"CPU time), {ratio(naive, ours, 'peak'):.2f} x the memory, and "
                f"{ratio(naive, ours, 'first'):.2f} x as long to the first frames."
            )
    return [*rows, "", *ratios]


def report(results: dict[Job, list[dict[str, Any]]], streamed: tuple[Job, Job], rounds: int, load: float) -> str:
    """The page: tables of medians. streamed: the short and the long job whose memory is compared."""
    any_result = next(iter(results.values()))[0]
    per_chunk, rate = any_result["frames_per_chunk"], max(mid(r, "rate") for r in results.values())
    lines = [
        f"# {next(iter(results)).model.rstrip('/').split('/')[-1]} on a CPU",
        "",
        "Written by `benchmarks/magi1_tiny.py`, which measures everything on this page in one run.",
        "",
        f"{cpu_name()}, {os.cpu_count()} cores, of which {any_result['threads']} used; "
        f"PyTorch {any_result['torch']}, float32; a large matrix product runs at {rate / 1e9:.0f} GFLOP/s; "
        f"{datetime.date.today().isoformat()}; medians of {rounds} rounds in which the ways take turns.",
        "",
    ]
    if load > 0.3:
        lines += [
            f"**The machine was busy with other work** (load {load:.1f} before the run): its times are too long; "
            "CPU time and memory hold.",
            "",
        ]
    lines += [
        "## Beside the naive way",
        "",
        "*Staircase* is what the pipeline does: chunk after chunk, finished ones in the cache. *Whole* is the naive "
        "way: all chunks at once at one noise level, attention to everything before anew at every step, no cache. "
        f"Network ({any_result['parameters'] / 1e6:.2f} M parameters), steps, guidance and decoder are the same.",
        "",
        "*Memory* is the peak of the process, and in brackets what it grew by after the model was loaded. *Floor* is "
        "how long the arithmetic of the run (matrix products, convolutions, attention) takes at the rate of a large "
        "matrix product, measured in the same process; *x floor* is how far from it the run is.",
        "",
        *comparison(results),
        "",
    ]
    short = next(iter(results.values()))
    held = mid(short, "seconds") < 15 and mid(short, "peak") < 2048
    lines += [
        f"At one chunk both ways are the same calls. Target for {per_chunk} frames: under 15 s and under 2,048 MiB on "
        f"2 cores: {verdict(held)}.",
        "",
    ]
    few, many = (results[job] for job in streamed)
    memory = ratio(many, few, "peak")
    long = len(many[0]["ends"])
    lines += [
        "## A long video",
        "",
        f"- Memory of {long} chunks ({long * per_chunk} frames) against {len(few[0]['ends'])}, {many[0]['num_steps']} "
        f"steps: {memory:.3f} x ({mid(many, 'peak'):.0f} and {mid(few, 'peak'):.0f} MiB); target: at most 1.1: "
        f"{verdict(memory <= 1.1)}.",
    ]
    flat, cpu_flat = flatness(many), flatness(many, "cpu_ends")
    if flat is not None and cpu_flat is not None:
        lines.append(
            f"- Seconds a chunk, first, middle and last third of those {long} chunks for which the window is full: "
            f"{', '.join(f'{x:.3f}' for x in flat[0])}; largest deviation from their mean {flat[1]:.1%} "
            f"(of CPU time: {cpu_flat[1]:.1%}); target: at most 10 %: {verdict(flat[1] <= 0.1)}."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--quick", action="store_true", help="few chunks and steps, one round; no page is written")
    parser.add_argument("--model", default="magi1-tiny", help="a zoo name or a folder")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(work(Job(**json.loads(arguments.job)))))
        return

    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    model, compared, lengths, steps, rounds = arguments.model, (1, 4), (4, 40), (None, 8), arguments.rounds
    if arguments.quick:
        compared, lengths, steps, rounds = (1,), (1, 10), (4, 4), 1
    jobs = [Job(model, way, chunks, steps[0]) for chunks in compared for way in WAYS]
    short, long = (Job(model, "staircase", chunks, steps[1]) for chunks in lengths)
    jobs += [short, long, Job(model, "whole", lengths[1], steps[1])]
    page = report(measure(list(dict.fromkeys(jobs)), rounds), (short, long), rounds, load)
    print(page)
    output = arguments.output or (None if arguments.quick else REPORT)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
