"""One motion module, three styles: the plain text-to-image model and two personalised versions of it."""

import argparse
from pathlib import Path

import numpy as np
import torch

import animagic
from animagic.media import contact_sheet, write_image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
steps = parser.parse_args().steps
Path("out").mkdir(exist_ok=True)
pipe, rows = animagic.load("animatediff-tiny"), []
files = animagic.zoo.loras("animatediff-tiny")
for style in ("plain", "blueprint", "watercolour"):
    generator = torch.Generator().manual_seed(5)
    with pipe.using_loras({str(files[style]): 1.0} if style in files else {}):
        prompts = {"prompt": "a red ball on a green floor", "motion_prompt": "slides to the right"}
        video = pipe(**prompts, num_inference_steps=steps, generator=generator)
    video.save(f"out/{style}.mp4")
    rows += [np.asarray(frame) for frame in video.frames[0][::4]]
write_image("out/looks.png", contact_sheet(np.stack(rows), columns=4))
