"""The published configuration files of MAGI-1: every field with its default, and which values are honoured.

The library honours a file as it is: a field has its effect, or has none on one device, or is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...weights.original import NotNegative, Positive, Section, read_sections


class ModelConfig(Section):
    """The transformer."""

    model_name: Literal["videodit_ardf"]
    num_layers: Positive
    hidden_size: Positive
    ffn_hidden_size: Positive
    num_attention_heads: Positive
    num_query_groups: Positive
    kv_channels: Positive
    layernorm_epsilon: NotNegative = 1e-6
    apply_layernorm_1p: Literal[True] = True
    x_rescale_factor: float = 1.0
    half_channel_vae: bool = False
    params_dtype: Literal["torch.bfloat16", "torch.float16", "torch.float32"] = "torch.bfloat16"
    patch_size: Positive = 2
    t_patch_size: Literal[1] = 1
    in_channels: Positive = 16
    out_channels: Positive = 16
    cond_hidden_ratio: NotNegative = 0.25
    caption_channels: Positive = 4096
    caption_max_length: Positive = 800
    xattn_cond_hidden_ratio: Literal[1] = 1
    cond_gating_ratio: Literal[1] = 1
    gated_linear_unit: bool = False


class RuntimeSampling(Section):
    """Of `runtime_config`, how a video is sampled."""

    cfg_number: Annotated[Literal[1, 3], "guidance takes three passes, or one with a distilled model"] = 3
    cfg_t_range: list[NotNegative] = [0.0, 0.0217, 0.1, 0.3, 0.999]
    prev_chunk_scales: list[float] = [1.5, 1.5, 1.5, 1.0, 1.0]
    text_scales: list[float] = [7.5, 7.5, 7.5, 0.0, 0.0]
    noise2clean_kvrange: list[Positive] = [5, 4, 3, 2]
    clean_chunk_kvrange: Annotated[int, Field(ge=-1)] = 1
    clean_t: NotNegative = 0.9999
    seed: Annotated[int, Field(ge=0)] = 1234
    num_frames: Positive = 96
    video_size_h: Positive = 720
    video_size_w: Positive = 720
    num_steps: Positive = 64
    window_size: Positive = 4
    fps: Positive = 24
    chunk_width: Positive = 6
    scale_factor: float = 0.18215
    temporal_downsample_factor: Literal[4] = 4

    @model_validator(mode="after")
    def _fits(self) -> RuntimeSampling:
        lengths = {name: len(getattr(self, name)) for name in ("cfg_t_range", "prev_chunk_scales", "text_scales")}
        if len(set(lengths.values())) > 1 or not self.cfg_t_range:
            said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(f"cfg_t_range and the guidance tables need as many entries each, one at least: {said}.")
        if self.cfg_t_range != sorted(self.cfg_t_range):
            raise ValueError(f"cfg_t_range must increase, which {self.cfg_t_range} does not.")
        if self.clean_chunk_kvrange == 0:
            raise ValueError("clean_chunk_kvrange is 0; give the chunks that a clean chunk sees, or -1.")
        if self.num_steps < self.window_size:
            least = f"at least {self.window_size} are needed, one for each chunk of window_size"
            raise ValueError(f"num_steps is {self.num_steps}; {least}.")
        return self


class RuntimeConfig(RuntimeSampling):
    """Sampling, and where the weights are."""

    load: str
    t5_pretrained: str
    t5_device: Literal["cpu", "cuda"] = "cpu"
    vae_pretrained: str


class EngineSampling(Section):
    """Of `engine_config`, how a video is sampled."""

    distill_nearly_clean_chunk_threshold: NotNegative = 0.3
    shortcut_mode: Literal["8,16,16", "16,16,8"] = "8,16,16"
    distill: bool = False


class EngineConfig(EngineSampling):
    """How it is computed."""

    distributed_backend: Literal["nccl", "gloo"] = "nccl"
    distributed_timeout_minutes: Positive = 10
    pp_size: Annotated[Literal[1], "this build runs on one device (--set engine_config.pp_size=1)"] = 1
    cp_size: Annotated[Literal[1], "this build runs on one device (--set engine_config.cp_size=1)"] = 1
    cp_strategy: Literal["none", "cp_ulysses", "cp_shuffle_overlap"] = "none"
    ulysses_overlap_degree: Positive = 1
    fp8_quant: bool = False
    kv_offload: bool = False
    enable_cuda_graph: Annotated[
        Literal[False],
        "calls are not recorded as CUDA graphs (--set engine_config.enable_cuda_graph=false); in Python, the "
        "transformer can be compiled",
    ] = False


SECTIONS: dict[str, type[Section]] = {
    "model_config": ModelConfig,
    "runtime_config": RuntimeConfig,
    "engine_config": EngineConfig,
}


def check_config(given: Mapping[str, Any], source: str = "the configuration") -> dict[str, dict[str, Any]]:
    """The configuration with the default of every field that it leaves out; raises InputError for what cannot be."""
    fields = read_sections(given, SECTIONS, source)
    return {name: section.check(fields.get(name, {}), f"{source}: {name}.") for name, section in SECTIONS.items()}
