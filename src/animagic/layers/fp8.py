"""Linear layers in FP8 (e4m3), in the layout of MAGI-1's published quantised checkpoints.

Plain PyTorch, not torchao: the layout is given, with scales of its own, and torchao would have to be taught it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FP8 = torch.float8_e4m3fn
MAX = torch.finfo(FP8).max  # 448; a larger value would become NaN
_AT_ONCE = 2**26  # values that are divided at once


def to_fp8(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale in e4m3; what lies outside its range goes to the end of it."""
    if torch.compiler.is_compiling() or x.ndim < 2 or x.numel() <= _AT_ONCE:  # a compiler makes one kernel of it
        return (x / scale).clamp_(-MAX, MAX).to(FP8)
    # Some rows after another: in float32, all of them would be the largest tensor of the whole network.
    rows = x.reshape(-1, x.shape[-1])
    result = torch.empty(rows.shape, dtype=FP8, device=x.device)
    count = max(1, _AT_ONCE // x.shape[-1])
    for part, place in zip(rows.split(count), result.split(count), strict=True):
        place.copy_((part / scale).clamp_(-MAX, MAX))
    return result.reshape(x.shape)


class Fp8Parameter(nn.Parameter):
    """A parameter that is always e4m3: loaders hand weights over in the dtype of the model."""

    def __new__(cls, data: Tensor, requires_grad: bool = False):
        return super().__new__(cls, data.detach().to(FP8), requires_grad)


class Fp8Linear(nn.Module):
    """A linear layer without bias whose weight and input are e4m3.

    Per-tensor: the input is divided by `input_scale` (one a channel), and the product, whose GEMM takes one scale a
    side, multiplied by `input_scale[0]` and `weight_scale`. Smoothed: channels are first evened out by
    `smooth_scale`, which the weight holds as a factor (SmoothQuant, arXiv 2211.10438).

    Runs as an FP8 GEMM on GPUs that have one (compute capability 8.9 and above, both sizes multiples of 16), elsewhere
    on dequantised values in the input's dtype. Weights are zero until they are loaded; `.to(dtype)` leaves them as
    they are.
    """

    SCALES = ("weight_scale", "input_scale", "smooth_scale")

    def __init__(self, in_features: int, out_features: int, smoothed: bool = False):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Fp8Parameter(torch.empty(1, out_features, in_features, dtype=FP8))
        self.weight_scale = _scale(1)
        self.input_scale = _scale(1 if smoothed else in_features)
        self.smooth_scale = _scale(1, in_features) if smoothed else None
        nn.init.constant_(self.weight, 0)

    @classmethod
    @torch.no_grad()
    def from_float(cls, weight: Tensor, maxima: Tensor, smoothed: bool = False, alpha: float = 0.5) -> Fp8Linear:
        """Quantise a weight (out_features, in_features). maxima: (in_features,), the largest absolute value of each
        input channel; alpha: the share of the channels' unevenness that goes into the weight."""
        out_features, in_features = weight.shape
        weight, maxima = weight.float(), maxima.to(weight.device, torch.float32)
        layer = cls(in_features, out_features, smoothed)
        if layer.smooth_scale is not None:
            columns = weight.abs().amax(dim=0)
            smooth = maxima**alpha / columns ** (1 - alpha)
            smooth = torch.where((maxima > 0) & (columns > 0), smooth, 1.0)  # a channel that is never used stays
            weight, maxima = weight * smooth, maxima / smooth
            layer.smooth_scale = _parameter(smooth[None])
        weight_scale = _range_scale(weight)
        layer.weight = Fp8Parameter(to_fp8(weight, weight_scale)[None])
        layer.weight_scale = _parameter(weight_scale)
        layer.input_scale = _parameter(_range_scale(maxima).repeat(len(layer.input_scale)))
        return layer

    def forward(self, x: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features), in the dtype of x
        divisor = self.input_scale if self.smooth_scale is None else self.input_scale * self.smooth_scale[0]
        quantised, input_scale = to_fp8(x, divisor), self.input_scale[:1]
        if self.in_features % 16 == 0 and self.out_features % 16 == 0 and _has_fp8_gemm(x.device):
            rows = quantised.reshape(-1, self.in_features)
            product = torch._scaled_mm(
                rows, self.weight[0].t(), scale_a=input_scale, scale_b=self.weight_scale, out_dtype=x.dtype
            )
            return product.unflatten(0, x.shape[:-1])
        # Each side takes its own scale: the product of the bare values would leave the range of float16.
        weight = (self.weight[0].to(x.dtype) * self.weight_scale).to(x.dtype)
        return F.linear((quantised.to(x.dtype) * input_scale).to(x.dtype), weight)

    def extra_repr(self) -> str:
        kind = "smoothed" if self.smooth_scale is not None else "per-tensor"
        return f"in_features={self.in_features}, out_features={self.out_features}, {kind}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Fp8Linear:
        # Every move and cast of a module ends here: only the place may change.
        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, recurse)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _scale(*shape: int) -> nn.Parameter:
    return _parameter(torch.ones(shape, dtype=torch.float32))


def _range_scale(x: Tensor) -> Tensor:
    """(1,) the scale that brings the largest value of x to the end of e4m3's range."""
    return (x.abs().amax() / MAX).clamp(min=1e-12).reshape(1)


@torch.compiler.assume_constant_result
def _has_fp8_gemm(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 9)
