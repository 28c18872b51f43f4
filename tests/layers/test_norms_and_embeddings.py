"""Small layers against torch and diffusers."""

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from animagic.layers.embeddings import sinusoid
from animagic.layers.norms import LayerNorm1p


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_layer_norm_1p_is_layer_norm_of_a_weight_minus_one():
    theirs, ours = nn.LayerNorm(16, eps=1e-6), LayerNorm1p(16, eps=1e-6)
    x = randn(3, 5, 16) * 4 + 1
    assert torch.equal(ours(x), theirs(x))  # as initialised
    with torch.no_grad():
        theirs.weight.copy_(randn(16))
        theirs.bias.copy_(randn(16))
    ours.load_state_dict({"weight": theirs.weight - 1, "bias": theirs.bias})
    torch.testing.assert_close(ours(x), theirs(x))


def test_layer_norm_1p_computes_in_float32():
    norm = LayerNorm1p(16)
    x = (randn(3, 16) * 300).half()
    assert norm(x).dtype == torch.float32
    torch.testing.assert_close(norm.half()(x), nn.functional.layer_norm(x.float(), (16,), eps=1e-6))


def test_sinusoid_is_that_of_diffusers():
    t = torch.tensor([0.0, 0.5, 3.0, 999.9])
    theirs = get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoid(t, 32), theirs)
    assert sinusoid(t.view(2, 2), 32).shape == (2, 2, 32)
    assert torch.equal(sinusoid(t, 32)[0], torch.cat([torch.ones(16), torch.zeros(16)]))
