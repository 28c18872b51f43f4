"""FP8 linear layers compute what the published layout means, and keep their numbers whatever a module is cast to."""

import copy

import pytest
import torch
from torch import nn

from animagic.layers import fp8
from animagic.layers.fp8 import FP8, Fp8Linear, Fp8Parameter, to_fp8

KINDS = pytest.mark.parametrize("smoothed", [False, True], ids=["per-tensor", "smoothed"])


def e4m3_values() -> torch.Tensor:
    """The 127 values that are not negative, in the order of their codes, from the definition of the format."""
    values = []
    for code in range(127):  # 127 is NaN
        exponent, mantissa = code >> 3, code & 7
        values.append(2**-6 * mantissa / 8 if exponent == 0 else 2.0 ** (exponent - 7) * (1 + mantissa / 8))
    return torch.tensor(values, dtype=torch.float64)


def rounded(x: torch.Tensor) -> torch.Tensor:
    """The nearest e4m3 value; of two, that with the even code; beyond the ends, the end."""
    values = e4m3_values()
    distance = (x.abs()[..., None] - values).abs()
    nearest = distance.min(dim=-1, keepdim=True).values
    candidates = distance == nearest
    codes = torch.arange(127)
    best = torch.where(candidates, codes % 2 * 1000 + codes, 10**6).argmin(dim=-1)
    return values[best] * x.sign()


def random_layer(in_features: int = 32, out_features: int = 48, smoothed: bool = False, seed: int = 0) -> Fp8Linear:
    """All parameters random, also those that are equal in the layers that we make ourselves."""
    torch.manual_seed(seed)
    layer = Fp8Linear(in_features, out_features, smoothed)
    with torch.no_grad():
        layer.weight.copy_((torch.randn(layer.weight.shape) * 100).clamp(-448, 448))
        layer.weight_scale.fill_(0.004)
        layer.input_scale.copy_(0.01 + 0.02 * torch.rand(layer.input_scale.shape))
        if layer.smooth_scale is not None:
            layer.smooth_scale.copy_(0.3 + torch.rand(layer.smooth_scale.shape))
    return layer


def published_arithmetic(layer: Fp8Linear, x: torch.Tensor) -> torch.Tensor:
    """Divide the input by its scales, clamp, round; multiply; scale the product. In float64."""
    tensors = {name: tensor.double() for name, tensor in layer.state_dict().items()}
    given = x.double()
    if "smooth_scale" in tensors:
        given = given / tensors["smooth_scale"]
    product = rounded(given / tensors["input_scale"]) @ tensors["weight"][0].T
    return product * tensors["input_scale"][0] * tensors["weight_scale"]


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return ((ours.double() - reference.double()).norm() / reference.double().norm()).item()


def test_the_reference_knows_the_format():
    values = e4m3_values()
    assert (values[0], values[1], values[-1]) == (0, 2**-9, 448)
    assert torch.equal(torch.arange(127, dtype=torch.uint8).view(FP8).double(), values)
    x = torch.tensor([17.0, 19.0, -17.0, 1000.0, -1e9, 0.0009])  # 17 lies between 16 and 18, 19 between 18 and 20
    assert rounded(x.double()).tolist() == [16, 20, -16, 448, -448, 0]


@KINDS
def test_a_layer_computes_the_published_arithmetic(smoothed):
    layer = random_layer(smoothed=smoothed)
    x = torch.randn(2, 70, 32) * 2
    reference = published_arithmetic(layer, x)
    with torch.no_grad():
        ours = layer(x)
    assert ours.shape == (2, 70, 48)
    assert ours.dtype == x.dtype
    assert relative_error(ours, reference) < 1e-5


@KINDS
def test_what_lies_outside_the_range_goes_to_its_end(smoothed):
    layer = random_layer(smoothed=smoothed)
    with torch.no_grad():
        huge, ours = layer(torch.full((1, 32), 1e6)), published_arithmetic(layer, torch.full((1, 32), 1e6))
    assert huge.isfinite().all()
    assert relative_error(huge, ours) < 1e-5
    assert to_fp8(torch.tensor([1e9, -1e9]), torch.ones(1)).float().tolist() == [448, -448]


@KINDS
def test_float16_does_not_overflow(smoothed):
    layer = random_layer(4096, 16, smoothed)
    x = torch.full((3, 4096), 3.0)  # the sum of the bare e4m3 values lies far beyond 65504
    with torch.no_grad():
        layer.weight.fill_(100.0)
        ours, reference = layer(x.half()), layer(x)
    assert ours.dtype == torch.float16
    assert relative_error(ours, reference) < 5e-3


@KINDS
def test_names_shapes_and_dtypes_are_the_published_ones(smoothed):
    layer = Fp8Linear(32, 48, smoothed)
    assert {name: (list(t.shape), t.dtype) for name, t in layer.state_dict().items()} == {
        "weight": ([1, 48, 32], torch.float8_e4m3fn),
        "weight_scale": ([1], torch.float32),
        "input_scale": ([1 if smoothed else 32], torch.float32),
        **({"smooth_scale": ([1, 32], torch.float32)} if smoothed else {}),
    }
    assert (layer.in_features, layer.out_features) == (32, 48)
    assert not any(p.requires_grad for p in layer.parameters())
    assert not layer(torch.randn(4, 32)).any(), "nothing is loaded yet"


# From a float layer


@KINDS
def test_a_quantised_layer_is_close_to_the_float_one(smoothed):
    torch.manual_seed(0)
    weight, x = torch.randn(64, 96) * 0.05, torch.randn(500, 96)
    layer = Fp8Linear.from_float(weight, x.abs().amax(0), smoothed)
    with torch.no_grad():
        error = relative_error(layer(x), x @ weight.T)
    # Rounding to 3 bits after the point is off by 2^-4 at most and 2.6 % on average, on each side.
    assert 0.01 < error < 0.05


@KINDS
def test_nothing_that_was_measured_is_cut_off(smoothed):
    torch.manual_seed(0)
    weight, x = torch.randn(16, 32), torch.randn(50, 32) * torch.linspace(0.1, 30, 32)
    layer = Fp8Linear.from_float(weight, x.abs().amax(0), smoothed)
    given = x if layer.smooth_scale is None else x / layer.smooth_scale
    assert (given / layer.input_scale).abs().max().item() == pytest.approx(448, rel=1e-5)
    assert layer.weight.float().abs().max() == 448
    assert torch.equal(layer.input_scale, layer.input_scale[:1].expand_as(layer.input_scale))


def test_smoothing_helps_where_one_channel_is_much_louder():
    # Louder by so much that beside it the others fall out of e4m3's range, which spans 448 x 2^9.
    torch.manual_seed(0)
    weight, x = torch.randn(64, 96), torch.randn(500, 96)
    x[:, 3] *= 1e5
    weight[:, 3] *= 1e-5
    errors = {}
    for smoothed in (False, True):
        with torch.no_grad():
            ours = Fp8Linear.from_float(weight, x.abs().amax(0), smoothed)(x)
        errors[smoothed] = relative_error(ours, x @ weight.T)
    assert errors[True] < 0.05
    assert errors[False] > 3 * errors[True]


@KINDS
def test_alpha_says_who_carries_the_unevenness(smoothed):
    weight, maxima = torch.randn(16, 32), torch.rand(32) + 0.1
    for alpha, even in {1.0: maxima, 0.0: 1 / weight.abs().amax(0)}.items():
        layer = Fp8Linear.from_float(weight, maxima, smoothed, alpha)
        if smoothed:
            assert torch.allclose(layer.smooth_scale[0], even)


@KINDS
def test_dead_channels_and_dead_layers(smoothed):
    torch.manual_seed(0)
    weight, x = torch.randn(16, 32), torch.randn(10, 32)
    weight[:, 5] = 0
    x[:, 7] = 0
    for w, given in ((weight, x), (torch.zeros(16, 32), x), (weight, torch.zeros(10, 32))):
        layer = Fp8Linear.from_float(w, given.abs().amax(0), smoothed)
        with torch.no_grad():
            ours = layer(given)
        assert ours.isfinite().all()
        assert (ours - given @ w.T).norm() <= 0.05 * (given @ w.T).norm()


# What a module is cast to

CASTS = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "double": lambda m: m.double(),
    "half and back": lambda m: m.half().float(),
    "to dtype": lambda m: m.to(torch.float16),
    "to both": lambda m: m.to("cpu", torch.bfloat16),
    "type": lambda m: m.type(torch.float16),
    "copy": copy.deepcopy,
}


@KINDS
@pytest.mark.parametrize("cast", CASTS)
def test_a_cast_leaves_weight_and_scales_alone(smoothed, cast):
    layer = random_layer(smoothed=smoothed)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    module = CASTS[cast](nn.Sequential(layer, nn.Linear(48, 8)))
    after = module[0].state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert torch.equal(after[name].float(), tensor.float()), name
    if cast not in ("half and back", "copy"):
        assert module[1].weight.dtype != torch.float32


def test_a_move_moves():
    layer = random_layer(smoothed=True).to("meta", torch.float16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", FP8), ("meta", torch.float32)}


def test_a_parameter_is_e4m3_whatever_it_is_made_from():
    values = torch.arange(127, dtype=torch.uint8).view(FP8)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, FP8):
        parameter = Fp8Parameter(values.to(dtype))
        assert parameter.dtype == FP8
        assert torch.equal(parameter.view(torch.uint8), values.view(torch.uint8))
    assert isinstance(Fp8Parameter(Fp8Parameter(values)), Fp8Parameter)


# Graphs and GPUs


@KINDS
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_is_one_graph(smoothed, backend):
    layer, x = random_layer(smoothed=smoothed), torch.randn(5, 32)
    torch.compiler.reset()
    with torch.no_grad():
        assert torch.equal(torch.compile(layer, fullgraph=True, backend=backend)(x), layer(x))


@KINDS
def test_the_gemm_is_called_with_the_right_operands(smoothed, monkeypatch):
    """On the processor, whose own FP8 product is exact: the call is the one that GPUs get."""
    layer, x = random_layer(64, 48, smoothed), torch.randn(2, 33, 64)
    try:
        torch._scaled_mm(
            torch.zeros(16, 16).to(FP8), torch.zeros(16, 16).to(FP8).t(), torch.ones(1), torch.ones(1),
            out_dtype=torch.float32,
        )  # fmt: skip
    except (NotImplementedError, RuntimeError):
        pytest.skip("this PyTorch has no FP8 product on the processor")
    monkeypatch.setattr("animagic.layers.fp8._has_fp8_gemm", lambda device: True)
    with torch.no_grad():
        ours = layer(x)
    assert ours.shape == (2, 33, 48)
    assert relative_error(ours, published_arithmetic(layer, x)) < 1e-5


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gemm_of_a_gpu_gives_the_same_numbers(smoothed, dtype, monkeypatch):
    if not torch.cuda.is_available() or torch.version.hip or torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no GPU with an FP8 GEMM (CUDA, compute capability 8.9 or above)")
    layer = random_layer(512, 256, smoothed).cuda()
    x = torch.randn(2, 33, 512, device="cuda", dtype=dtype)
    calls = []
    gemm = torch._scaled_mm
    monkeypatch.setattr(torch, "_scaled_mm", lambda *a, **k: calls.append(1) or gemm(*a, **k))
    with torch.no_grad():
        ours = layer(x)
        assert calls
        assert ours.shape == (2, 33, 256)
        assert ours.dtype == dtype
        assert relative_error(ours.cpu(), published_arithmetic(layer.cpu(), x.float().cpu())) < 1e-2
        odd = random_layer(40, 24, smoothed).cuda()  # not multiples of 16: by dequantisation
        assert odd(x[..., :40]).shape == (2, 33, 24)
        assert len(calls) == 1


def test_many_rows_are_cast_some_after_another_to_the_same_values(monkeypatch):
    x = 100 * torch.randn(2, 37, 16, generator=torch.Generator().manual_seed(0))
    scale = torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.1
    at_once = fp8.to_fp8(x, scale)
    monkeypatch.setattr(fp8, "_AT_ONCE", 5 * 16)
    in_parts = fp8.to_fp8(x, scale)
    assert in_parts.shape == x.shape
    assert torch.equal(in_parts.float(), at_once.float())
