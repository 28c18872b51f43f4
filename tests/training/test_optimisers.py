"""Muon beside PyTorch's, and which parameters it takes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from animagic.training.optimisers import Muon, fast_dtype, optimisers, orthogonalise

SHAPES = [(6, 6), (4, 10), (10, 4), (6, 6), (1, 5), (10, 4)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1}
needs_theirs = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def make_steps(optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step + 1)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()


@needs_theirs
def test_it_is_the_muon_of_pytorch_computed_in_float32(monkeypatch):
    ours, theirs = matrices(), matrices()
    make_steps(Muon(ours, **SETTINGS, dtype=torch.float32), ours, range(3))
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    make_steps(torch.optim.Muon(theirs, **SETTINGS, adjust_lr_fn="match_rms_adamw"), theirs, range(3))
    for one, other, start in zip(ours, theirs, matrices(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(one, start, atol=1e-2)


@needs_theirs
def test_it_goes_on_where_the_muon_of_pytorch_stopped():
    parameters = matrices()
    theirs = torch.optim.Muon(parameters, **SETTINGS, adjust_lr_fn="match_rms_adamw")
    make_steps(theirs, parameters, range(2))
    ours = Muon(parameters, lr=1.0, weight_decay=0.0)
    ours.load_state_dict(theirs.state_dict())
    assert all(torch.equal(ours.state[p]["momentum_buffer"], theirs.state[p]["momentum_buffer"]) for p in parameters)
    assert {name: ours.param_groups[0][name] for name in SETTINGS} == SETTINGS


def test_it_resumes_to_the_same_bits():
    whole, parts = matrices(), matrices()
    make_steps(Muon(whole, **SETTINGS), whole, range(4))
    first = Muon(parts, **SETTINGS)
    make_steps(first, parts, range(2))
    second = Muon(parts, **SETTINGS)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    make_steps(second, parts, range(2, 4))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 12), (2, 12, 4)])
def test_singular_values_become_alike(shape, dtype):
    found = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype))
    assert (found.shape, found.dtype) == (shape, dtype)
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_nothing_becomes_of_a_matrix_of_zeros():
    assert torch.equal(orthogonalise(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def test_a_matrix_without_a_gradient_stays():
    parameters = matrices()
    optimiser = Muon(parameters, **SETTINGS)
    parameters[1].grad = torch.ones_like(parameters[1])
    optimiser.step()
    same = [torch.equal(one, other) for one, other in zip(parameters, matrices(), strict=True)]
    assert same == [True, False, True, True, True, True]


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"not for a parameter of shape \(3,\)"):
        Muon([nn.Parameter(torch.ones(3))])


@pytest.mark.parametrize(
    ("found", "dtype"),
    [
        ({"avx512_bf16": True, "amx_tile": False}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_tile": True}, torch.float32),
        ({"avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_used_only_where_the_cpu_has_it(monkeypatch, found, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert fast_dtype(torch.device("cpu")) == dtype


def test_muon_is_for_matrices_of_repeated_blocks_that_are_trained():
    blocks = nn.ModuleList([nn.Linear(3, 3), nn.Conv1d(3, 3, 1), nn.Linear(3, 2)])
    blocks[2].requires_grad_(False)
    model = nn.ModuleDict({"blocks": blocks, "again": nn.ModuleList([blocks[0]]), "head": nn.Linear(3, 1)})
    found = [
        [sorted(tuple(p.shape) for p in group["params"]) for group in optimiser.param_groups]
        for optimiser in optimisers(model, "muon", 1e-3, 0.1, (0.9, 0.95))
    ]
    assert found == [[[(3, 3)]], [[(1, 3), (3, 3, 1)], [(1,), (3,), (3,)]]]
