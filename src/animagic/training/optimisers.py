"""Optimisers of training: AdamW, and Muon for the matrices of repeated blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by a Newton-Schulz iteration, for matrices. What torch.optim.Muon computes with
    adjust_lr_fn="match_rms_adamw"; but all matrices of one shape at once, and in float32 where bfloat16 is emulated.

    Args:
        matrices: parameters with two dimensions.
        lr: learning rate of an AdamW that it replaces: every update is scaled to the root mean square of AdamW's.
        weight_decay: decoupled, as AdamW's.
        momentum: of the moving average of gradients, used in Nesterov's way.
        dtype: of the iteration; None: bfloat16 where the device multiplies it fast, else float32.

    Raises: ValueError for a parameter that is no matrix. Sources: Jordan and others 2024,
    https://kellerjordan.github.io/posts/muon/ (iteration, its coefficients and momentum); arXiv 2502.16982, section 2.2
    (scale and weight decay).
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim != 2:
                raise ValueError(f"Muon is for matrices, not for a parameter of shape {tuple(parameter.shape)}.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; returns what `closure`, which computes the gradients anew, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            if matrices:
                self._update(matrices, group["lr"], group["weight_decay"], group["momentum"])
        return loss

    def _update(self, matrices: list[torch.Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        gradients = [p.grad for p in matrices if p.grad is not None]
        averages = [self.state[p]["momentum_buffer"] for p in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, averages, momentum)
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        by_shape = defaultdict(list)
        for matrix, direction in zip(matrices, directions, strict=True):
            by_shape[matrix.shape, matrix.device].append((matrix, direction))
        for (shape, device), pairs in by_shape.items():
            same, stacked = [matrix for matrix, _ in pairs], torch.stack([direction for _, direction in pairs])
            updates = orthogonalise(stacked.to(self.dtype or fast_dtype(device))).to(stacked)
            torch._foreach_add_(same, updates.unbind(), alpha=-lr * 0.2 * max(shape) ** 0.5)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices with the same singular vectors, and singular values between about 0.7 and 1.2.

    (batch, rows, columns) -> the same shape and dtype. A quintic Newton-Schulz iteration, see Muon.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # the product with its transpose is to be the small one
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it faster than float32, else float32: emulated, it takes several times as
    long. Not with AMX tiles: some virtual machines announce them and die of their instructions."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # PyTorch before 2.10 cannot tell.
        found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        fast = found.get("avx512_bf16", False) and not found.get("amx_tile", False)
    return torch.bfloat16 if fast else torch.float32


def optimisers(
    model: nn.Module, kind: str, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """AdamW for everything that is trained; with the kind "muon", Muon for the matrices of the repeated blocks before
    it."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found: list[torch.optim.Optimizer] = []
    if kind == "muon":
        repeated = [list(module.parameters()) for module in model.modules() if isinstance(module, nn.ModuleList)]
        matrices = {id(p): p for block in repeated for p in block if p.ndim == 2 and p.requires_grad}
        parameters = [p for p in parameters if id(p) not in matrices]
        found.append(Muon(matrices.values(), lr=learning_rate, weight_decay=weight_decay))
    # Vectors (norms, biases, bands) are not to be pulled to zero.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [*found, torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
