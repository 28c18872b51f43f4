"""A copy of the embedded model in FP8, and how near its video is to the one of the model itself."""

import argparse
import shutil
from pathlib import Path

import torch

import animagic
from animagic.systems.magi1.quantize import quantize

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=32)
steps = parser.parse_args().steps
prompts = ["a red ball bounces on a green floor", "a yellow boat slides right on the sea"]
shutil.rmtree("out/magi1-tiny-fp8", ignore_errors=True)
Path("out").mkdir(exist_ok=True)
pipe = animagic.load("magi1-tiny")
result = quantize(pipe, "out/magi1-tiny-fp8", prompts, num_frames=24, num_steps=steps)
print(f"transformer: {result.bytes_before:,} -> {result.bytes:,} bytes")
size = {"num_frames": 24, "num_inference_steps": steps, "output_type": "pt"}
pipes = (pipe, animagic.load("out/magi1-tiny-fp8"))
plain, quantised = (p(prompts[0], generator=torch.Generator().manual_seed(7), **size) for p in pipes)
print(f"PSNR: {-10 * (plain.frames - quantised.frames).square().mean().log10():.1f} dB")
quantised.save("out/quantize.mp4")
