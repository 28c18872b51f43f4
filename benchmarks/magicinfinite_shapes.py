"""What does a portrait that speaks cost at the published size? Random weights of HunyuanVideo's shapes, and voices.

    python benchmarks/magicinfinite_shapes.py --output docs/benchmarks/h200/magicinfinite.md   # a GPU: 13 billion
    python benchmarks/magicinfinite_shapes.py --layers 1 2 --size 64x64 --seconds 1            # a CPU: less of it

A window of the whole video, and one of the live front, is denoised a few times, as the pipeline does it, and the time
of a call is multiplied by the calls of the plan; decoding likewise. Each way and size runs in a process of its own, so
that its peak memory is its own. The floor is the arithmetic at the measured rate of a large matrix product. To compare:
the paper (arXiv 2503.05978) has 10 s of 540x540 in 80 and of 720x720 in 240 GPU-seconds, on 8 H100.
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

from magi1_shapes import rate_of_products, with_random_weights
from magi1_tiny import count_flop

WAYS = {
    "plain": "as it is",
    "compiled": "blocks compiled (`compile_repeated_blocks`)",
    "front": "live: a window of the front",
    "decode": "decoding, in tiles",
}
PAPER = {"544x544": 80, "720x720": 240}
TEXT = 256  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=["544x544", "720x720"], help="WIDTHxHEIGHT, multiples of 16")
    parser.add_argument("--seconds", type=float, default=10, help="of the video")
    parser.add_argument("--steps", type=int, default=8, help="as a distilled model takes")
    parser.add_argument("--layers", type=int, nargs=2, default=[20, 40], help="dual and single-stream blocks")
    parser.add_argument("--heads", type=int, default=24, help="of 128 channels")
    parser.add_argument("--speakers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="calls that are timed, after the first")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--device", help="cuda or cpu; default: the best there is")
    parser.add_argument("--output", type=Path, help="the page to write; default: print it")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # one way and size, in a process of its own
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, *args.one)))
        return
    import torch

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    results = {}
    for size in args.size:
        for way in args.ways:
            words = [sys.executable, __file__, *sys.argv[1:], "--device", args.device, "--one", way, size]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            results[way, size] = json.loads(done.stdout.splitlines()[-1])
            print(f"{way}, {size}: {results[way, size]['seconds']:.3g} s a call", file=sys.stderr, flush=True)
    page = report(args, results)
    if args.output is None:
        print(page)
    else:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(page, "utf-8")


def make_denoiser(args: argparse.Namespace, height: int, width: int, dtype: Any) -> tuple[Any, int]:
    """The network as the engine calls it, with voices, and its number of parameters. height, width: latents."""
    import torch

    from animagic import MagicInfiniteTransformer3DModel
    from animagic.systems.magicinfinite.denoiser import MagicInfiniteDenoiser, Prompt, Voice, shifted_times

    with torch.device("meta"):
        blocks = {"num_layers": args.layers[0], "num_single_layers": args.layers[1], "num_attention_heads": args.heads}
        transformer = MagicInfiniteTransformer3DModel(**blocks).to(dtype)
    transformer = with_random_weights(transformer, args.device)
    config = transformer.config

    class Heard:
        def speech(self, frames: range) -> Any:
            return torch.randn(len(frames), 8, config.audio_layers, config.audio_channels, device=args.device)

    def face(frames: Any) -> Any:
        return torch.ones(len(frames), height, width, device=args.device)

    def known(frames: Any) -> tuple[Any, Any]:
        picture = portrait[:, :, None].expand(-1, -1, len(frames), -1, -1)
        return picture, torch.ones(1, 1, 1, height, width, device=args.device)

    portrait = torch.randn(1, config.in_channels, height, width, device=args.device)
    embeds = torch.randn(1, TEXT, config.text_embed_dim, device=args.device)
    pooled = torch.randn(1, config.pooled_projection_dim, device=args.device)
    prompt = Prompt(embeds, torch.ones(1, TEXT, device=args.device), pooled)
    voices = [Voice(Heard(), face)] * args.speakers
    times = shifted_times(args.steps, 7.0)
    denoiser = MagicInfiniteDenoiser(transformer, times, {0: prompt}, prompt, portrait, known, voices)
    return denoiser, sum(p.numel() for p in transformer.parameters())


def measure(args: argparse.Namespace, way: str, size: str) -> dict[str, Any]:
    """Of a call: seconds, floating-point operations, bytes at the peak; and how many calls the video takes."""
    import torch

    from animagic.systems.magicinfinite.denoiser import MagicInfiniteSampling, latents_of

    cuda = args.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    width, height = (int(side) // 8 for side in size.split("x"))
    settings = MagicInfiniteSampling(num_frames=round(args.seconds * 25), num_inference_steps=args.steps)
    parameters = 0
    if way == "decode":
        from diffusers import AutoencoderKLHunyuanVideo

        with torch.device("meta"):
            vae = AutoencoderKLHunyuanVideo().to(dtype)
        vae = with_random_weights(vae, args.device)
        vae.enable_tiling()
        # Eight latent frames at a time, after those that a causal decoder needs, as the pipeline does.
        latents = torch.randn(1, 16, settings.decode_context + 8, height, width, device=args.device, dtype=dtype)
        calls = -(-latents_of(settings.num_frames) // 8)

        def call() -> Any:
            return vae.decode(latents).sample
    else:
        denoiser, parameters = make_denoiser(args, height, width, dtype)
        if way == "compiled":
            denoiser.transformer.compile_repeated_blocks(fullgraph=True)
        steps = list(settings.plan_for(plan="front" if way == "front" else "windows").steps())
        window = max((window for step in steps for window in step.windows), key=lambda one: len(one.frames))
        latents = torch.randn(1, 16, len(window.frames), height, width, device=args.device)
        calls = sum(len(step.windows) for step in steps)

        def call() -> Any:
            return denoiser(latents, window)

    @torch.no_grad()
    def timed() -> float:
        began = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = median(timed() for _ in range(args.rounds))
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with torch.no_grad():  # compiled, the counter would see nothing
        flop = None if way == "compiled" else count_flop(call)
    return {
        "seconds": seconds,
        "flop": flop,
        "calls": calls,
        "latents": latents.shape[2],
        "peak": peak,
        "parameters": parameters,
        "rate": rate_of_products(args.device, dtype),
        "machine": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "front": [settings.front, settings.front_context],
    }


def report(args: argparse.Namespace, results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The page."""
    first = next(iter(results.values()))
    rate, parameters = max(one["rate"] for one in results.values()), max(one["parameters"] for one in results.values())
    front, context = first["front"]
    columns = ("size", "way", "latent frames a call", "seconds a call", "TFLOP a call", "share of the floor", "calls")
    columns += ("seconds a video", "a second of video takes", "peak memory, GiB")
    lines = [
        f"# MagicInfinite with {parameters / 1e9:.2f} billion parameters",
        "",
        f"{args.seconds:g} s of video in {args.steps} steps, without a second branch of guidance, as a distilled model "
        f"has it; {args.speakers} voice{'s' * (args.speakers > 1)}; random weights, {first['dtype']}. "
        f"{first['machine']}, PyTorch {first['torch']}; a large matrix product runs at {rate / 1e12:.3g} TFLOP/s; "
        f"median of {args.rounds} calls after the first.",
        "",
        f"| {' | '.join(columns)} |",
        "|---|---|" + "---:|" * (len(columns) - 2),
    ]
    for (way, size), one in results.items():
        flop = one["flop"] or results.get(("plain", size), {}).get("flop")
        video = one["seconds"] * one["calls"]
        cells = [size, WAYS[way], str(one["latents"]), f"{one['seconds']:.3g}"]
        cells += [f"{flop / 1e12:.3g}", f"{flop / one['rate'] / one['seconds']:.0%}"] if flop else ["", ""]
        cells += [str(one["calls"]), f"{video:.3g}", f"{video / args.seconds:.2f}", f"{one['peak'] / 2**30:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for size in args.size:
        ways = [way for way in ("plain", "compiled") if (way, size) in results]
        if ways:
            best = min(results[way, size]["seconds"] * results[way, size]["calls"] for way in ways)
            decoding = results.get(("decode", size))
            best += decoding["seconds"] * decoding["calls"] if decoding else 0
            theirs = f"; the paper has {PAPER[size]} GPU-seconds for 10 s" if size in PAPER else ""
            lines.append(f"- {size}: {best:.3g} s for {args.seconds:g} s of video, on one device{theirs}.")
        if ("front", size) in results:
            one = results["front", size]
            # Every frame takes `steps` calls, in which as many frames leave as the front has.
            pace = one["seconds"] * args.steps / (front * 4 / 25)
            lines.append(
                f"- {size}, live, with a front of {front} latent frames and {context} before it: a second of video "
                f"takes {pace:.2f} s without decoding; real time is 1."
            )
    lines += [
        "",
        "*Share of the floor*: the time that the arithmetic takes at the rate of a large matrix product, of the time "
        "that was measured. *Seconds a video*: calls times seconds a call. Made by "
        "`benchmarks/magicinfinite_shapes.py`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
