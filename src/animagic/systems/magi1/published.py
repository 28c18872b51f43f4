"""The six published models of MAGI-1: their configurations, in the form of the original JSON files."""

from __future__ import annotations

from typing import Any

from ...errors import InputError

_NETWORKS: dict[str, dict[str, Any]] = {
    "4.5B": {
        "num_layers": 34,
        "hidden_size": 3072,
        "ffn_hidden_size": 12288,
        "num_attention_heads": 24,
        "x_rescale_factor": 1,
        "half_channel_vae": False,
        "in_channels": 16,
        "out_channels": 16,
        "gated_linear_unit": False,
    },
    "24B": {
        "num_layers": 48,
        "hidden_size": 6144,
        "ffn_hidden_size": 16384,
        "num_attention_heads": 48,
        "x_rescale_factor": 0.1,
        "half_channel_vae": True,
        "in_channels": 32,
        "out_channels": 32,
        "gated_linear_unit": True,
    },
}
_STEPS = {"4.5B": {"base": 64, "distill": 64}, "24B": {"base": 32, "distill": 16}}

NAMES = tuple(f"{size}_{kind}" for size in ("4.5B", "24B") for kind in ("base", "distill", "distill_quant"))


def config_of(name: str) -> dict[str, Any]:
    """The original JSON of a published model, as a dict of its own.

    Args:
        name: one of NAMES; "magi1-4.5b", "magi1-24b-distill" and the like are understood too.
    Raises: InputError for another name.
    """
    wanted = name.lower().removeprefix("magi1-").removeprefix("magi-1-").replace("-", "_")
    known = {other.lower(): other for other in NAMES} | {"4.5b": "4.5B_base", "24b": "24B_base"}
    if wanted not in known:
        raise InputError(f"there is no published model {name!r} of MAGI-1; choose from {', '.join(NAMES)}.")
    name = known[wanted]
    size, _, kind = name.partition("_")
    distilled = kind != "base"
    return {
        "model_config": {
            "model_name": "videodit_ardf",
            "num_query_groups": 8,
            "kv_channels": 128,
            "layernorm_epsilon": 1e-6,
            "apply_layernorm_1p": True,
            "params_dtype": "torch.bfloat16",
            "patch_size": 2,
            "t_patch_size": 1,
            "cond_hidden_ratio": 0.25,
            "caption_channels": 4096,
            "caption_max_length": 800,
            "xattn_cond_hidden_ratio": 1.0,
            "cond_gating_ratio": 1.0,
            **_NETWORKS[size],
        },
        "runtime_config": {
            "cfg_number": 1 if distilled else 3,
            "cfg_t_range": [0.0, 0.0217, 0.1, 0.3, 0.999],
            "prev_chunk_scales": [1.5, 1.5, 1.5, 1.0, 1.0],
            "text_scales": [7.5, 7.5, 7.5, 0.0, 0.0],
            "noise2clean_kvrange": [5, 4, 3, 2],
            "clean_chunk_kvrange": 1,
            "clean_t": 0.9999,
            "seed": 1234,
            "num_frames": 96,
            "video_size_h": 720,
            "video_size_w": 720 if size == "4.5B" else 1280,
            "num_steps": _STEPS[size]["distill" if distilled else "base"],
            "window_size": 4,
            "fps": 24,
            "chunk_width": 6,
            "load": f"./downloads/{name}",
            "t5_pretrained": "./downloads/t5_pretrained",
            "t5_device": "cpu" if size == "4.5B" else "cuda",
            "vae_pretrained": "./downloads/vae",
            "scale_factor": 0.18215,
            "temporal_downsample_factor": 4,
        },
        "engine_config": {
            "distributed_backend": "nccl",
            "distributed_timeout_minutes": 15,
            "pp_size": 1,
            "cp_size": 1 if size == "4.5B" else 8,
            "cp_strategy": "cp_ulysses",
            "ulysses_overlap_degree": 1,
            "fp8_quant": kind == "distill_quant",
            "distill_nearly_clean_chunk_threshold": 0.3,
            "shortcut_mode": "8,16,16",
            "distill": distilled,
            "kv_offload": True,
            "enable_cuda_graph": False,
        },
    }
