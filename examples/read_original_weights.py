"""Read MAGI-1's transformer under its original names and denoise with it: embeddings and noise in, latents out."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from animagic import Magi1Pipeline, checkpoints

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--weights", default="ckpt/magi/4.5B_base/inference_weight", help="folder of safetensors shards")
parser.add_argument("--config", default="example/4.5B/4.5B_base_config.json", help="the original configuration")
args = parser.parse_args()

config = json.loads(Path(args.config).read_text())
weights = {k: v for shard in sorted(Path(args.weights).glob("*.safetensors")) for k, v in load_file(shard).items()}
transformer = checkpoints.from_original("magi1", "transformer", weights, config)  # a tensor that does not fit is named
text = torch.randn(1, 20, transformer.config.caption_channels)  # in earnest: from T5-XXL
noise = torch.randn(1, transformer.latent_channels, 2 * transformer.config.chunk_width, 8, 8)
pipe, mask = Magi1Pipeline(transformer, config=config), torch.ones(1, 20)
out = pipe(prompt_embeds=text, prompt_embeds_mask=mask, latents=noise, output_type="latent")
Path("out").mkdir(exist_ok=True)
save_file({"latents": out.frames.contiguous()}, "out/latents.safetensors")
