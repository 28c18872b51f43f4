"""AutoModel finds the class of any network: ours, and those of diffusers and transformers."""

import json
import shutil

import diffusers
import pytest
import torch
from transformers import BertModel

from animagic import AutoencoderKLMagi1, AutoModel, Magi1Transformer3DModel


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().float() for p in network.parameters()])


def test_parts_of_a_pipeline(tiny_model):
    transformer = AutoModel.from_pretrained(tiny_model, subfolder="transformer", torch_dtype=torch.float32)
    assert type(transformer) is Magi1Transformer3DModel
    assert torch.equal(
        weights(transformer), weights(Magi1Transformer3DModel.from_pretrained(tiny_model / "transformer"))
    )
    assert type(AutoModel.from_pretrained(str(tiny_model), subfolder="vae")) is AutoencoderKLMagi1
    assert type(AutoModel.from_pretrained(tiny_model, subfolder="text_encoder")) is BertModel


def test_the_folder_of_a_part(tiny_model):
    assert type(AutoModel.from_pretrained(tiny_model / "transformer")) is Magi1Transformer3DModel


def test_an_embedded_model():
    half = AutoModel.from_pretrained("magi1-tiny", subfolder="transformer", torch_dtype=torch.float16)
    assert type(half) is Magi1Transformer3DModel
    assert half.videodit_blocks.layers[0].mlp.linear_fc1.weight.dtype == torch.float16
    assert half.rope.bands.dtype == torch.float32


def test_a_pipeline_that_names_diffusers(tiny_model, tmp_path):
    """As pipelines saved by diffusers itself would, which has no such class."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "Magi1Transformer3DModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert type(AutoModel.from_pretrained(folder, subfolder="transformer")) is Magi1Transformer3DModel


def test_networks_of_diffusers(tmp_path):
    network = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=2)
    network.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is diffusers.AutoencoderKL
    assert type(AutoModel.from_config(json.loads((tmp_path / "config.json").read_text()))) is diffusers.AutoencoderKL


def test_random_weights_from_a_configuration(tiny_model):
    for config in (tiny_model / "transformer", json.loads((tiny_model / "transformer/config.json").read_text())):
        network = AutoModel.from_config(config)
        assert type(network) is Magi1Transformer3DModel
        assert network.config.num_layers == 2


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(OSError, match="no file named config"):
        AutoModel.from_pretrained(tmp_path)
