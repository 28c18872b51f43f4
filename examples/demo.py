"""A model and the one that was distilled from it: videos of one prompt, one sheet, and what the judge sees in them."""

import sys
from pathlib import Path

import numpy as np
import torch

import animagic
from animagic import evaluation, media

steps = int(sys.argv[-1]) if "--steps" in sys.argv else None  # default: each model's own
print(f"{Path('out/demo.png').resolve()} should show twice a red ball that bounces, on a green floor.")
asked = {"colour": "red", "shape": "ball", "motion": "bounces", "background": "green floor"}
Path("out").mkdir(exist_ok=True)
rows = []
for model in ("magi1-tiny", "magi1-tiny-distilled"):
    pipe, generator = animagic.load(model), torch.Generator().manual_seed(7)
    video = pipe("a red ball bounces on a green floor", num_inference_steps=steps, generator=generator)
    frames = np.stack([np.array(picture) for picture in video.frames[0]])
    seen = vars(evaluation.judge(media.resize(frames, 64, 64)))
    said = [f"{name} {'right' if seen[name] == asked[name] else f'wrong: {seen[name]}'}" for name in asked]
    print(f"{video.save(f'out/{model}.mp4')}: the judge sees {', '.join(said)}.")
    rows.append(media.contact_sheet(frames, rows=1))
media.write_image(Path("out/demo.png"), np.concatenate(rows))
