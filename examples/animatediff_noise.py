"""The noise that a long clip begins from: independent, shared between windows (FreeNoise), or refined (FreeInit)."""

import argparse
from pathlib import Path

import torch

import animagic
from animagic.timeline import FreeInit

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a purple car on a grey floor")
parser.add_argument("--frames", type=int, default=32)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

Path("out").mkdir(exist_ok=True)
pipe = animagic.load("animatediff-tiny")
ways = {"independent": {}, "shared": {"shared_noise": True}, "refined": {"free_init": FreeInit(iterations=2)}}
for name, way in ways.items():
    generator = torch.Generator().manual_seed(7)
    sizes = {"num_frames": args.frames, "num_inference_steps": args.steps}
    video = pipe(args.prompt, motion_prompt="slides left", generator=generator, **sizes, **way)
    print(video.save(f"out/noise-{name}.mp4"))
