"""A video without an end whose prompt changes while it is made; here after two chunks, as if someone had typed it."""

import argparse
from pathlib import Path

import animagic
from animagic.media import VideoWriter
from animagic.media.outputs import to_bytes

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=192, help="where to stop")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

pipe = animagic.load("magi1-tiny")
live = animagic.LivePrompt("a red ball bounces on a green floor")
Path("out").mkdir(exist_ok=True)
with VideoWriter("out/live.mp4", fps=24) as video:
    for chunk in pipe.stream(live, endless=True, hand_over=1, num_inference_steps=args.steps, output_type="np"):
        video.write(to_bytes(chunk.frames[0]))
        if chunk.start == 24:
            live.set("a blue star spins on a green floor")
        if video.frames >= args.frames:
            break
print(video.path, live.said)
