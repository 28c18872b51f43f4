"""A GIF without a seam: the windows run on from the last frame to the first."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=24)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

Path("out").mkdir(exist_ok=True)
pipe = animagic.load("animatediff-tiny")
video = pipe(
    "a blue ring on a beige background",
    motion_prompt="moves in a circle",
    closed_loop=True,
    num_frames=args.frames,
    num_inference_steps=args.steps,
    generator=torch.Generator().manual_seed(7),
)
print(video.save("out/loop.gif"))
