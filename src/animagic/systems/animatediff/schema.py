"""The published inference files of AnimateDiff: every field with its default, and what is refused.

Source of the names and defaults: guoyww/AnimateDiff, `scripts/animate.py` and its `configs`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ...weights.original import Positive, Section, YamlNumber, field, read_sections

Seed = Annotated[int, Field(ge=-1)]
NotNegative = Annotated[YamlNumber, Field(ge=0)]


class _Fields(Section):
    null_is_absent = True


class EntryFields(_Fields):
    """An entry: weights, and prompts of which every one becomes a video."""

    motion_module: str = field("file of the motion module; a list of them: the entry once for each")
    inference_config: str = field("file that describes the UNet and the noise; `--inference-config`", "")
    dreambooth_path: str = field(
        "file whose UNet, autoencoder and text encoder replace the base model's; empty: none", ""
    )
    lora_model_path: str = field("file of a LoRA of the base model; empty: none", "")
    lora_alpha: YamlNumber = field("its weight; alphas inside the file have no effect, as in the original", 0.8)
    adapter_lora_path: str = field("file of the domain adapter of v3; empty: none", "")
    adapter_lora_scale: YamlNumber = field("its weight", 1.0)
    domain_lora_scale: YamlNumber = field("an older name of `adapter_lora_scale`", 1.0, exclude=True)
    motion_module_lora_configs: list[dict] = field("MotionLoRAs, each with its `path` and its `alpha`", [])
    controlnet_path: str = field("file of a SparseCtrl network; empty: none", "")
    controlnet_config: str = field("file that describes it", "")
    controlnet_images: str | list[str] = field("pictures that frames are kept to", [])
    controlnet_image_indexs: list[int] = field("the frame of each of them; negative ones count from the end", [0])
    normalize_condition_images: bool = field("true: pictures become grey, from black to white", False)
    prompt: list[str] = field("what to show; a video each")
    n_prompt: list[str] = field("what not to show: one for all prompts or one each")
    seed: Seed | list[Seed] = field("one for all prompts or one each; -1: a new one", -1)
    steps: Positive = field("denoising steps")
    guidance_scale: NotNegative = field("how strongly prompts are followed")
    L: Positive | None = field("frames; `--L`", None)
    W: Positive | None = field("width in pixels; `--W`", None)
    H: Positive | None = field("height in pixels; `--H`", None)
    random_seed: int | list[int] = field("no effect: the original notes here which seeds it used", [])

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

    path: str = field("its file")
    alpha: YamlNumber = field("its weight")


class Options(_Fields):
    """The original command's options; `--fp32` is ours."""

    model_config = ConfigDict(alias_generator=lambda name: "--" + name.replace("_", "-"))

    pretrained_model_path: str = field("folder or hub id of the base model", "")
    inference_config: str = field("for entries without `inference_config`", "configs/inference/inference-v1.yaml")
    L: Positive = field("for entries without `L`", 16)
    W: Positive = field("for entries without `W`", 512)
    H: Positive = field("for entries without `H`", 512)
    fp32: bool = field("weights are float32 on a GPU, too", False)


class MotionModule(_Fields):
    """`motion_module_kwargs`."""

    num_attention_heads: Positive = field("heads of each attention", 8)
    num_transformer_block: Positive = field("transformer blocks of a motion module", 2)
    attention_block_types: list[str] = field(
        "attentions of a block: `Temporal_Self`, `Temporal_Cross`", ["Temporal_Self"] * 2
    )
    cross_frame_attention_mode: str | None = field("must be left out", None)
    temporal_position_encoding: bool = field("whether frames know their place", False)
    temporal_position_encoding_max_len: Positive = field("the most frames that a window may have", 32)
    temporal_attention_dim_div: Positive = field("how much narrower it is than the UNet", 1)
    zero_initialize: bool = field("no effect: that is how training begins", True)


class _Network(_Fields):
    use_motion_module: bool = field("must be true", False)
    motion_module_resolutions: list[int] = field(
        "levels with motion modules, by how much smaller they are than the latents", [1, 2, 4, 8]
    )
    motion_module_mid_block: bool = field("one more in the middle (v2)", False)
    motion_module_type: str = field("must be `Vanilla`", "Vanilla")
    motion_module_kwargs: dict = field("the next table", {})


class UNet(_Network):
    """`unet_additional_kwargs`."""

    motion_module_decoder_only: bool = field("none on the way down", False)
    use_inflated_groupnorm: bool = field("true: norms of single frames; false: of all frames together (v1)", False)
    unet_use_cross_frame_attention: bool = field("must be false", False)
    unet_use_temporal_attention: bool = field("must be false", False)


class Noise(_Fields):
    """`noise_scheduler_kwargs`, with the defaults of DDIM."""

    num_train_timesteps: Positive = field("levels of noise in training", 1000)
    beta_start: NotNegative = field("noise of the first", 0.0001)
    beta_end: NotNegative = field("noise of the last", 0.02)
    beta_schedule: str = field(
        "how it grows between",
        "linear",
        only=("linear", "scaled_linear", "squaredcos_cap_v2"),
    )
    steps_offset: Annotated[int, Field(ge=0)] = field("added to every timestep", 0)
    clip_sample: bool = field("whether clean latents are clipped to -1..1", True)
    set_alpha_to_one: bool = field("whether the last step ends without any noise", True)
    prediction_type: str = field(
        "what the UNet predicts",
        "epsilon",
        only=("epsilon", "sample", "v_prediction"),
    )


class SparseControl(_Network):
    """`controlnet_additional_kwargs`."""

    use_motion_module: bool = field("must be true", True)
    motion_module_kwargs: dict = field(
        "as above, with one `Temporal_Self`",
        {"num_transformer_block": 1, "attention_block_types": ["Temporal_Self"], "temporal_position_encoding": True},
    )
    set_noisy_sample_input_to_zero: bool = field("true: it does not see the noisy latents", False)
    use_simplified_condition_embedding: bool = field(
        "true: it reads latents of pictures (RGB); false: pixels (scribble)", False
    )
    conditioning_channels: Positive = field("of those: 4 or 3", 3)
    concate_conditioning_mask: bool = field("whether it is shown which frames have a picture", True)


INFERENCE: dict[str, type[Section]] = {"unet_additional_kwargs": UNet, "noise_scheduler_kwargs": Noise}
"""Sections of an `inference_config`."""
CONTROLNET: dict[str, type[Section]] = {"controlnet_additional_kwargs": SparseControl}
"""Sections of a `controlnet_config`."""


def check_sections(content: Any, sections: dict[str, type[Section]], file: str) -> dict[str, dict[str, Any]]:
    """The sections of an `inference_config` or `controlnet_config`, with every field; raises InputError."""
    content, made = read_sections(content, sections, file), {}
    for name, section in sections.items():
        fields = made[name] = section.check(content.get(name, {}), f"{file}, {name}")
        if (module := fields.get("motion_module_kwargs")) is not None:
            fields["motion_module_kwargs"] = MotionModule.check(module, f"{file}, motion_module_kwargs")
    return made
