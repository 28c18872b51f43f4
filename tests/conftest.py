"""What several folders of tests share."""

import pytest
import torch

TINY_TRANSFORMER = {
    "num_layers": 2,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "in_channels": 4,
    "out_channels": 4,
    "caption_channels": 8,
    "caption_max_length": 12,
    "chunk_width": 2,
}


@pytest.fixture
def tiny_transformer():
    """Makes MAGI-1 transformers of a few thousand random weights; every norm, gate and bias takes part."""
    from animagic.systems.magi1.transformer import Magi1Transformer3DModel

    def make(seed: int = 0, **settings) -> Magi1Transformer3DModel:
        torch.manual_seed(seed)
        model = Magi1Transformer3DModel(**{**TINY_TRANSFORMER, **settings}).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1 and parameter is not model.rope.bands:
                    parameter += 0.2 * torch.randn_like(parameter)
        return model

    return make
