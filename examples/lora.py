"""A LoRA of rank one, made by hand, that warms the colours: written to a file, loaded, and tried with three weights."""

import argparse

import numpy as np
import torch

import animagic

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
ask = {"num_frames": 24, "num_inference_steps": parser.parse_args().steps, "prompt": "a red ball on a green floor"}
pipe, seen = animagic.load("magi1-tiny"), []
hook = pipe.transformer.final_linear.register_forward_pre_hook(lambda _, x: seen.append(x[0].mean((0, 1))))
pipe(**ask, output_type="latent")  # to see what the last layer sees on average, which is to become ...
hook.remove()
usual, rgb = sum(seen) / len(seen), ((200, 128, 60), (128, 128, 128))
warm, grey = (pipe.encode_frames(np.full((24, 64, 64, 3), c, np.uint8)).mean((0, 2, 3, 4)).detach() for c in rgb)
up = (warm - grey) / torch.tensor(pipe.transformer.config.data_std)  # ... a step from grey towards orange
layers = {"lora_A": usual[None] / usual.square().sum(), "lora_B": up.repeat(4)[:, None]}
pipe.save_lora_weights("out", {f"final_linear.linear.{k}.weight": v for k, v in layers.items()})
pipe.load_lora_weights("out/pytorch_lora_weights.safetensors", adapter_name="warm")
for weight in (-1.0, 0.5, 1.0):
    pipe.set_adapters("warm", weight)
    pipe(**ask, generator=torch.Generator().manual_seed(7)).save(f"out/warm_{weight:g}.mp4")
