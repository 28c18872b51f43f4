"""From noise of your own to latents, and from latents to pictures: a video half-way between two seeds."""

import argparse
from pathlib import Path

import torch

import animagic
from animagic.media import VideoWriter

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
args = parser.parse_args()

pipe = animagic.load("magi1-tiny")
shape = (1, pipe.transformer.latent_channels, pipe.sampling.chunk_width, 8, 8)  # one chunk; 8 x 8 pixels a latent
one, two = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
noise = (one + two) / 2**0.5  # still of standard deviation 1
prompt = "an orange triangle falls against a mint wall"
latents = pipe(prompt, latents=noise, num_inference_steps=args.steps, output_type="latent").frames
with torch.no_grad():
    video = pipe.vae.decode(latents / pipe.sampling.scale_factor).sample[0]  # (3, frames, height, width), -1 to 1
Path("out").mkdir(exist_ok=True)
with VideoWriter("out/half_way.mp4", fps=24) as writer:
    writer.write(((video / 2 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 3, 0).numpy())
