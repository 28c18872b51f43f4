"""The bytes of networks on PyTorch's meta device, which has shapes and no values: theirs, and those of running them.

Their own code runs while every tensor that comes and goes is counted, so that it stays right when a network changes.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..layers import fp8


class _Attention(TorchFunctionMode):
    """Attention as a fused kernel does it: no matrix of scores in memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            batch, heads, queries, _ = given["query"].shape
            made = given["query"].new_empty(batch, queries, heads, given["value"].shape[-1])
            return made.transpose(1, 2)  # as kernels lay it out
        return func(*args, **kwargs)


class LiveBytes(TorchDispatchMode):
    """Follows the storages that are made on a device from their making to their end, as eager PyTorch does it.
    like_cpu: what a CPU takes besides is counted too."""

    def __init__(self, device: str = "meta", like_cpu: bool = False):
        super().__init__()
        self.device, self.like_cpu = device, like_cpu
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.device.type == self.device:
                storage = x.untyped_storage()
                if storage._cdata not in given | self._known:
                    self._known.add(storage._cdata)
                    self.live += storage.nbytes()
                    weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        beside = self.like_cpu and func is torch.ops.aten.convolution.default
        self.peak = max(self.peak, self.live + (_convolution_workspace(*args) if beside else 0))
        return result

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _convolution_workspace(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> int:
    """Bytes that PyTorch takes beside a convolution's result on a CPU: oneDNN wants channels in sixteens, and the
    kernel that runs small ones makes a column of values for every place."""
    like = [None if y is None else torch.empty(y.shape, dtype=y.dtype) for y in (x, weight, rest[0])]
    backend = torch._C._select_conv_backend(*like, *rest[1:])
    if "Mkldnn" in str(backend):
        return x.nbytes // x.shape[1] * -(-x.shape[1] // 16) * 16
    result = torch.ops.aten.convolution.default(x[:, :1], weight[:1, :1], None, *rest[1:-1], 1)
    return result.numel() * weight[0].numel() * x.element_size()


def peak_of(work: Callable[[], Any], cpu: bool = False) -> tuple[int, Any]:
    """Bytes that the tensors made by some code on the meta device hold at most, and its result; its inputs count where
    it makes them itself, weights do not. cpu: as it would run on a CPU."""
    gemm = patch.object(fp8, "_has_fp8_gemm", lambda device: not cpu)
    with torch.no_grad(), gemm, LiveBytes(like_cpu=cpu) as counter, _Attention():
        result = work()
    return counter.peak, result


def bytes_of(module: nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(x.nbytes for x in itertools.chain(module.parameters(), module.buffers()))


def bytes_at_work(module: nn.Module, offload: str | None) -> int:
    """Bytes of its weights that lie on the device while it works, where diffusers' group offloading brings the rest."""
    if offload in (None, "model"):
        return bytes_of(module)
    if offload == "block":  # the block at work and the next one, and all that lies in no block
        blocks = sorted(map(bytes_of, _blocks(module)))
        return bytes_of(module) - sum(blocks[:-2])
    # The layer at work and the next one. Tables that are no layer (positions, the null caption) come with a parent.
    leaves = sorted(bytes_of(m) for m in module.modules() if not list(m.children()))
    tables = (sum(p.nbytes for p in m.parameters(recurse=False)) for m in module.modules() if list(m.children()))
    return sum(leaves[-2:]) + max(tables, default=0)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that move as one where a network is offloaded block by block."""
    for name, child in module.named_children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            yield from child
        elif name in (getattr(module, "_group_offload_block_modules", None) or ()):
            yield from _blocks(child)


def cast(network: Any, dtype: torch.dtype) -> Any:
    """A network as diffusers loads it in that dtype: some parts stay in float32."""
    nn.Module.to(network, dtype)  # diffusers' own warns that it is not for this
    for name, module in network.named_children():
        if name in (getattr(network, "_keep_in_fp32_modules", None) or ()):
            module.float()
    return network
