"""What does a video of MagicAnimate cost at the published size? Random weights of those shapes.

    python benchmarks/magicanimate_shapes.py --output docs/benchmarks/h200/magicanimate.md    # a GPU: 512x512
    python benchmarks/magicanimate_shapes.py --width 32 --size 64x64 --frames 2 4 --steps 1   # a CPU: a small copy

Each way and length runs in a process of its own, so that its peak memory is its own, from poses to latents and to
pixels: the original's way (`magicanimate_original.py`) and ours. The first call is not timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

WAYS = {"original": "the original's way, to latents", "ours": "ours, to latents", "pixels": "ours, to pixels"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="512x512", help="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--width", type=int, help="channels of the first level, a multiple of 32; default: 320")
    parser.add_argument("--rounds", type=int, default=2, help="calls that are timed, of each way")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--device", help="cuda or cpu; default: the best there is")
    parser.add_argument("--output", type=Path, help="the page to write; default: print it")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # one way and length, in a process of its own
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, args.one[0], int(args.one[1]))))
        return
    import torch

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    results = {}
    for frames in args.frames:
        for way in args.ways:
            words = [sys.executable, __file__, *sys.argv[1:], "--device", args.device, "--one", way, str(frames)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            results[way, frames] = json.loads(done.stdout.splitlines()[-1])
            print(f"{way}, {frames} frames: {results[way, frames]['seconds']:.3g} s", file=sys.stderr)
    page = report(args, results)
    if args.output is None:
        print(page)
    else:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(page, "utf-8")


def make_pipe(args: argparse.Namespace, dtype: Any) -> Any:
    """Networks of Stable Diffusion 1.5's shapes (or narrower) with random weights."""
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

    from animagic import AppearanceEncoder, MagicAnimatePipeline, MagicAnimateUNet
    from animagic.weights.stable_diffusion import SD15

    torch.manual_seed(0)
    unet, vae = dict(SD15["unet"]), dict(SD15["vae"])
    if args.width:
        unet["block_out_channels"] = tuple(args.width * times for times in (1, 2, 4, 4))
        vae["block_out_channels"] = tuple(args.width * times for times in (1, 2, 2, 2))
    with torch.device(args.device):
        spatial = UNet2DConditionModel(**unet)
        parts = [
            MagicAnimateUNet.from_unet2d(spatial),
            AppearanceEncoder.from_unet2d(spatial),
            ControlNetModel.from_unet(spatial),
            AutoencoderKL(**vae),
        ]
    del spatial
    pipe = MagicAnimatePipeline(*(part.to(args.device, dtype).eval().requires_grad_(False) for part in parts))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def matmul_rate(device: str, dtype: Any) -> float:
    """FLOP/s of a large matrix product."""
    import torch

    size = 8192 if device == "cuda" else 512
    x = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(4):
            x @ x
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - began) / 4)
    return 2 * size**3 / best


def measure(args: argparse.Namespace, way: str, frames: int) -> dict[str, Any]:
    """Seconds, bytes at the peak, floating-point operations."""
    import numpy as np
    import torch
    from magi1_tiny import count_flop
    from magicanimate_original import animate

    cuda = args.device == "cuda"
    dtype = torch.float16 if cuda else torch.float32
    width, height = map(int, args.size.split("x"))
    pipe = make_pipe(args, dtype)
    weights = torch.cuda.memory_allocated() if cuda else 0
    ratio = pipe.pixels_per_latent
    noise = torch.randn(1, 4, frames, height // ratio, width // ratio, device=args.device)
    picture, text = noise[:, :, 0].to(dtype), torch.zeros(1, 77, 768, device=args.device, dtype=dtype)
    poses = np.random.default_rng(0).integers(256, size=(frames, height, width, 3), dtype=np.uint8)
    windows = [list(w.frames) for w in next(iter(pipe.plan(frames, args.steps).steps())).windows]

    def make(steps: int) -> None:
        if way == "original":
            shown = torch.from_numpy(poses).to(args.device).permute(0, 3, 1, 2).to(dtype) / 255
            animate(pipe, noise.to(dtype), picture, shown, text, windows, steps, pipe.sampling.guidance_scale)
            return
        for _ in pipe.stream(
            latents=noise, reference_latents=picture, pose_frames=poses, prompt_embeds=text,
            num_inference_steps=steps, output_type="pt" if way == "pixels" else "latent",
        ):  # fmt: skip
            pass

    def timed() -> float:
        began = time.perf_counter()
        make(args.steps)
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    make(1)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = [timed() for _ in range(args.rounds)]
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    flop = [count_flop(lambda n=n: make(n)) for n in (1, 2)]
    return {
        "seconds": median(seconds),
        "peak": peak,
        "beside": peak - weights,
        "flop": flop[0] + (args.steps - 1) * (flop[1] - flop[0]),
        "rate": matmul_rate(args.device, dtype),
        "machine": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
    }


def report(args: argparse.Namespace, results: dict[tuple[str, int], dict[str, Any]]) -> str:
    """The page."""
    first = next(iter(results.values()))
    narrower = f", {args.width} channels at the first level" if args.width else ""
    threads = "" if args.device == "cuda" else f", {first['threads']} threads"
    beside = "beside the weights, GiB" if args.device == "cuda" else "of the process, GiB"
    columns = ("frames", "way", "seconds", "original takes", "peak memory, GiB", beside, "TFLOP", "share of the floor")
    lines = [
        f"# MagicAnimate at {args.size}{narrower}",
        "",
        f"{args.steps} steps, guidance 7.5, windows as published; random weights, {first['dtype']}. "
        f"{first['machine']}, PyTorch {first['torch']}{threads}; a large matrix product runs at "
        f"{first['rate'] / 1e12:.3g} TFLOP/s; median of {args.rounds} calls after the first.",
        "",
        f"| {' | '.join(columns)} |",
        "|---:|---|" + "---:|" * (len(columns) - 2),
    ]
    for (way, frames), one in results.items():
        theirs = results.get(("original", frames))
        faster = "" if theirs is None or way == "pixels" else f"{theirs['seconds'] / one['seconds']:.2f} x"
        share = one["flop"] / one["rate"] / one["seconds"]
        cells = [str(frames), WAYS[way], f"{one['seconds']:.3g}", faster, f"{one['peak'] / 2**30:.2f}"]
        cells += [f"{one['beside'] / 2**30:.2f}", f"{one['flop'] / 1e12:.3g}", f"{share:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "*Share of the floor*: the time that the arithmetic takes at the rate of a large matrix product, of the time "
        "that was measured. Made by `benchmarks/magicanimate_shapes.py`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
