"""Original configurations and names become ours; what is not known is named."""

import pytest
import torch
from diffusers_unet import diffusers_motion_name
from published_files import UNET, motion_module, picture_model, with_positions

from animagic.checkpoints import from_original
from animagic.errors import CheckpointError, InputError
from animagic.systems.animatediff.weights import sparse_controlnet_from_config, unet_from_config
from animagic.weights.motion_module import motion_config, motion_name, original_names

MODULE = {
    "num_attention_heads": 8,
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "temporal_position_encoding": True,
    "temporal_position_encoding_max_len": 24,
    "temporal_attention_dim_div": 1,
    "zero_initialize": True,
}
FLAGS = {
    "use_motion_module": True,
    "motion_module_resolutions": [1, 2],
    "motion_module_mid_block": True,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "use_inflated_groupnorm": False,
}


def test_the_original_fields():
    config = motion_config(None, MODULE, FLAGS)
    assert config == {
        "motion_num_attention_heads": 8,
        "motion_num_transformer_blocks": 1,
        "motion_attention_block_types": ("Temporal_Self", "Temporal_Self"),
        "motion_max_length": 24,
        "motion_attention_dim_div": 1,
        "motion_resolutions": (1, 2),
        "motion_mid_block": True,
        "motion_decoder_only": False,
        "joint_group_norm": True,
    }
    assert motion_config("v2")["motion_max_length"] == 32
    assert motion_config("v2", {"temporal_position_encoding": False})["motion_max_length"] == 0


@pytest.mark.parametrize(
    ("version", "module", "flags", "message"),
    [
        ("v4", {}, {}, "AnimateDiff 'v4' is unknown; choose v1, v2, v3, sdxl"),
        ("v1", {"heads": 8}, {}, "motion_module_kwargs has an unknown field 'heads'"),
        ("v1", {}, {"motion": 8}, "the UNet has an unknown field 'motion'"),
        ("v1", {}, {"motion_module_type": "Other"}, "motion_module_type is 'Other'; only 'Vanilla' is supported"),
    ],
)
def test_unknown_fields(version, module, flags, message):
    with pytest.raises(InputError, match=message):
        motion_config(version, module, flags)


def test_a_unet_of_original_weights():
    """With the names of trainers, tables of positions, and blocks that are called 3D."""
    weights = {**picture_model(0)["unet"].state_dict(), **motion_module("v1")}
    blocks = {
        name: tuple(kind.replace("2D", "3D") for kind in UNET[name]) for name in ("down_block_types", "up_block_types")
    }
    config = {**UNET, **blocks, "_class_name": "UNet3DConditionModel", "version": "v1", "motion_module_kwargs": MODULE}
    given = {f"module.{name}": tensor for name, tensor in with_positions(weights, 24).items()}
    unet = from_original("animatediff", "unet", given, config)
    assert unet.config.joint_group_norm
    assert not unet.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in unet.state_dict().items())

    name = next(iter(weights))
    with pytest.raises(CheckpointError, match=f"the tensor {name} is missing"):
        from_original("animatediff", "unet", {k: v for k, v in weights.items() if k != name}, config)
    with pytest.raises(CheckpointError, match=f"{name} has the shape"):
        from_original("animatediff", "unet", {**weights, name: torch.zeros(2)}, config)
    with pytest.raises(CheckpointError, match=r"the tensor mid_block\.motion_modules\S+ is unexpected"):
        from_original("animatediff", "unet", {**weights, **motion_module("v2")}, config)
    with pytest.raises(InputError, match="unknown field 'colour'"):
        unet_from_config({**config, "colour": "red"})


def test_a_sparse_network_has_one_attention():
    config = {**UNET, "motion_module_kwargs": MODULE, "conditioning_channels": 4, "motion_module_mid_block": True}
    network = sparse_controlnet_from_config({**config, "use_simplified_condition_embedding": True})
    block = network.down_blocks[0].motion_modules[0].temporal_transformer.transformer_blocks[0]
    assert len(block.attention_blocks) == 1
    assert network.config.motion_max_length == 24
    assert network.controlnet_cond_embedding.in_channels == 5


def test_names_there_and_back():
    names = list(motion_module("v2"))
    for name in names:
        theirs = diffusers_motion_name(name)
        assert theirs != name
        assert motion_name(theirs) == name
    assert motion_name("conv_in.weight") == diffusers_motion_name("conv_in.weight") == "conv_in.weight"
    tables = with_positions(motion_module("v2"), 32)
    assert list(original_names({f"module.{name}": 0 for name in tables})) == names
