"""The published configuration files of MAGI-1: every field with its default, and what is refused.

The library honours a file as it is: a field either has its effect, or has none on one device, or is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from ...weights.original import NotNegative, Positive, Section, field, read_sections

_ONE_DEVICE = "this build runs on one device"
_NO_EFFECT = "has no effect: there is one process"


class ModelConfig(Section):
    """The transformer."""

    model_name: str = field("must be `videodit_ardf`", only=("videodit_ardf",))
    num_layers: Positive = field("blocks of the transformer")
    hidden_size: Positive = field("its width")
    ffn_hidden_size: Positive = field("width inside its feed-forward networks")
    num_attention_heads: Positive = field("query heads")
    num_query_groups: Positive = field("key/value heads, each shared by several query heads")
    kv_channels: Positive = field("values of a head")
    layernorm_epsilon: NotNegative = field("added to variances", 1e-6)
    apply_layernorm_1p: bool = field("must be true: norms are stored minus one", True, only=(True,))
    x_rescale_factor: float = field("the network's input times this, its output divided by it", 1.0)
    half_channel_vae: bool = field("true: the latent channels are given twice", False)
    params_dtype: str = field(
        "number format of the weights; what the original keeps in float32 stays so",
        "torch.bfloat16",
        only=("torch.bfloat16", "torch.float16", "torch.float32"),
    )
    patch_size: Positive = field("latent pixels of a token's side", 2)
    t_patch_size: int = field("must be 1", 1, only=(1,))
    in_channels: Positive = field("channels that the network takes")
    out_channels: Positive = field("channels that it gives")
    cond_hidden_ratio: NotNegative = field("width of the condition, as a part of `hidden_size`", 0.25)
    caption_channels: Positive = field("channels of the text encoder", 4096)
    caption_max_length: Positive = field("tokens of a prompt; what is longer is cut", 800)
    xattn_cond_hidden_ratio: float = field("must be 1", 1.0, only=(1,))
    cond_gating_ratio: float = field("must be 1", 1.0, only=(1,))
    gated_linear_unit: bool = field("true: SwiGLU instead of GELU", False)


class RuntimeConfig(Section):
    """Sampling, and where the weights are."""

    cfg_number: int = field(
        "3: guided by text and history; 1: one pass, as distilled models need",
        3,
        only=(1, 3),
        because="guidance takes three passes, or one with a distilled model",
    )
    cfg_t_range: list[NotNegative] = field("times from which the scales below hold", [0.0, 0.0217, 0.1, 0.3, 0.999])
    prev_chunk_scales: list[float] = field(
        "guidance by earlier chunks in each of these ranges", [1.5, 1.5, 1.5, 1.0, 1.0]
    )
    text_scales: list[float] = field("guidance by the text in each of them", [7.5, 7.5, 7.5, 0.0, 0.0])
    noise2clean_kvrange: list[Positive] = field(
        "chunks that a chunk sees, from noisy to clean; empty: all of them", [5, 4, 3, 2]
    )
    clean_chunk_kvrange: Annotated[int, Field(ge=-1)] = field(
        "chunks that a clean chunk sees; -1: as in the last step", 1
    )
    clean_t: NotNegative = field("the time at which clean chunks are read", 0.9999)
    seed: Annotated[int, Field(ge=0)] = field("of the noise; another one with `--set runtime_config.seed=7`", 1234)
    num_frames: Positive = field("new frames; exactly as many are made", 96)
    video_size_h: Positive = field("height in pixels", 720)
    video_size_w: Positive = field("width in pixels", 720)
    num_steps: Positive = field("denoising steps of a chunk", 64)
    window_size: Positive = field("chunks in flight", 4)
    fps: Positive = field("frames a second, of the video and of the clip that is read", 24)
    chunk_width: Positive = field("latent frames of a chunk", 6)
    load: str = field("folder of the transformer's weights")
    t5_pretrained: str = field("folder of the text encoder")
    t5_device: str = field(
        "where the text encoder runs, in float32",
        "cpu",
        only=("cpu", "cuda"),
    )
    vae_pretrained: str = field("folder of the autoencoder")
    scale_factor: float = field("latents times this", 0.18215)
    temporal_downsample_factor: int = field("must be 4: frames in a latent frame", 4, only=(4,))

    @model_validator(mode="after")
    def _fits(self) -> RuntimeConfig:
        tables = {name: len(getattr(self, name)) for name in ("cfg_t_range", "prev_chunk_scales", "text_scales")}
        if len(set(tables.values())) > 1 or not self.cfg_t_range:
            lengths = ", ".join(f"{name} has {length}" for name, length in tables.items())
            raise ValueError(
                f"cfg_t_range and the guidance tables must have as many entries each, and one at least: {lengths}."
            )
        if self.cfg_t_range != sorted(self.cfg_t_range):
            raise ValueError(f"cfg_t_range must increase, which {self.cfg_t_range} does not.")
        if self.clean_chunk_kvrange == 0:
            raise ValueError("clean_chunk_kvrange is 0; give the chunks that a clean chunk sees, or -1.")
        if self.num_steps < self.window_size:
            raise ValueError(
                f"num_steps is {self.num_steps}; at least {self.window_size} are needed, one for each chunk of "
                "window_size."
            )
        return self


class EngineConfig(Section):
    """How it is computed."""

    distributed_backend: str = field(_NO_EFFECT, "nccl", only=("nccl", "gloo"))
    distributed_timeout_minutes: Positive = field(_NO_EFFECT, 10)
    pp_size: int = field("must be 1: runs on one device", 1, only=(1,), because=_ONE_DEVICE)
    cp_size: int = field("must be 1: runs on one device", 1, only=(1,), because=_ONE_DEVICE)
    cp_strategy: str = field(_NO_EFFECT, "none", only=("none", "cp_ulysses", "cp_shuffle_overlap"))
    ulysses_overlap_degree: Positive = field(_NO_EFFECT, 1)
    fp8_quant: bool = field("true: `load` holds FP8 weights", False)
    distill_nearly_clean_chunk_threshold: NotNegative = field(
        "with `cfg_number` 1: from this time on a chunk is seen once more alone", 0.3
    )
    shortcut_mode: str = field(
        "how 12 steps are spread",
        "8,16,16",
        only=("8,16,16", "16,16,8"),
    )
    distill: bool = field("true: the network is told the size of its steps", False)
    kv_offload: bool = field(
        "true: keys and values of earlier chunks wait in the host's memory; nothing to do without a GPU", False
    )
    enable_cuda_graph: bool = field(
        "must be false",
        False,
        only=(False,),
        because="calls are not recorded as CUDA graphs; compile the transformer in Python instead",
    )


SECTIONS: dict[str, type[Section]] = {
    "model_config": ModelConfig,
    "runtime_config": RuntimeConfig,
    "engine_config": EngineConfig,
}


def check_config(given: Mapping[str, Any], source: str = "the configuration") -> dict[str, dict[str, Any]]:
    """The configuration with the default of every field that it leaves out; raises InputError for what cannot be."""
    fields = read_sections(given, SECTIONS, source)
    return {name: section.check(fields.get(name, {}), source, name) for name, section in SECTIONS.items()}
