"""Published inference configurations of networks with motion modules: their fields, defaults, and what is refused.

Source of the names and defaults: guoyww/AnimateDiff and magic-research/magic-animate, `configs/inference`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..wording import annotations_of
from .original import Positive, Section, YamlNumber, read_sections

NotNegative = Annotated[YamlNumber, Field(ge=0)]


class Fields(Section):
    """A section in which null is as good as nothing."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        known = annotations_of(cls)
        return {name: value for name, value in given.items() if value is not None or name not in known}


class MotionModule(Fields):
    """`motion_module_kwargs`."""

    num_attention_heads: Positive = 8
    num_transformer_block: Positive = 2
    attention_block_types: list[str] = ["Temporal_Self", "Temporal_Self"]
    cross_frame_attention_mode: Literal[None] = None
    temporal_position_encoding: bool = False
    temporal_position_encoding_max_len: Positive = 32
    temporal_attention_dim_div: Positive = 1
    zero_initialize: bool = True


class Network(Fields):
    use_motion_module: Literal[True]
    motion_module_resolutions: list[int] = [1, 2, 4, 8]
    motion_module_mid_block: bool = False
    motion_module_type: Literal["Vanilla"] = "Vanilla"
    motion_module_kwargs: dict = {}


class UNet(Network):
    """`unet_additional_kwargs`."""

    motion_module_decoder_only: bool = False
    use_inflated_groupnorm: bool = False
    unet_use_cross_frame_attention: Literal[False] = False
    unet_use_temporal_attention: Literal[False] = False


class Noise(Fields):
    """`noise_scheduler_kwargs`, with the defaults of DDIM."""

    num_train_timesteps: Positive = 1000
    beta_start: NotNegative = 0.0001
    beta_end: NotNegative = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    steps_offset: Annotated[int, Field(ge=0)] = 0
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"


INFERENCE: dict[str, type[Section]] = {"unet_additional_kwargs": UNet, "noise_scheduler_kwargs": Noise}
"""Sections of an `inference_config`."""


def check_sections(content: Any, sections: dict[str, type[Section]], file: str) -> dict[str, dict[str, Any]]:
    """The sections of an `inference_config` or `controlnet_config`, with every field; raises InputError."""
    content, made = read_sections(content, sections, file), {}
    for name, section in sections.items():
        fields = made[name] = section.check(content.get(name, {}), f"{file}, {name}: ")
        if (module := fields.get("motion_module_kwargs")) is not None:
            fields["motion_module_kwargs"] = MotionModule.check(module, f"{file}, motion_module_kwargs: ")
    return made
