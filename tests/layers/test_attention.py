"""Attention: spans, groups and masks give what plain masked attention gives, whatever the kernel."""

import math

import pytest
import torch
from torch._dynamo.utils import counters

from animagic.errors import InputError
from animagic.layers.attention import EvenSpans, Span, attention, available_backends

QUERIES, KEYS = 12, 20
SPANS = {
    "block causal": [Span(0, 4, 0, 12), Span(4, 8, 0, 16), Span(8, 12, 0, 20)],
    "short look-back": [Span(0, 4, 8, 12), Span(4, 8, 4, 16), Span(8, 12, 16, 20)],
    "uneven": [Span(0, 1, 0, 1), Span(1, 9, 3, 20), Span(9, 12, 0, 20)],
    "one": [Span(0, 12, 5, 7)],
}


def tensors(heads: int, groups: int, queries: int = QUERIES, keys: int = KEYS):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, queries, 8), (2, groups, keys, 8), (2, groups, keys, 8)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def plain(query, key, value, mask):
    """softmax(q k / sqrt(d)) v with every head's keys written out and -inf where a key is not seen."""
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ value


def dense(spans) -> torch.Tensor:
    mask = torch.zeros(QUERIES, KEYS, dtype=torch.bool)
    for span in spans:
        mask[span.start : span.stop, span.key_start : span.key_stop] = True
    return mask


@pytest.mark.parametrize("backend", ["auto", "sdpa", "flex"])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS.keys())
def test_spans_are_masked_attention(spans, groups, backend):
    query, key, value = tensors(4, groups)
    ours = attention(query, key, value, spans=spans, backend=backend)
    torch.testing.assert_close(ours, plain(query, key, value, dense(spans)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "flex"])
@pytest.mark.parametrize("groups", [4, 2])
def test_without_spans_everything_is_seen(groups, backend):
    query, key, value = tensors(4, groups)
    everything = torch.ones(QUERIES, KEYS, dtype=torch.bool)
    ours = attention(query, key, value, backend=backend)
    torch.testing.assert_close(ours, plain(query, key, value, everything), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize("groups", [4, 2])
def test_masks_are_broadcast(groups, backend):
    query, key, value = tensors(4, groups)
    mask = torch.rand(2, 1, 1, KEYS, generator=torch.Generator().manual_seed(1)) < 0.5
    ours = attention(query, key, value, mask=mask, backend=backend)
    torch.testing.assert_close(ours, plain(query, key, value, mask), atol=1e-5, rtol=1e-5)


def test_gradients_flow_through_spans():
    query, key, value = (x.requires_grad_() for x in tensors(4, 2))
    mask = dense(SPANS["short look-back"])
    ours = torch.autograd.grad(
        attention(query, key, value, spans=SPANS["short look-back"]).square().sum(), (query, key, value)
    )
    theirs = torch.autograd.grad(plain(query, key, value, mask).square().sum(), (query, key, value))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "flex"])
def test_even_spans_are_spans(backend):
    query, key, value = tensors(4, 2)
    spans = EvenSpans(torch.tensor([[0, 3], [1, 4], [0, 5]]), unit=4)
    expected = attention(query, key, value, spans=[Span(0, 4, 0, 12), Span(4, 8, 4, 16), Span(8, 12, 0, 20)])
    torch.testing.assert_close(attention(query, key, value, spans=spans, backend=backend), expected)


def test_even_spans_are_one_operation_of_a_graph():
    """Its shape, layout and effects are what the compiler is told; another number of spans needs no other graph."""
    query, key, value = tensors(4, 2)
    spans = EvenSpans(torch.tensor([[0, 3], [1, 4], [0, 5]]), unit=4)
    torch.library.opcheck(torch.ops.animagic.attention_of_even_spans, (query, key, value, *spans, "auto"))

    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(attention, fullgraph=True, backend="eager", dynamic=True)
    for keys in ([[0, 3], [1, 4], [0, 5]], [[0, 5], [2, 3]], [[1, 2], [0, 1], [2, 4], [0, 5]]):
        spans = EvenSpans(torch.tensor(keys), unit=4)
        assert torch.equal(compiled(query, key, value, spans=spans), attention(query, key, value, spans=spans))
    assert counters["stats"]["unique_graphs"] == 1


def test_an_unknown_backend_is_refused():
    query, key, value = tensors(4, 2)
    for spans in (None, SPANS["one"]):
        with pytest.raises(InputError, match="choose auto, sdpa, flex or flash"):
            attention(query, key, value, spans=spans, backend="xformers")


@pytest.mark.skipif(available_backends()["flash"], reason="FlashAttention is here")
def test_a_kernel_that_is_not_here_is_refused():
    with pytest.raises(InputError, match="FlashAttention is not installed"):
        attention(*tensors(4, 2), backend="flash")


@pytest.mark.parametrize("backend", ["auto", "sdpa", "flex"])
def test_a_mask_together_with_spans_is_refused(backend):
    mask = torch.ones(1, 1, 1, KEYS, dtype=torch.bool)
    with pytest.raises(InputError):
        attention(*tensors(4, 2), spans=SPANS["block causal"], mask=mask, backend=backend)


def test_backends_that_are_here_are_told():
    backends = available_backends()
    assert set(backends) == {"sdpa", "flex", "flash"}
    assert backends["sdpa"]
    assert all(isinstance(present, bool) for present in backends.values())
