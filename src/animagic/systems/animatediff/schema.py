"""The published inference files of AnimateDiff: every field with its default, and what is refused.

Source of the names and defaults: guoyww/AnimateDiff, `scripts/animate.py` and its `configs`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from ...pipelines.options import Option
from ...weights.inference_config import Fields, Network, NotNegative
from ...weights.original import Positive, Section, YamlNumber

Seed = Annotated[int, Field(ge=-1)]


class EntryFields(Fields):
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


class MotionLora(Fields):
    """One of an entry's `motion_module_lora_configs`."""

    path: str
    alpha: YamlNumber


class Options(Fields):
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


class SparseControl(Network):
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


CONTROLNET: dict[str, type[Section]] = {"controlnet_additional_kwargs": SparseControl}
"""Sections of a `controlnet_config`."""
