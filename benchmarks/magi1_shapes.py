"""What does a chunk of the published MAGI-1 cost on this machine? Random weights of the published shapes.

    python benchmarks/magi1_shapes.py                                    # a GPU: 4.5B at 720x720
    python benchmarks/magi1_shapes.py --layers 2 --size 64x64            # a CPU: the same at a small size
    python benchmarks/magi1_shapes.py --output docs/benchmarks/h200/magi1.md

Each way runs in a process of its own, so that its peak memory is its own: the plain pipeline, and beside it what is to
make it quicker or smaller. Timed are the steps with all chunks in flight, of which a chunk takes a quarter of its
number; the first step of a stage, which also reads the chunk that has just become clean, is counted as often as it
comes. The floor is the arithmetic (counted by PyTorch in the plain run) at the measured rate of a large matrix product;
the memory that `animagic doctor` predicts is printed too, to be held against what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

WAYS = {
    "plain": "as it is",
    "compiled": "blocks compiled (`compile_repeated_blocks`)",
    "fp8": "the published FP8 layout",
    "kv": "keys and values offloaded",
    "block": "weights offloaded, block by block",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="4.5B_base", help="a published model of MAGI-1")
    parser.add_argument("--layers", type=int, help="fewer layers than it has")
    parser.add_argument("--size", default="720x720", help="WIDTHxHEIGHT")
    parser.add_argument("--chunks", type=int, default=6, help="of the video that is timed")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="default: plain and fp8; on a GPU all")
    parser.add_argument("--device", help="cuda or cpu; default: the best there is")
    parser.add_argument("--output", type=Path, help="the page to write; default: print it")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one way, in a process of its own
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return
    import torch

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    ways = args.ways or (list(WAYS) if args.device == "cuda" else ["plain", "fp8"])
    if "plain" not in ways:
        parser.error("the others are compared with plain: name it too")
    if args.device != "cuda" and {"kv", "block"} & set(ways):
        parser.error("offloading needs a GPU")
    results = {}
    for way in ways:
        words = [sys.executable, __file__, *sys.argv[1:], "--device", args.device, "--one", way]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        results[way] = json.loads(done.stdout.splitlines()[-1])
        print(f"{way}: {results[way]['seconds']:.3g} s a chunk", file=sys.stderr)
    page = report(args, results)
    if args.output is None:
        print(page)
    else:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(page)


def measure(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """One way: seconds and operations a chunk (those of the plain way only), bytes at the peak, what was predicted."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from animagic import Magi1Pipeline
    from animagic.pipelines.memory import Predictor, Techniques
    from animagic.pipelines.meta import cast
    from animagic.systems.magi1.denoiser import Magi1Sampling
    from animagic.systems.magi1.memory import MemoryNetworks
    from animagic.systems.magi1.published import config_of
    from animagic.systems.magi1.weights import autoencoder_from_config, transformer_from_config

    cuda = args.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    width, height = map(int, args.size.split("x"))
    config = config_of(args.model)
    if way == "fp8":
        config["engine_config"]["fp8_quant"] = True
    if args.layers:
        config["model_config"]["num_layers"] = args.layers
    with torch.device("meta"):
        parts = cast(transformer_from_config(config), dtype), autoencoder_from_config({})
    networks = MemoryNetworks(Magi1Pipeline(*parts, config=config), 0)
    steps, published = 2 * Magi1Sampling().window_size, Magi1Sampling.from_config(config).num_steps
    frames = 24 * args.chunks
    predictor = Predictor(networks, args.device, height, width, frames, published)
    techniques = Techniques(kv_offload=way == "kv", offload="block" if way == "block" else None)
    prediction = predictor.predict(techniques)

    transformer = with_random_weights(parts[0], torch.device("cpu" if way == "block" else args.device))
    pipe = Magi1Pipeline(transformer, config=config)
    pipe.set_progress_bar_config(disable=True)
    if way == "block":
        cpu, gpu = torch.device("cpu"), torch.device("cuda")
        transformer.enable_group_offload(
            onload_device=gpu, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1, use_stream=True
        )
    if way == "kv":
        pipe.enable_kv_offload()
    if way == "compiled":
        transformer.compile_repeated_blocks(fullgraph=True)

    settings = transformer.config
    generator = torch.Generator().manual_seed(0)
    shape = (1, transformer.latent_channels, settings.chunk_width * args.chunks, height // 8, width // 8)
    given = {
        "latents": torch.randn(shape, generator=generator).to(args.device),
        "prompt_embeds": torch.randn(1, 128, settings.caption_channels, generator=generator).to(args.device),
        "prompt_embeds_mask": torch.ones(1, 128, device=args.device),
    }
    ends: list[tuple[float, float, Any]] = []
    operations = FlopCounterMode(display=False) if way == "plain" else None

    def on_progress(progress: Any) -> None:
        if cuda:
            torch.cuda.synchronize()
        ends.append((progress.seconds, operations.get_total_flops() if operations else 0, progress.plan_step))

    for _ in range(2 if way == "compiled" else 1):  # the first time compiles
        ends.clear()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        with operations or contextlib.nullcontext():
            pipe(num_inference_steps=steps, output_type="latent", on_progress=on_progress, **given)
    took: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for (before, done, _), (after, then, step) in itertools.pairwise(ends):
        (window,) = step.windows
        if sum(level < steps for level in window.levels) == Magi1Sampling().window_size * settings.chunk_width:
            took[len(window.commit) > 0].append((after - before, then - done))
    (first, first_operations), (others, other_operations) = (
        [median(values) for values in zip(*took[kind], strict=True)] for kind in (True, False)
    )
    others_a_chunk = published // Magi1Sampling().window_size - 1
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # Of the prediction, what this run has: no text encoder, no decoding.
    expected = {
        k: v for k, v in prediction.stages["denoise"].items() if k not in ("text encoder", "autoencoder", "driver")
    }
    return {
        "seconds": first + others_a_chunk * others,
        "step": others,
        "peak": peak,
        "predicted peak": sum(expected.values()),
        "operations": first_operations + others_a_chunk * other_operations,
        "rate": rate_of_products(args.device, dtype),
        "machine": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "steps": published,
        "parameters": sum(p.numel() for p in transformer.parameters()),
    }


def rate_of_products(device: str, dtype: Any, seconds: float = 0.3) -> float:
    """Operations a second in the product of large matrices."""
    import torch

    side = 8192 if device == "cuda" else 1024
    a = torch.ones(side, side, device=device, dtype=dtype)
    best, began = math.inf, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best


def with_random_weights(model: Any, device: Any) -> Any:
    """A model on the meta device, with numbers: small enough that nothing overflows, in the dtypes that it has."""
    import torch

    model = model.to_empty(device=device).eval().requires_grad_(False)
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if name.endswith("_scale"):  # of FP8 layers
            tensor.fill_(1.0 if "smooth" in name else 0.05)
            continue
        for part in tensor.view(-1).split(2**26):
            part.copy_((0.02 * torch.randn(part.shape, device=device)).to(tensor.dtype))
    return model


def report(args: argparse.Namespace, results: dict[str, dict[str, Any]]) -> str:
    """The page."""
    plain = results["plain"]
    fewer = f", {args.layers} layers" if args.layers else ""
    threads = "" if args.device == "cuda" else f", {plain['threads']} threads"
    columns = ("way", "seconds a chunk", "against plain", "x floor", "peak memory, GiB")
    columns += ("against plain", "predicted / measured")
    lines = [
        f"# MAGI-1 {args.model} at {args.size}{fewer}",
        "",
        f"Random weights of the published shapes ({plain['parameters'] / 1e9:.2f} billion parameters), "
        f"{plain['steps']} steps a chunk of 24 frames, guidance as published.",
        f"{plain['machine']}, PyTorch {plain['torch']}{threads}.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    for way, one in results.items():
        seconds, peak = one["seconds"], one["peak"]
        times = [f"{seconds:.3g}", seconds / plain["seconds"], seconds / (plain["operations"] / plain["rate"])]
        memory = [peak / 2**30, peak / plain["peak"], one["predicted peak"] / peak]
        cells = [x if isinstance(x, str) else f"{x:.2f}" for x in [WAYS[way], *times, *memory]]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "The floor is the arithmetic of a chunk at the rate of a large matrix product, measured in the same run: "
        f"{plain['rate'] / 1e12:.3g} TFLOP/s.",
        "Made by `benchmarks/magi1_shapes.py`; the text encoder and the autoencoder take no part.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
