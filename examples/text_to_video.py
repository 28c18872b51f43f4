"""Text to video."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a red ball bounces on a green floor")
parser.add_argument("--frames", type=int, default=48)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()

pipe = animagic.load("magi1-tiny")
generator = torch.Generator().manual_seed(args.seed)
video = pipe(args.prompt, num_frames=args.frames, num_inference_steps=args.steps, generator=generator)
Path("out").mkdir(exist_ok=True)
print(video.save("out/text_to_video.mp4"))
