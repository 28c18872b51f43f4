"""Read MAGI-1's transformer under its original names, and denoise with it: latents and text embeddings in, latents out."""

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
shards = sorted(Path(args.weights).glob("*.safetensors"))
weights = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
transformer = checkpoints.from_original("magi1", "transformer", weights, config)  # a tensor that does not fit is named
text = torch.randn(1, 20, transformer.config.caption_channels)  # from T5 XXL, in earnest
noise = torch.randn(1, transformer.latent_channels, 2 * transformer.config.chunk_width, 8, 8)
latents = Magi1Pipeline(transformer, config=config)(
    prompt_embeds=text, prompt_embeds_mask=torch.ones(1, 20), latents=noise, output_type="latent").frames  # fmt: skip
Path("out").mkdir(exist_ok=True)
save_file({"latents": latents.contiguous()}, "out/latents.safetensors")
