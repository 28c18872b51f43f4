"""Counted arithmetic is that of the formulas, and counting it changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from animagic.training.throughput import Throughput, matmul_rate

CPU = torch.device("cpu")


class Attention(nn.Module):
    """Two heads of 16 over 24 tokens."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.to_qkv = nn.Linear(32, 96)
        self.register_buffer("x", torch.randn(2, 24, 32))

    def forward(self) -> torch.Tensor:
        q, k, v = self.to_qkv(self.x).view(2, 24, 3, 2, 16).permute(2, 0, 3, 1, 4)
        return scaled_dot_product_attention(q, k, v).square().sum()


def test_forward_and_backward_are_counted_with_attention():
    found = Throughput(CPU, torch.float32)
    with found.count():
        Attention()().backward()
    linear, attention = 2 * 2 * 24 * 32 * 96, 4 * 2 * 2 * 24 * 24 * 16
    assert found.flop == 2 * linear + 3.5 * attention  # the input needs no gradient; the scores are computed again


def test_the_arithmetic_of_a_step_is_the_mean_of_those_counted():
    found, linear = Throughput(CPU, torch.float32), nn.Linear(3, 4)
    assert found.flop == 0
    for size in (1, 3):
        with found.count():
            linear(torch.ones(size, 3))
    assert found.flop == 2 * 2 * 3 * 4


def test_counting_changes_no_bit():
    plain, counted = Attention(), Attention()
    plain().backward()
    with Throughput(CPU, torch.float32).count():
        counted().backward()
    assert torch.equal(plain.to_qkv.weight.grad, counted.to_qkv.weight.grad)


def test_the_share_is_that_of_the_rate_of_the_machine(monkeypatch):
    monkeypatch.setattr("animagic.training.throughput.matmul_rate", lambda *_: 10e9)
    found = Throughput(CPU, torch.float32)
    with found.count():
        torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    assert found.figures(seconds=0.5) == {"gflops": pytest.approx(4), "share_of_matmul": pytest.approx(0.4)}


def test_measuring_the_machine_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    matmul_rate.cache_clear()
    assert matmul_rate(CPU, torch.float32, torch.get_num_threads()) > 1e8
    assert torch.equal(before, torch.get_rng_state())
