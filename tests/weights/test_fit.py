"""One check, one way to build a network without memory, and one way to fill it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import save_file
from torch import nn

from animagic import CheckpointError, InputError
from animagic.layers.fp8 import FP8, Fp8Linear
from animagic.weights.files import Weights
from animagic.weights.fit import Part, build, check, fill


class Network(ModelMixin, ConfigMixin):
    """A buffer that is computed, one that is stored, a layer that stays in float32, and one in FP8."""

    _keep_in_fp32_modules = ("embedder",)

    @register_to_config
    def __init__(self, width: int = 16):
        super().__init__()
        self.embedder = nn.Linear(4, width)
        self.layer = nn.Linear(width, width)
        self.small = Fp8Linear(width, width)
        self.register_buffer("table", torch.arange(float(width)), persistent=False)
        self.register_buffer("mean", torch.zeros(width))


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(tensor.shape).to(tensor.dtype) for name, tensor in Network().state_dict().items()}


WRONG = {
    "missing": (lambda t: t.pop("layer.bias"), "a.safetensors: the tensor layer.bias is missing: is it another?"),
    "unexpected": (
        lambda t: t.update({"more.weight": torch.zeros(1)}),
        "a.safetensors: the tensor more.weight is unexpected: is it another?",
    ),
    "another shape": (
        lambda t: t.update({"layer.bias": torch.zeros(3)}),
        "a.safetensors: the tensor layer.bias has the shape [3], not [16]: is it another?",
    ),
    "whole numbers": (
        lambda t: t.update({"layer.bias": torch.zeros(16, dtype=torch.int32)}),
        "a.safetensors: the tensor layer.bias is stored as torch.int32, not as torch.float32: is it another?",
    ),
    "FP8 without a scale": (
        lambda t: t.update({"layer.bias": torch.zeros(16).to(FP8)}),
        "a.safetensors: the tensor layer.bias is stored as torch.float8_e4m3fn, not as torch.float32: is it another?",
    ),
    "no FP8": (
        lambda t: t.update({"small.weight": torch.zeros(1, 16, 16)}),
        "a.safetensors: the tensor small.weight is stored as torch.float32, not as torch.float8_e4m3fn: is it another?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tensor_that_does_not_fit_is_named(case, tensors, tmp_path):
    """Whether it is in memory or in a file, which is not read for that."""
    change, said = WRONG[case]
    change(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    stored = Weights.open(tmp_path, "a")
    for given, source in ((tensors, Path("a.safetensors")), (stored.entries, stored.source)):
        with pytest.raises(CheckpointError) as caught:
            check(Network().state_dict(), given, source, hint=": is it another?")
        assert str(caught.value).removeprefix(f"{tmp_path}/") == f"{said}."


def test_the_name_in_the_file_is_said(tensors):
    tensors["layer.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"^it: the tensor old\.bias has the shape \[3\], not \[16\]\.$"):
        check(Network().state_dict(), tensors, "it", names={"layer.bias": "old.bias"})


def test_all_floats_can_be_turned_into_each_other(tensors):
    check(Network().state_dict(), {**tensors, "layer.bias": tensors["layer.bias"].double()}, "it")
    check(Network().state_dict(), {**tensors, "small.weight": torch.zeros(1, 16, 16)}, "it", same_kind=False)


def test_a_network_without_memory(tensors):
    """But for the buffers that no file holds."""
    network = build(Network, "it")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert torch.equal(network.table, torch.arange(16.0))
    fill(network, tensors)
    assert all(torch.equal(t.float(), tensors[name].float()) for name, t in network.state_dict().items())
    assert not network.training
    assert network.layer.weight.data_ptr() == tensors["layer.weight"].data_ptr(), "a second copy"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Network(width=-1), r"^file\.json describes no network that can be built: .*[^.]\.$"),
        (lambda: {}["width"], "describes no network that can be built"),
        (
            lambda: (_ for _ in ()).throw(InputError("width is wrong.")),
            r"^file\.json cannot be used: width is wrong\.$",
        ),
    ],
)
def test_a_configuration_of_no_network(make, said):
    with pytest.raises(CheckpointError, match=said):
        build(make, Path("file.json"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_dtype_that_is_asked_for(tensors, tmp_path, dtype):
    save_file(tensors, tmp_path / "model.safetensors")
    network = Part.checked(build(Network, "it"), Weights.open(tmp_path)).load(dtype)
    assert network.small.weight.dtype == FP8
    assert network.layer.weight.dtype == network.mean.dtype == dtype
    assert network.embedder.weight.dtype == (torch.float32 if dtype.itemsize < 4 else dtype)
    assert torch.equal(network.layer.weight, tensors["layer.weight"].to(dtype))


def test_tensors_that_need_not_be_there(tensors, tmp_path):
    del tensors["mean"]
    save_file(tensors, tmp_path / "model.safetensors")
    weights = Weights.open(tmp_path)
    with pytest.raises(CheckpointError, match="the tensor mean is missing"):
        Part.checked(build(Network, "it"), weights)
    part = Part.checked(build(Network, "it"), weights, without=("mean",))
    assert torch.equal(part.load().mean, torch.zeros(16))


def test_filling_holds_the_network_once_and_one_tensor_to_convert(tensors, tmp_path, alive):
    save_file(tensors, tmp_path / "model.safetensors")
    weights = Weights.open(tmp_path)
    network = fill(build(Network, "it"), alive.counted(weights.read()))
    assert alive.bytes == alive.peak == weights.nbytes
    del network
    assert alive.bytes == 0
    alive.peak = 0
    network = fill(build(Network, "it"), alive.counted(weights.read()), torch.float64)
    assert alive.peak <= alive.bytes + 2 * max(tensor.nbytes for tensor in tensors.values())
    assert alive.bytes == network.small.weight.nbytes
