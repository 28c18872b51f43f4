"""A clip that goes on. Without --video, the clip is made first."""

import argparse
from pathlib import Path

import animagic
from animagic.media import read_video

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--video", help="any clip; its last 32 frames are taken")
parser.add_argument("--prompt", default="a blue car slides right on a sandy floor")
parser.add_argument("--frames", type=int, default=24, help="new frames")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

Path("out").mkdir(exist_ok=True)
pipe = animagic.load("magi1-tiny")
clip = args.video or pipe(args.prompt, num_frames=24, num_inference_steps=args.steps).save("out/clip.mp4")
given = read_video(clip, fps=24, max_frames=32, last=True).frames
frames = len(given) + args.frames  # the given frames stand in front, and are counted
print(pipe(args.prompt, video=given, num_frames=frames, num_inference_steps=args.steps).save("out/video_to_video.mp4"))
