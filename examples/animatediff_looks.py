"""One motion module, three looks: the plain picture model and two personalised versions of it."""

import argparse
from pathlib import Path

import numpy as np
import torch

import animagic
from animagic.media import contact_sheet, write_image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--prompt", default="a red ball on a green floor")
parser.add_argument("--motion", default="slides to the right")
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()

pipe = animagic.load("animatediff-tiny")
Path("out").mkdir(exist_ok=True)
rows = []
for look in ("plain", "blueprint", "watercolour"):
    loras = {} if look == "plain" else {str(animagic.zoo.loras("animatediff-tiny")[look]): 1.0}
    with pipe.using_loras(loras):
        video = pipe(
            args.prompt,
            motion_prompt=args.motion,
            num_inference_steps=args.steps,
            generator=torch.Generator().manual_seed(args.seed),
        )
    video.save(f"out/{look}.mp4")
    rows += [np.asarray(frame) for frame in video.frames[0][::4]]
write_image("out/looks.png", contact_sheet(np.stack(rows), columns=4))
print("out/looks.png")
