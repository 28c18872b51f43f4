"""A long video, written while it is made: the file can be watched as it grows, and memory does not grow."""

import argparse
from pathlib import Path

import animagic
from animagic.media import FragmentedMp4

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a white boat slides right on the sea")
parser.add_argument("--frames", type=int, default=240)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

pipe = animagic.load("magi1-tiny")
encoder = FragmentedMp4(fps=24, height=64, width=64)
Path("out").mkdir(exist_ok=True)
with open("out/long_video.mp4", "wb") as file:
    for chunk in pipe.stream(args.prompt, num_frames=args.frames, num_inference_steps=args.steps, output_type="np"):
        file.write(encoder.write((chunk.frames[0] * 255).round().astype("uint8")))
        file.flush()
        print(f"frames {chunk.start} to {chunk.start + len(chunk) - 1} can be watched in {file.name}")
