"""Our MagicAnimate computes what the original computes: the networks one by one, and whole trajectories of one window
and of several that overlap; and it has the published names."""

import json

import pytest
import torch
from diffusers import ControlNetModel
from goldens import golden_path, relative_error
from safetensors.torch import load_file

from animagic.checkpoints import from_original
from animagic.systems.magicanimate.appearance import AppearanceEncoder
from animagic.systems.magicanimate.pipeline import MagicAnimatePipeline
from animagic.systems.magicanimate.unet import MagicAnimateUNet
from animagic.weights.stable_diffusion import SD15

SINGLE, TRAJECTORY = 1e-4, 1e-3
PARTS = ("unet", "appearance_encoder", "controlnet")


@pytest.fixture(scope="module", params=["magicanimate_16f_ctx16", "magicanimate_20f_ctx8_ov4"])
def golden(request):
    """The manifest's entry, the tensors, and the networks."""
    entry = json.loads(golden_path("magicanimate", "manifest.json").read_text())[request.param]
    tensors = load_file(golden_path("magicanimate", f"{request.param}.safetensors"))
    networks = {}
    for part in PARTS:
        named = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
        weights = {k: v for k, v in named.items() if k not in ("out", "mid") and not k.startswith("down.")}
        config = dict(entry["config"])
        if part == "unet":
            config["motion_module_kwargs"] = entry["motion_module_kwargs"]
        networks[part] = from_original("magicanimate", part, weights, config)
    return entry, tensors, networks


@torch.no_grad()
def test_what_the_encoder_sees(golden):
    entry, tensors, networks = golden
    picture = tensors["in.reference_latent"].repeat(2, 1, 1, 1)
    seen = networks["appearance_encoder"](picture, entry["component_timestep"], tensors["in.text"])
    assert len(entry["bank_pairs_writer_reader"]) == 10
    for i, (writer, _) in enumerate(entry["bank_pairs_writer_reader"]):
        assert relative_error(seen[writer], tensors[f"bank.{i:02d}"]) <= SINGLE


@torch.no_grad()
def test_one_forward(golden):
    entry, tensors, networks = golden
    step, frames, text = entry["component_timestep"], entry["component_frames"], tensors["in.text"]
    noise, poses = tensors["in.noise"][:, :, :frames], tensors["in.pose_frames"][:frames]
    *down, middle = _residuals(networks["controlnet"], noise, step, text[1:], poses)
    for i, residual in enumerate(down):
        assert relative_error(residual, tensors[f"controlnet.down.{i:02d}"]) <= SINGLE
    assert relative_error(middle, tensors["controlnet.mid"]) <= SINGLE
    seen = networks["appearance_encoder"](tensors["in.reference_latent"], step, text[1:])
    predicted = networks["unet"](
        noise.repeat(2, 1, 1, 1, 1),
        step,
        text,
        references=seen,
        down_block_additional_residuals=[torch.cat([one, one]) for one in down],
        mid_block_additional_residual=torch.cat([middle, middle]),
    ).sample
    assert relative_error(predicted, tensors["unet.out"]) <= SINGLE


def _residuals(controlnet, noise, step, text, poses):
    poses = poses.permute(0, 3, 1, 2).float() / 255
    down, middle = controlnet(noise[0].transpose(0, 1), step, text.repeat(len(poses), 1, 1), poses, return_dict=False)
    return *down, middle


def test_a_trajectory(golden):
    entry, tensors, networks = golden
    negative, text = tensors["in.text"].chunk(2)
    latents = MagicAnimatePipeline(**networks, vae=None, text_encoder=None, tokenizer=None)(
        prompt_embeds=text,
        negative_prompt_embeds=negative,
        latents=tensors["in.noise"],
        reference_latents=tensors["in.reference_latent"],
        pose_frames=tensors["in.pose_frames"].numpy(),
        num_inference_steps=entry["steps"],
        guidance_scale=entry["guidance_scale"],
        context_frames=entry["context_frames"],
        context_overlap=entry["context_overlap"],
        clip_sample=True,
        output_type="latent",
    ).frames
    assert relative_error(latents, tensors["pipeline.latents"]) <= TRAJECTORY


def test_names_and_shapes_at_full_size():
    published = json.loads(golden_path("magicanimate", "keys.json").read_text())
    with torch.device("meta"):
        unet, encoder = MagicAnimateUNet(**SD15["unet"]), AppearanceEncoder(**SD15["unet"])
        controlnet = ControlNetModel(cross_attention_dim=768)
    shapes = {name: list(tensor.shape) for name, tensor in unet.motion_state_dict().items()}
    tables = {name: shape for name, shape in published["temporal_attention.ckpt"].items() if name.endswith(".pe")}
    assert {**shapes, **tables} == published["temporal_attention.ckpt"]
    assert {n: list(t.shape) for n, t in unet.base_state_dict().items()} == published["unet_without_motion"]
    assert {n: list(t.shape) for n, t in encoder.state_dict().items()} == published["appearance_encoder"]
    assert {n: list(t.shape) for n, t in controlnet.state_dict().items()} == published["densepose_controlnet"]
