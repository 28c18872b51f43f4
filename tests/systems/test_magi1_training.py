"""Recipes: where training begins."""

import pytest
import torch
from safetensors.torch import save_file

from animagic.errors import CheckpointError
from animagic.systems.magi1.autoencoder import AutoencoderKLMagi1
from animagic.systems.magi1.training import start_autoencoder

MODEL = {
    "embed_dim": 256,
    "depth": 1,
    "encoder_depth": 0,
    "num_heads": 4,
    "mlp_ratio": 1,
    "video_length": 24,
    "video_size": 64,
    "z_chans": 4,
    "linear_path": True,
}


def test_an_autoencoder_can_start_from_weights_that_are_there(tmp_path):
    torch.manual_seed(1)
    given = AutoencoderKLMagi1(**MODEL).half()
    save_file(given.state_dict(), tmp_path / "given.safetensors")
    section = {"model": MODEL, "data": {}, "training": {}, "start": str(tmp_path / "given.safetensors")}
    vae = start_autoencoder(section, tmp_path / "run")
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, given.state_dict()[name].float()), name
    assert not any(p.requires_grad for p in vae.encoder.parameters())
    assert not (tmp_path / "run").exists()  # no PCA was fitted


def test_the_pca_is_fitted_once_and_then_read(tmp_path):
    section = {"model": MODEL, "data": {"batch_size": 1}, "training": {}, "pca_batches": 1}
    first = start_autoencoder(section, tmp_path).state_dict()
    again = start_autoencoder(section, tmp_path).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["encoder.linear_path.weight"].any()


def test_weights_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        start_autoencoder({"model": MODEL, "training": {}, "start": str(tmp_path / "bad.safetensors")}, tmp_path)
