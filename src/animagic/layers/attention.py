"""The one entry point of attention, over the best kernel that is present. Nothing is compiled at install time."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from ..errors import InputError

Backend = Literal["auto", "sdpa", "flex", "flash"]


class Span(NamedTuple):
    """Query rows [start, stop) see exactly the key rows [key_start, key_stop)."""

    start: int
    stop: int
    key_start: int
    key_stop: int


class EvenSpans(NamedTuple):
    """Spans of equally many queries each, given by a tensor, so that a compiled graph holds for all of them."""

    keys: torch.Tensor
    """(spans, 2) integers on the CPU: the first key that a span sees, and the end."""
    unit: int
    """Keys that one of these numbers stands for."""

    def spans(self, queries: int) -> list[Span]:
        length = queries // len(self.keys)
        rows = enumerate((self.keys * self.unit).tolist())
        return [Span(i * length, (i + 1) * length, start, stop) for i, (start, stop) in rows]


def available_backends() -> dict[str, bool]:
    """Which attention kernels this installation has."""
    return {
        "sdpa": True,
        "flex": importlib.util.find_spec("torch.nn.attention.flex_attention") is not None,
        "flash": importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available(),
    }


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    spans: Sequence[Span] | EvenSpans | None = None,
    mask: torch.Tensor | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Scaled dot-product attention with grouped queries.

    Args:
        query: (batch, heads, queries, dim), as the result.
        key, value: (batch, groups, keys, dim); `heads` is a multiple of `groups`.
        spans: which keys each block of queries sees, in order; None: all. `EvenSpans` are one operation of a
            compiled graph.
        mask: in place of spans, boolean (batch, heads, queries, keys), True where a key is seen.
        backend: "sdpa": a dense kernel a span, with no masked-out work; "flex": one FlexAttention kernel for all
            spans; "flash": FlashAttention, if installed; "auto": flash in half precision on a GPU, else sdpa.
    """
    if isinstance(spans, EvenSpans):
        if torch.compiler.is_compiling():
            return _compiled(query, key, value, spans.keys, spans.unit, backend)
        spans = spans.spans(query.shape[2])
    if backend == "auto":
        half = query.dtype in (torch.float16, torch.bfloat16)
        backend = "flash" if query.is_cuda and half and mask is None and _has_flash() else "sdpa"
    if mask is not None and (spans is not None or backend == "flash"):
        raise InputError("a mask cannot be combined with spans, nor with FlashAttention.")
    if backend == "flex" and spans is not None:
        return _flex(query, key, value, tuple(spans))
    if backend not in ("sdpa", "flex", "flash"):
        raise InputError(f"attention backend {backend!r} is unknown; choose auto, sdpa, flex or flash.")
    kernel = _flash if backend == "flash" else functools.partial(_sdpa, mask=mask)
    if spans is None:
        return kernel(query, key, value)
    queries = query.split([s.stop - s.start for s in spans], dim=2)
    # Joined as (batch, queries, heads, dim), the layout that kernels write and projections read.
    outputs = [
        kernel(rows, key[:, :, s.key_start : s.key_stop], value[:, :, s.key_start : s.key_stop]).transpose(1, 2)
        for rows, s in zip(queries, spans, strict=True)
    ]
    return torch.cat(outputs, dim=1).transpose(1, 2) if len(outputs) > 1 else outputs[0].transpose(1, 2)


@torch.library.custom_op("animagic::attention_of_even_spans", mutates_args=())
def _compiled(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, unit: int, backend: str
) -> torch.Tensor:
    """The attention of `EvenSpans` as one operation of a compiled graph."""
    result = attention(query, key, value, spans=EvenSpans(keys, unit).spans(query.shape[2]), backend=backend)  # type: ignore[arg-type]
    return result.contiguous()


@_compiled.register_fake
def _(query, key, value, keys, unit, backend):
    return query.new_empty(query.shape)


def _sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)


@functools.cache
def _has_flash() -> bool:
    return available_backends()["flash"]


def _flash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if not _has_flash():
        raise InputError("FlashAttention is not installed here; leave the attention backend at auto.")
    from flash_attn import flash_attn_func

    return flash_attn_func(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)).transpose(1, 2)


def _flex(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: tuple[Span, ...]) -> torch.Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    block_mask = _flex_mask(spans, query.shape[2], key.shape[2], str(query.device))
    # Compiled where that is the point of it (a GPU); the eager form is right everywhere, only slow.
    kernel = torch.compile(flex_attention) if query.is_cuda else flex_attention
    return kernel(query, key, value, block_mask=block_mask, enable_gqa=query.shape[1] != key.shape[1])


@functools.lru_cache(maxsize=32)
def _flex_mask(spans: tuple[Span, ...], queries: int, keys: int, device: str):
    from torch.nn.attention.flex_attention import create_block_mask

    first, last = torch.zeros(queries, dtype=torch.long), torch.zeros(queries, dtype=torch.long)
    for span in spans:
        first[span.start : span.stop], last[span.start : span.stop] = span.key_start, span.key_stop
    first, last = first.to(device), last.to(device)

    def sees(_batch, _head, q, k):
        return (k >= first[q]) & (k < last[q])

    return create_block_mask(sees, B=None, H=None, Q_LEN=queries, KV_LEN=keys, device=device)
