"""A GIF without a seam: the windows run on from the last frame to the first."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a blue ring on a beige background")
parser.add_argument("--frames", type=int, default=24)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()

pipe = animagic.load("animatediff-tiny")
video = pipe(
    args.prompt,
    motion_prompt="moves in a circle",
    closed_loop=True,
    num_frames=args.frames,
    num_inference_steps=args.steps,
    generator=torch.Generator().manual_seed(args.seed),
)
Path("out").mkdir(exist_ok=True)
print(video.save("out/loop.gif"))
