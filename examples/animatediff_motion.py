"""The motion is prompted: the same picture with other motion prompts, and under a moving camera."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a yellow star on a dark background")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

Path("out").mkdir(exist_ok=True)
pipe = animagic.load("animatediff-tiny")
cameras = animagic.zoo.loras("animatediff-tiny", "motion_loras")
for name in ("rises", "falls", "grows", "zoom-in"):
    generator = torch.Generator().manual_seed(7)
    motion = "stays still" if name in cameras else name
    with pipe.using_loras({}, {str(cameras[name]): 1.0} if name in cameras else {}):
        video = pipe(args.prompt, motion_prompt=motion, num_inference_steps=args.steps, generator=generator)
    print(video.save(f"out/{name}.mp4"))
