"""Prompt travel: a prompt for some frames, blended in between, over a clip longer than one window."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=32)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

Path("out").mkdir(exist_ok=True)
pipe = animagic.load("animatediff-tiny")
video = pipe(
    "a red ball on a green floor",
    prompts_at={args.frames // 2: "a red ball on a grey floor", args.frames - 1: "a red ball on a blue floor"},
    motion_prompt="stays still",
    num_frames=args.frames,
    num_inference_steps=args.steps,
    generator=torch.Generator().manual_seed(7),
)
print(video.save("out/travel.mp4"))
