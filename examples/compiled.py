"""Compile the network, block by block: slow the first time, then faster on GPUs. Prints the seconds of two videos."""

import argparse
import time

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a red ball bounces")
parser.add_argument("--frames", type=int, default=48)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--backend", default="inductor", help="aot_eager compiles in seconds, and nothing gets faster")
args = parser.parse_args()

pipe = animagic.load("magi1-tiny").to("cuda" if torch.cuda.is_available() else "cpu")
pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=args.backend)
for what in ("with compiling", "compiled"):
    began = time.monotonic()
    generator = torch.Generator().manual_seed(7)
    out = pipe(args.prompt, num_frames=args.frames, num_inference_steps=args.steps, generator=generator)
    print(f"{len(out.frames[0])} frames {what}: {time.monotonic() - began:.1f} s")
