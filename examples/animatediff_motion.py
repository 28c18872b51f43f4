"""You decide what moves: the same picture with other motion prompts, and under a moving camera."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a yellow star on a dark background")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()

pipe = animagic.load("animatediff-tiny")
Path("out").mkdir(exist_ok=True)


def make(name: str, motion: str, camera: dict[str, float]) -> None:
    with pipe.using_loras({}, camera):
        video = pipe(
            args.prompt,
            motion_prompt=motion,
            num_inference_steps=args.steps,
            generator=torch.Generator().manual_seed(args.seed),
        )
    print(video.save(f"out/{name}.mp4"))


for motion in ("rises", "falls", "grows"):
    make(motion, motion, {})
make("zoom-in", "stays still", {str(animagic.zoo.loras("animatediff-tiny", "motion_loras")["zoom-in"]): 1.0})
