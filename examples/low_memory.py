"""The same frames in less memory, and what a larger model would take."""

import argparse

import torch

import animagic
from animagic.doctor import in_words, predict

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
parser.add_argument("--model", default="magi1-4.5b", help="whose prediction is printed")
asked, prompt = parser.parse_args(), "a red ball bounces on a green floor"
pipe, frames = animagic.load("magi1-tiny"), []
for saving in (False, True):
    if saving:
        pipe.encode_ahead(prompt)
        pipe.drop_text_encoder()  # gone before the transformer works
        pipe.enable_kv_offload()  # finished chunks: in the CPU's memory
        pipe.enable_group_offload(pipe.device, offload_type="leaf_level")  # on a GPU "cuda", and use_stream=True
    settings = {"num_frames": 48, "num_inference_steps": asked.steps, "output_type": "pt"}
    frames.append(pipe(prompt, generator=torch.Generator().manual_seed(7), **settings).frames)
print("the same frames:", torch.equal(*frames))
print("\n".join(in_words(predict(asked.model, 720, 720, 240, device="cuda"))))
