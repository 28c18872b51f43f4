"""A story: another prompt from a later chunk (24 frames each) on."""

import argparse
from pathlib import Path

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=96)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

pipe = animagic.load("magi1-tiny")
video = pipe(
    "a red ball rolls right on a grey floor",
    prompts_at={1: "a red ball bounces on a grey floor", 3: "a red ball stays still on a grey floor"},
    num_frames=args.frames,
    num_inference_steps=args.steps,
)
Path("out").mkdir(exist_ok=True)
print(video.save("out/story.mp4"))
