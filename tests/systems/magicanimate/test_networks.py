"""The networks of MagicAnimate: looking and not looking at the picture, computed together and apart."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from models import TINY, tiny_pipeline

from animagic import AppearanceEncoder, InputError, MagicAnimateUNet
from animagic.systems.magicanimate.appearance import transformer_blocks


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


CROSS = {"motion_attention_block_types": ("Temporal_Self", "Temporal_Cross")}


@pytest.mark.parametrize(
    "motion",
    [{}, {"fusion_blocks": "full"}, CROSS, {"joint_group_norm": False}],
    ids=["midup", "full", "cross", "norms"],
)
@pytest.mark.parametrize("videos", [1, 2])
@torch.no_grad()
def test_both_predictions_together_are_those_apart(motion, videos):
    pipe = tiny_pipeline(**motion)
    x, text, picture = randn(videos, 4, 3, 4, 4), randn(videos, 2, 8), randn(videos, 4, 4, 4)
    residuals = pipe.controlnet(
        x.transpose(1, 2).flatten(0, 1),
        7,
        text.repeat_interleave(3, 0),
        randn(videos * 3, 3, 32, 32),
        return_dict=False,
    )
    steered = dict(zip(("down_block_additional_residuals", "mid_block_additional_residual"), residuals, strict=True))
    seen = pipe.appearance_encoder(picture, 7, text)
    both = pipe.unet(x, 7, text, references=seen, also_alone=True, **steered).sample
    apart = [pipe.unet(x, 7, text, references=one, **steered).sample for one in (None, seen)]
    torch.testing.assert_close(both, torch.cat(apart), atol=1e-5, rtol=1e-5)
    assert (apart[0] - apart[1]).abs().mean() > 1e-3


@torch.no_grad()
def test_the_way_down_runs_once_for_both():
    pipe, rows = tiny_pipeline(), []
    for block in (*pipe.unet.down_blocks, *pipe.unet.up_blocks):
        block.resnets[0].register_forward_hook(lambda layer, given, made: rows.append(len(made)))
    seen = pipe.appearance_encoder(randn(1, 4, 4, 4), 7, randn(1, 2, 8))
    pipe.unet(randn(1, 4, 3, 4, 4), 7, randn(1, 2, 8), references=seen, also_alone=True)
    assert rows == [3, 3, 6, 6]


@torch.no_grad()
def test_where_the_picture_is_looked_at():
    spatial = UNet2DConditionModel(**TINY)
    encoder, unet = AppearanceEncoder.from_unet2d(spatial), MagicAnimateUNet.from_unet2d(spatial)
    seen = encoder(randn(1, 4, 4, 4), 7, randn(1, 2, 8))
    assert set(seen) == set(transformer_blocks(unet, "full"))
    middle_and_up = transformer_blocks(unet, "midup")
    assert middle_and_up == [name for name in transformer_blocks(unet, "full") if not name.startswith("down")]
    assert len(middle_and_up) == 3


def test_unknown_places_are_refused():
    with pytest.raises(InputError, match="fusion_blocks is 'up'; choose midup or full"):
        MagicAnimateUNet(**TINY, fusion_blocks="up")
