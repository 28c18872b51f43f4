"""A function turns a short prompt into the long description that a model wants."""

import argparse
from pathlib import Path

import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a red ball")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()
MOTIONS = {"ball": "bounces on a green floor", "star": "spins at night", "boat": "slides right on the sea"}


def describe(prompt: str) -> str:
    """A language model does it better: animagic.enhancement.openai_compatible asks one."""
    return next((f"{prompt} {motion}" for thing, motion in MOTIONS.items() if thing in prompt), prompt)


settings = {"num_inference_steps": args.steps, "generator": torch.Generator().manual_seed(3)}
video = animagic.load("magi1-tiny")(args.prompt, prompt_enhancer=describe, num_frames=24, **settings)
Path("out").mkdir(exist_ok=True)
print(describe(args.prompt), video.save("out/enhanced.mp4"), sep="\n")
