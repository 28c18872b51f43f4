"""SparseCtrl beside the published code, from noise to latents through the pipeline."""

import json

import pytest
import torch
from goldens import golden_path, relative_error
from safetensors.torch import load_file

from animagic.checkpoints import from_original
from animagic.systems.animatediff.pipeline import AnimateDiffPipeline


def part(tensors: dict, prefix: str) -> dict:
    """The weights under a prefix."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and k != "unet.out_t601"}


@pytest.fixture(scope="module", params=["rgb", "scribble"])
def golden(request):
    """(manifest, tensors, UNet, network) of one kind."""
    entry = json.loads(golden_path("animatediff", "manifest.json").read_text())[f"sparsectrl_{request.param}"]
    tensors = load_file(golden_path("animatediff", f"sparsectrl_{request.param}.safetensors"))
    config = {**entry["config"], "motion_module_kwargs": entry["motion_module_kwargs"]}
    unet = from_original("animatediff", "unet", part(tensors, "unet."), config | {"version": entry["version"]})
    weights = part(tensors, "sparse_controlnet.")
    network = from_original("animatediff", "sparse_controlnet", weights, config | entry["sparse"]["kw"])
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
    made = AnimateDiffPipeline(unet=unet)(
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
