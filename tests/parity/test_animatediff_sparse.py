"""SparseCtrl beside the published code, from noise to latents through the pipeline."""

import json

import pytest
import torch
from goldens import golden_path, relative_error
from safetensors.torch import load_file

from animagic.checkpoints import load_strictly
from animagic.systems.animatediff.pipeline import AnimateDiffPipeline
from animagic.systems.animatediff.sparse import SparseControlNet
from animagic.systems.animatediff.unet import AnimateDiffUNet


def part(tensors: dict, prefix: str) -> dict:
    """The float weights under a prefix, without the table of positions that no code reads."""
    names = [name for name in tensors if name.startswith(prefix) and "pos_encoder" not in name and "out_t" not in name]
    return {name.removeprefix(prefix): tensors[name].float() for name in names}


@pytest.fixture(scope="module", params=["rgb", "scribble"])
def golden(request):
    """(manifest, tensors, UNet, network) of one kind."""
    entry = json.loads(golden_path("animatediff", "manifest.json").read_text())[f"sparsectrl_{request.param}"]
    tensors = load_file(golden_path("animatediff", f"sparsectrl_{request.param}.safetensors"))
    motion = entry["motion_module_kwargs"]
    shared = {
        "motion_num_attention_heads": motion["num_attention_heads"],
        "motion_max_length": motion["temporal_position_encoding_max_len"],
    }
    unet = AnimateDiffUNet(**entry["config"], **shared).eval()
    load_strictly(unet, part(tensors, "unet."), "UNet")
    config = {name: value for name, value in entry["config"].items() if name != "sample_size"}
    network = SparseControlNet(**config, **shared, **entry["sparse"]["kw"]).eval()
    load_strictly(network, part(tensors, "sparse_controlnet."), "SparseCtrl")
    return entry, tensors, unet, network


@torch.no_grad()
def test_the_unet_alone(golden):
    """The golden's single forward was recorded without the network."""
    _, tensors, unet, _ = golden
    predicted = unet(tensors["in.noise"].repeat(2, 1, 1, 1, 1), 601, tensors["in.text_uncond_then_cond"]).sample
    assert relative_error(predicted, tensors["unet.out_t601"]) < 1e-4


def test_the_pipeline(golden):
    entry, tensors, unet, network = golden
    sparse = entry["sparse"]
    pipe = AnimateDiffPipeline(unet=unet)
    made = pipe(
        prompt_embeds=tensors["in.text_uncond_then_cond"][1:],
        negative_prompt_embeds=tensors["in.text_uncond_then_cond"][:1],
        latents=tensors["in.noise"],
        num_inference_steps=entry["steps"],
        guidance_scale=entry["guidance_scale"],
        sparse_controlnet=network,
        control_images=tensors["in.control_images"],
        control_indexes=sparse["index"],
        control_scale=sparse.get("scale", 1.0),
        output_type="latent",
    ).frames
    assert relative_error(made, tensors["pipeline.latents"]) < 1e-3
