"""A picture that begins to move. Without --image, one is painted here."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--image", help="any picture; it is cut to the model's size")
parser.add_argument("--prompt", default="a red ball rolls right on a green floor")
parser.add_argument("--frames", type=int, default=24)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

image = Image.open(args.image) if args.image else Image.new("RGB", (64, 64), (232, 228, 212))
if not args.image:
    ImageDraw.Draw(image).rectangle((0, 44, 63, 63), (124, 160, 118))
    ImageDraw.Draw(image).ellipse((8, 30, 30, 52), (222, 40, 48), (45, 42, 52))
pipe = animagic.load("magi1-tiny", task="image")
Path("out").mkdir(exist_ok=True)
print(pipe(image, args.prompt, num_frames=args.frames, num_inference_steps=args.steps).save("out/image_to_video.mp4"))
