"""What does a video of AnimateDiff cost at the published sizes, beside diffusers? Random weights of those shapes.

    python benchmarks/animatediff_shapes.py --output docs/benchmarks/h200/animatediff.md   # a GPU: SD 1.5 at 512x512
    python benchmarks/animatediff_shapes.py --base sdxl                                   # SDXL at 1024x1024
    python benchmarks/animatediff_shapes.py --width 32 --size 64x64 --frames 4 --steps 2  # a CPU: a small copy

Each way runs in a process of its own, so that its peak memory is its own, from text to pixels: diffusers' pipeline as
it is, ours as it is, and ours compiled, with queries, keys and values of the attention in frames fused, in the
`channels_last` layout. The networks of all ways have the same shapes and arithmetic; diffusers' motion modules norm
otherwise than the original (see `animatediff_tiny.py`), which changes numbers but not times. The first call, which
compiles, is not timed. Text encoders have one layer: their share is small and the same everywhere.
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

WAYS = {
    "diffusers": "diffusers, as it is",
    "plain": "ours, as it is",
    "compiled": "ours, compiled, fused, channels last",
}
SIZES = {"sd15": "512x512", "sdxl": "1024x1024"}
WORDS = "a red ball bounces on the green floor slowly"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", choices=SIZES, default="sd15", help="the base model")
    parser.add_argument("--size", help="WIDTHxHEIGHT; default: the base's own")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--width", type=int, help="channels of the first level, a multiple of 32; default: 320")
    parser.add_argument("--rounds", type=int, default=3, help="calls that are timed, of each way")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--backend", default="inductor", help="what torch.compile makes of it")
    parser.add_argument("--device", help="cuda or cpu; default: the best there is")
    parser.add_argument("--output", type=Path, help="the page to write; default: print it")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one way, in a process of its own
    args = parser.parse_args()
    args.size = args.size or SIZES[args.base]
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return
    import torch

    if "diffusers" not in args.ways:
        parser.error("the others are compared with diffusers: name it too")
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    results = {}
    for way in args.ways:
        words = [sys.executable, __file__, *sys.argv[1:], "--device", args.device, "--one", way]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        results[way] = json.loads(done.stdout.splitlines()[-1])
        print(f"{way}: {results[way]['seconds']:.3g} s", file=sys.stderr)
    page = report(args, results)
    if args.output is None:
        print(page)
    else:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(page)


def make_parts(args: argparse.Namespace, dtype: Any) -> dict[str, Any]:
    """Networks of the base's shapes (or narrower) with random weights, and a tokenizer of a few words."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from animagic.training.text_to_image import build_tokenizer
    from animagic.weights.stable_diffusion import SD15, SDXL

    torch.manual_seed(0)
    shapes = SDXL if args.base == "sdxl" else SD15
    unet, vae = dict(shapes["unet"]), dict(shapes["vae"])
    if args.width:
        unet["block_out_channels"] = tuple(
            args.width * times for times in ((1, 2, 4) if args.base == "sdxl" else (1, 2, 4, 4))
        )
        vae["block_out_channels"] = tuple(args.width * times for times in (1, 2, 2, 2))
        if args.base == "sdxl":
            unet["transformer_layers_per_block"] = (1, 1, 1)
    tokenizer = build_tokenizer([WORDS] * 4, 560, 77)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    small = {"num_hidden_layers": 1, "vocab_size": len(tokenizer), **ends}
    with torch.device(args.device):
        parts = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**{**shapes["text_encoder"], **small})),
        }
        if args.base == "sdxl":
            config = CLIPTextConfig(**{**shapes["text_encoder_2"], **small})
            parts["text_encoder_2"] = CLIPTextModelWithProjection(config)
    for part in parts.values():
        part.to(dtype).eval().requires_grad_(False)
    tokenizers = {"tokenizer": tokenizer} | ({"tokenizer_2": tokenizer} if args.base == "sdxl" else {})
    return parts | tokenizers


def make_pipe(args: argparse.Namespace, way: str, dtype: Any) -> Any:
    """The pipeline of a way; its motion modules have random weights and do something."""
    import diffusers
    import torch

    from animagic import AnimateDiffPipeline
    from animagic.systems.animatediff.unet import AnimateDiffUNet
    from animagic.timeline import build_scheduler

    parts = make_parts(args, dtype)
    unet, scheduler = parts.pop("unet"), build_scheduler("ddim")
    levels, middle = len(unet.config.block_out_channels), args.base != "sdxl"
    if way == "diffusers":
        with torch.device(args.device):
            adapter = diffusers.MotionAdapter(
                block_out_channels=unet.config.block_out_channels, use_motion_mid_block=middle
            )
        unet = diffusers.UNetMotionModel.from_unet2d(unet, adapter.to(dtype)).to(args.device, dtype)
        kind = diffusers.AnimateDiffSDXLPipeline if args.base == "sdxl" else diffusers.AnimateDiffPipeline
        pipe = kind(unet=unet, motion_adapter=None, scheduler=scheduler, **parts)
    else:
        unet = AnimateDiffUNet.from_unet2d(
            unet, motion_resolutions=tuple(2**i for i in range(levels)), motion_mid_block=middle
        )
        pipe = AnimateDiffPipeline(unet=unet, scheduler=scheduler, **parts)
    unet.eval().requires_grad_(False)
    for name, parameter in unet.named_parameters():
        if "motion_modules" in name and "proj_out" in name:
            parameter.normal_(std=0.02)
    if way == "compiled":
        pipe.unet = compiled(unet, args.backend)
        pipe.vae.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def compiled(unet: Any, backend: str) -> Any:
    """The UNet with its attention in frames fused, in channels_last, compiled as one graph."""
    import torch
    from diffusers.models.attention_processor import FusedAttnProcessor2_0

    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.fuse_projections()
            module.set_processor(FusedAttnProcessor2_0())
    return torch.compile(unet.to(memory_format=torch.channels_last), backend=backend, fullgraph=True)


def measure(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """One way: seconds, bytes at the peak."""
    import torch

    cuda = args.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    width, height = map(int, args.size.split("x"))
    pipe = make_pipe(args, way, dtype)

    def make() -> float:
        began = time.perf_counter()
        pipe(
            prompt=WORDS, num_frames=args.frames, height=height, width=width, num_inference_steps=args.steps,
            guidance_scale=7.5, generator=torch.Generator().manual_seed(0), output_type="pt",
        )  # fmt: skip
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    first = make()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = [make() for _ in range(args.rounds)]
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": median(seconds),
        "first": first,
        "peak": peak,
        "parameters": sum(p.numel() for p in pipe.unet.parameters()),
        "machine": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
    }


def report(args: argparse.Namespace, results: dict[str, dict[str, Any]]) -> str:
    """The page."""
    theirs = results["diffusers"]
    narrower = f", {args.width} channels at the first level" if args.width else ""
    threads = "" if args.device == "cuda" else f", {theirs['threads']} threads"
    base = {"sd15": "Stable Diffusion 1.5", "sdxl": "Stable Diffusion XL"}[args.base]
    columns = ("way", "seconds", "diffusers takes", "first call, seconds", "peak memory, GiB", "of diffusers'")
    lines = [
        f"# AnimateDiff on {base} at {args.size}{narrower}",
        "",
        f"{args.frames} frames, {args.steps} steps, guidance 7.5, from text to pixels; random weights "
        f"({theirs['parameters'] / 1e9:.2f} billion parameters in the UNet), {theirs['dtype']}.",
        f"{theirs['machine']}, PyTorch {theirs['torch']}{threads}; median of {args.rounds} calls after the first.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    for way, one in results.items():
        cells = [WAYS[way], f"{one['seconds']:.3g}", f"{theirs['seconds'] / one['seconds']:.2f} x"]
        cells += [f"{one['first']:.3g}", f"{one['peak'] / 2**30:.2f}", f"{one['peak'] / theirs['peak']:.2f} x"]
        lines.append(f"| {' | '.join(cells)} |")
    if "compiled" in results:
        faster = theirs["seconds"] / results["compiled"]["seconds"]
        met = "met" if faster >= 2 else "missed"
        lines += ["", f"Target: compiled at least 2 x as fast as diffusers: {faster:.2f} x: {met}."]
    lines += ["", "Made by `benchmarks/animatediff_shapes.py`; the text encoders have one layer.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
