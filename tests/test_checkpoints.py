"""Original weights become networks of ours; what does not fit is named."""

import json

import pytest
import torch
from goldens import golden_path
from safetensors.torch import load_file

import animagic
from animagic import CheckpointError, InputError
from animagic.checkpoints import from_original

FIELDS = {
    "num_layers": 2,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "in_channels": 4,
    "out_channels": 4,
    "caption_channels": 8,
    "caption_max_length": 12,
}
VAE = {"embed_dim": 256, "depth": 1, "num_heads": 4, "mlp_ratio": 1, "video_length": 8, "video_size": 32, "z_chans": 4}
TENSOR = "videodit_blocks.layers.1.mlp.linear_fc2.weight"


def config(**fields) -> dict:
    published = {"model_name": "videodit_ardf", "apply_layernorm_1p": True, "params_dtype": "torch.bfloat16"}
    return {
        "model_config": {**published, **FIELDS, **fields},
        "runtime_config": {"chunk_width": 2},
        "engine_config": {},
    }


@pytest.fixture
def weights(tiny_transformer) -> dict[str, torch.Tensor]:
    return tiny_transformer().state_dict()


def test_weights_come_back_as_they_were(weights):
    network = from_original("magi1", "transformer", weights, config())
    assert isinstance(network, animagic.Magi1Transformer3DModel)
    assert network.config.chunk_width == 2
    assert not network.training
    loaded = network.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_an_autoencoder(tmp_path):
    torch.manual_seed(0)
    given = animagic.AutoencoderKLMagi1(**VAE).state_dict()
    for fields in (VAE, {"ddconfig": VAE}):
        network = from_original("magi1", "vae", given, fields)
        assert isinstance(network, animagic.AutoencoderKLMagi1)
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in given.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_whatever_is_stored_becomes_float32(weights, dtype):
    network = from_original("magi1", "transformer", {k: v.to(dtype) for k, v in weights.items()}, config())
    assert {(p.dtype, p.device.type) for p in network.parameters()} == {(torch.float32, "cpu")}
    assert torch.allclose(network.state_dict()[TENSOR], weights[TENSOR], rtol=0.01)


def test_the_weights_given_are_not_shared(weights):
    network = from_original("magi1", "transformer", weights, config())
    before = weights[TENSOR].clone()
    with torch.no_grad():
        next(p for name, p in network.named_parameters() if name == TENSOR).zero_()
    assert torch.equal(weights[TENSOR], before)


def test_a_tensor_that_does_not_fit_is_named(weights):
    """The check itself is tested in weights/test_fit.py."""
    turned = weights | {TENSOR: weights[TENSOR].T.contiguous()}
    lacking = {name: tensor for name, tensor in weights.items() if name != TENSOR}
    for given, fields, said in (
        (lacking, {}, f"the magi1 transformer: the tensor {TENSOR} is missing"),
        (weights | {"more.weight": torch.zeros(1)}, {}, r"the tensor more\.weight is unexpected"),
        (turned, {}, rf"tensor {TENSOR} has the shape \[\d+, 32\], not \[32, \d+\]"),
        (weights, {"num_layers": 3}, r"the tensor videodit_blocks\.layers\.2\.\S+ is missing"),
        (weights, {"num_layers": 1}, r"the tensor videodit_blocks\.layers\.1\.\S+ is unexpected"),
    ):
        with pytest.raises(CheckpointError, match=said):
            from_original("magi1", "transformer", given, config(**fields))


def test_an_unknown_field_is_named(weights):
    with pytest.raises(InputError, match=r"model_config\.experts is unknown"):
        from_original("magi1", "transformer", weights, config(experts=8))
    with pytest.raises(InputError, match="unknown field 'colour'"):
        from_original("magi1", "vae", {}, {**VAE, "colour": 1})


def test_fields_that_have_one_meaning_only(weights):
    with pytest.raises(InputError, match="model_name is other; it can be 'videodit_ardf'"):
        from_original("magi1", "transformer", weights, config(model_name="other"))
    with pytest.raises(InputError, match="apply_layernorm_1p is false; it can be true"):
        from_original("magi1", "transformer", weights, config(apply_layernorm_1p=False))
    with pytest.raises(InputError, match="norm_code is True"):
        from_original("magi1", "vae", {}, {**VAE, "norm_code": True})


def test_a_config_without_a_network():
    with pytest.raises(InputError, match="lacks model_config"):
        from_original("magi1", "transformer", {}, {"runtime_config": {}})


@pytest.mark.parametrize(("system", "component"), [("magi2", "transformer"), ("magi1", "unet"), ("", "")])
def test_unknown_parts(system, component):
    with pytest.raises(InputError, match=r"is unknown; known are .*magi1 transformer, magi1 vae"):
        from_original(system, component, {}, {})


def test_the_errors_are_public():
    assert issubclass(animagic.CheckpointError, animagic.AnimagicError)
    assert not issubclass(animagic.CheckpointError, ValueError)
    assert animagic.checkpoints.from_original is from_original


def test_the_original_autoencoder_can_be_read():
    golden = load_file(golden_path("magi1", "vae.safetensors"))
    fields = json.loads(golden_path("magi1", "manifest.json").read_text())["vae"]["ddconfig"]
    weights = {name.removeprefix("weight."): t for name, t in golden.items() if name.startswith("weight.")}
    network = from_original("magi1", "vae", weights, fields)
    with torch.no_grad():
        decoded = network.decode(golden["native.latent"]).sample
    assert (decoded - golden["native.decoded"]).norm() < 1e-4 * golden["native.decoded"].norm()
