"""The same prompt by a model and by the one that was distilled from it: videos, one sheet, and what the judge says."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import animagic
from animagic.evaluation import judge
from animagic.media import contact_sheet, resize, write_image
from animagic.media.outputs import to_bytes

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="denoising steps (default: each model's own)")
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()

WANTED = {"colour": "red", "shape": "ball", "motion": "bounces", "background": "green floor"}
prompt = "a red ball bounces on a green floor"
print(f'"{prompt}": a red ball should be seen that bounces, on a green floor.')

Path("out").mkdir(exist_ok=True)
rows = []
for model in ("magi1-tiny", "magi1-tiny-distilled"):
    pipe = animagic.load(model)
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(args.seed)
    video = pipe(prompt, num_inference_steps=args.steps, generator=generator, output_type="np")
    seconds = time.perf_counter() - began
    frames = to_bytes(video.frames[0])
    seen = judge(resize(frames, 64, 64))
    said = [
        f"{name} right" if getattr(seen, name) == value else f"{name} wrong ({getattr(seen, name)})"
        for name, value in WANTED.items()
    ]
    print(f"{model}, {seconds:.1f} s, {video.save(f'out/{model}.mp4')}: the judge says {', '.join(said)}.")
    rows.append(contact_sheet(frames, rows=1))
write_image(Path("out/demo.png"), np.concatenate(rows))
print(f"both side by side: {Path('out/demo.png').resolve()}")
