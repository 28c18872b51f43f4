"""The published inference files of AnimateDiff: every field with its default, and what is refused.

Source of the names and defaults: guoyww/AnimateDiff, `scripts/animate.py` and its `configs`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ...pipelines.options import Option
from ...weights.original import Positive, Section, YamlNumber, read_sections
from ...wording import annotations_of

Seed = Annotated[int, Field(ge=-1)]
NotNegative = Annotated[YamlNumber, Field(ge=0)]


class _Fields(Section):
    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        known = annotations_of(cls)
        return {name: value for name, value in given.items() if value is not None or name not in known}


class EntryFields(_Fields):
    """An entry: weights, and prompts of which every one becomes a video."""

    motion_module: str
    inference_config: str = ""
    dreambooth_path: str = ""
    lora_model_path: str = ""
    lora_alpha: YamlNumber = 0.8
    adapter_lora_path: str = ""
    adapter_lora_scale: YamlNumber = 1.0
    domain_lora_scale: YamlNumber = Field(1.0, exclude=True)
    motion_module_lora_configs: list[dict] = []
    controlnet_path: str = ""
    controlnet_config: str = ""
    controlnet_images: str | list[str] = []
    controlnet_image_indexs: list[int] = [0]
    normalize_condition_images: bool = False
    prompt: list[str]
    n_prompt: list[str]
    seed: Seed | list[Seed] = -1
    steps: Positive
    guidance_scale: NotNegative
    L: Positive | None = None
    W: Positive | None = None
    H: Positive | None = None
    random_seed: int | list[int] = []
    """The original notes here which seeds it used."""

    @model_validator(mode="after")
    def _fits(self) -> EntryFields:
        if not self.motion_module:
            raise ValueError("motion_module is empty; name its file.")
        count = len(self.prompt)
        if not count:
            raise ValueError("prompt has none; give one at least.")
        for i, prompt in enumerate(self.prompt):
            if not prompt.strip():
                raise ValueError(f"prompt {i} is empty; say what the video should show.")
        for name in ("n_prompt", "seed"):
            values = getattr(self, name)
            given = len(values) if isinstance(values, list) else 1
            if given not in (1, count):
                raise ValueError(f"{name} has {given} values, prompt has {count}; give one for all, or one each.")
        if "domain_lora_scale" in self.model_fields_set and "adapter_lora_scale" not in self.model_fields_set:
            self.adapter_lora_scale = self.domain_lora_scale
        if isinstance(self.controlnet_images, str):
            self.controlnet_images = [self.controlnet_images]
        if self.controlnet_path:
            self._check_controls()
        return self

    def _check_controls(self) -> None:
        for name in ("controlnet_config", "controlnet_images"):
            if not getattr(self, name):
                raise ValueError(f"controlnet_path needs {name}, too.")
        images, frames = len(self.controlnet_images), len(self.controlnet_image_indexs)
        if images != frames:
            raise ValueError(f"controlnet_images has {images}, controlnet_image_indexs {frames}; give one each.")


class MotionLora(_Fields):
    """One of an entry's `motion_module_lora_configs`."""

    path: str
    alpha: YamlNumber


class Options(_Fields):
    """The options of the original command, and `--fp32`."""

    model_config = ConfigDict(alias_generator=lambda name: "--" + name.replace("_", "-"))

    pretrained_model_path: Annotated[
        str, Option("Stable Diffusion 1.5: folder or hub id; default: where the original has it.")
    ] = ""
    inference_config: Annotated[str, Option("For entries without one.")] = "configs/inference/inference-v1.yaml"
    L: Annotated[Positive, Option("Frames, for entries without L.")] = 16
    W: Annotated[Positive, Option("Width, for entries without W.")] = 512
    H: Annotated[Positive, Option("Height, for entries without H.")] = 512
    without_xformers: Annotated[bool, Option("No effect: attention is PyTorch's own.")] = False
    fp32: Annotated[bool, Option("Weights in float32 on a GPU, too, as the original.")] = False


class MotionModule(_Fields):
    """`motion_module_kwargs`."""

    num_attention_heads: Positive = 8
    num_transformer_block: Positive = 2
    attention_block_types: list[str] = ["Temporal_Self", "Temporal_Self"]
    cross_frame_attention_mode: Literal[None] = None
    temporal_position_encoding: bool = False
    temporal_position_encoding_max_len: Positive = 32
    temporal_attention_dim_div: Positive = 1
    zero_initialize: bool = True


class _Network(_Fields):
    use_motion_module: Literal[True]
    motion_module_resolutions: list[int] = [1, 2, 4, 8]
    motion_module_mid_block: bool = False
    motion_module_type: Literal["Vanilla"] = "Vanilla"
    motion_module_kwargs: dict = {}


class UNet(_Network):
    """`unet_additional_kwargs`."""

    motion_module_decoder_only: bool = False
    use_inflated_groupnorm: bool = False
    unet_use_cross_frame_attention: Literal[False] = False
    unet_use_temporal_attention: Literal[False] = False


class Noise(_Fields):
    """`noise_scheduler_kwargs`, with the defaults of DDIM."""

    num_train_timesteps: Positive = 1000
    beta_start: NotNegative = 0.0001
    beta_end: NotNegative = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    steps_offset: Annotated[int, Field(ge=0)] = 0
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"


class SparseControl(_Network):
    """`controlnet_additional_kwargs`."""

    use_motion_module: Literal[True] = True
    motion_module_kwargs: dict = {
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self"],
        "temporal_position_encoding": True,
    }
    set_noisy_sample_input_to_zero: bool = False
    use_simplified_condition_embedding: bool = False
    conditioning_channels: Positive = 3
    concate_conditioning_mask: bool = True


INFERENCE: dict[str, type[Section]] = {"unet_additional_kwargs": UNet, "noise_scheduler_kwargs": Noise}
"""Sections of an `inference_config`."""
CONTROLNET: dict[str, type[Section]] = {"controlnet_additional_kwargs": SparseControl}
"""Sections of a `controlnet_config`."""


def check_sections(content: Any, sections: dict[str, type[Section]], file: str) -> dict[str, dict[str, Any]]:
    """The sections of an `inference_config` or `controlnet_config`, with every field; raises InputError."""
    content, made = read_sections(content, sections, file), {}
    for name, section in sections.items():
        fields = made[name] = section.check(content.get(name, {}), f"{file}, {name}: ")
        if (module := fields.get("motion_module_kwargs")) is not None:
            fields["motion_module_kwargs"] = MotionModule.check(module, f"{file}, motion_module_kwargs: ")
    return made
