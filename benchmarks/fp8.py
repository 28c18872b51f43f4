"""What does FP8 cost in likeness, and what does it bring? A model beside its quantised copy, from the same noise.

    python benchmarks/fp8.py                   # magi1-tiny, about five minutes on one CPU core
    python benchmarks/fp8.py --videos 1 --frames 24 --steps 4

Prints a table: bytes of the transformer on disk, PSNR between the two videos of each seed (beside it, what two seeds of
the unquantised model differ by), relative error of the velocity of single forwards on noised latents, and seconds of a
video, where the two take turns.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

import animagic
from animagic.systems.magi1.quantize import PROMPTS, quantize

HELD_OUT = (  # none of them is measured on
    "a pink heart grows on a blue floor",
    "a blue square rolls left on a white floor",
    "a red ball falls on a grey floor",
    "a green star slides right on the sea",
)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(float(((a - b) ** 2).mean()))


def velocity_errors(pipes, latents: torch.Tensor, times=(0.05, 0.3, 0.6, 0.9)) -> list[float]:
    """Relative difference of the velocity of the two, on a video's latents with the noise of each time."""
    sampling, device = pipes[0].sampling, pipes[0].device
    text = pipes[0].embed_prompts(HELD_OUT[0]).at(0)
    latents = latents[:, :, : latents.shape[2] // sampling.chunk_width * sampling.chunk_width].to(device)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
    errors = []
    for t in times:
        time_of_chunks = torch.full((1, latents.shape[2] // sampling.chunk_width), t, device=device)
        with torch.no_grad():
            plain, quantised = (
                pipe.transformer(
                    (1 - t) * noise + t * latents,
                    time_of_chunks,
                    text.embeds[:, None],
                    encoder_attention_mask=text.mask[:, None],
                ).sample.double()
                for pipe in pipes
            )
        errors.append(((quantised - plain).norm() / plain.norm()).item())
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="magi1-tiny")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device")
    given = parser.parse_args()
    size = {"num_frames": given.frames, "num_inference_steps": given.steps}
    with tempfile.TemporaryDirectory() as folder:
        plain = animagic.load(given.model).to(given.device)
        result = quantize(plain, Path(folder) / "fp8", PROMPTS, num_frames=given.frames, num_steps=given.steps)
        pipes = (plain, animagic.load(result.output).to(given.device))

    def video(pipe, seed: int) -> tuple[np.ndarray, float]:
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        frames = pipe(HELD_OUT[seed % len(HELD_OUT)], generator=generator, output_type="np", **size).frames[0]
        return frames, time.perf_counter() - began

    pairs = [[video(pipe, seed) for pipe in pipes] for seed in range(given.videos)]
    likeness = [psnr(a, b) for (a, _), (b, _) in pairs]
    other = psnr(pairs[0][0][0], video(plain, len(HELD_OUT))[0])  # the same prompt, another seed
    seconds = [median(pair[i][1] for pair in pairs) for i in (0, 1)]
    latents = plain(HELD_OUT[0], generator=torch.Generator().manual_seed(0), output_type="latent", **size).frames
    errors = velocity_errors(pipes, latents)

    print(f"| {given.model} in FP8 | |\n|---|---|")
    print(f"| transformer on disk | {result.bytes:,} of {result.bytes_before:,} bytes", end="")
    print(f" ({result.bytes / result.bytes_before:.0%}) |")
    print(f"| PSNR, {given.videos} videos | {mean(likeness):.1f} dB, the worst {min(likeness):.1f} dB |")
    print(f"| PSNR of another seed | {other:.1f} dB |")
    print(f"| velocity, relative error | {min(errors):.1%} to {max(errors):.1%} |")
    print(f"| seconds a video on {plain.device} | {seconds[1]:.1f}, unquantised {seconds[0]:.1f} |")


if __name__ == "__main__":
    main()
