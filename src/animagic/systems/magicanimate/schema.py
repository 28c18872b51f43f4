"""The published configurations of MagicAnimate: every field with its default, and what is refused.

Source of the names and defaults: magic-research/magic-animate, `configs/prompts/animation.yaml` and
`magicanimate/pipelines/animation.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from ...pipelines.options import Option
from ...weights.inference_config import Fields, NotNegative
from ...weights.original import Positive

Seed = Annotated[int, Field(ge=-1)]


class ConfigFields(Fields):
    """A configuration: weights, and pairs of pictures and videos of which every one becomes a video."""

    pretrained_model_path: str
    pretrained_vae_path: str = ""
    pretrained_controlnet_path: str
    pretrained_appearance_encoder_path: str
    pretrained_unet_path: str = ""
    motion_module: str
    savename: str = ""
    """Of the folder of results, which the command's own option names here."""
    fusion_blocks: Literal["midup", "full"] = "midup"
    seed: Seed | list[Seed] = -1
    steps: Positive = 25
    guidance_scale: NotNegative = 7.5
    source_image: list[str]
    video_path: list[str]
    inference_config: str = "configs/inference/inference.yaml"
    size: Positive = 512
    L: Positive = 16
    S: Positive = 1
    I: int = 0  # noqa: E741
    clip: int = 0
    """I and clip have no effect in the published code."""
    offset: Annotated[int, Field(ge=0)] = 0
    max_length: Positive | None = None
    video_type: Literal["condition"] = "condition"
    invert_video: Literal[False] = False
    save_individual_videos: bool = False
    """Results are single videos here, and one sheet of all."""

    @model_validator(mode="after")
    def _fits(self) -> ConfigFields:
        count = len(self.source_image)
        if not count:
            raise ValueError("source_image has none; give one at least.")
        if len(self.video_path) != count:
            raise ValueError(f"video_path has {len(self.video_path)}, source_image {count}; give one each.")
        if isinstance(self.seed, list) and len(self.seed) not in (1, count):
            raise ValueError(f"seed has {len(self.seed)}, source_image {count}; give one for all, or one each.")
        return self


class Options(Fields):
    """The options of the original command, and `--fp32`."""

    model_config = ConfigDict(alias_generator=lambda name: "--" + name.replace("_", "-"))

    fp32: Annotated[bool, Option("Weights in float32 on a GPU, too, as the original.")] = False
