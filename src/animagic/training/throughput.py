"""How much arithmetic a training does, and how much of what the machine can do that is."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


class Throughput:
    """The arithmetic of training steps: the mean of those that were counted.

    Args:
        device, dtype: what the network is trained on, and what its matrix products are computed in.

    Steps may differ, so several are counted; not all, since counting slows a step down. It does not change its numbers.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self._total, self._counted = 0.0, 0

    @property
    def flop(self) -> float:
        """Floating-point operations of a step: its matrix products, convolutions and attentions, without optimisers."""
        return self._total / max(1, self._counted)

    @contextlib.contextmanager
    def count(self) -> Iterator[None]:
        """Counts what is computed within, forward and backward, as a step."""
        counter = flop_counter()
        with counter:
            yield
        self._total, self._counted = self._total + counter.get_total_flops(), self._counted + 1

    def figures(self, seconds: float) -> dict[str, float]:
        """`gflops` (billions of operations a second) of steps that take so long, and `share_of_matmul`, what part that
        is of the machine's rate of matrix products."""
        rate = self.flop / seconds
        share = rate / matmul_rate(self.device, self.dtype, torch.get_num_threads())
        return {"gflops": rate / 1e9, "share_of_matmul": share}


@functools.cache
def matmul_rate(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Floating-point operations a second of a large matrix product in this process, the best of half a second; measured
    once for every device, dtype and number of `threads`, which are those of the process."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 512
    # Of its own, since training must not notice.
    matrix = torch.randn(size, size, generator=torch.Generator(device), device=device).to(dtype)
    best, end = math.inf, time.perf_counter() + 0.5
    while time.perf_counter() < end:
        began = time.perf_counter()
        matrix @ matrix
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which also knows the attention kernel of the CPU."""

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        batch, heads, queries, width = query
        return 2 * batch * heads * queries * key[2] * (width + value[3])

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return attention(query, key, value) * 5 // 2  # four products, and that of queries and keys once more

    kernel, kernel_backward = (
        getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{part}") for part in ("", "_backward")
    )
    counter = FlopCounterMode(display=False, custom_mapping={kernel: attention, kernel_backward: backward})
    tracker: Any = _Nothing()  # the usual one cannot follow a network that also runs without gradients
    counter.mod_tracker = tracker
    return counter


class _Nothing(contextlib.nullcontext):
    """In place of what tells the modules apart in which something is computed."""

    parents = frozenset({"Global"})
