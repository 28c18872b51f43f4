"""The six published models of MAGI-1: their configurations, in the form of the original JSON files."""

from __future__ import annotations

from typing import Any

from ...errors import InputError
from .schema import EngineConfig, ModelConfig, RuntimeConfig

_NETWORKS = {
    "4.5B": {"num_layers": 34, "hidden_size": 3072, "ffn_hidden_size": 12288, "num_attention_heads": 24},
    "24B": {"num_layers": 48, "hidden_size": 6144, "ffn_hidden_size": 16384, "num_attention_heads": 48},
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
    large, distilled, channels = size == "24B", kind != "base", 32 if size == "24B" else 16
    network = {"model_name": "videodit_ardf", "num_query_groups": 8, "kv_channels": 128, **_NETWORKS[size]}
    network |= {
        "in_channels": channels,
        "out_channels": channels,
        "half_channel_vae": large,
        "gated_linear_unit": large,
    }
    return {
        "model_config": ModelConfig.defaults() | network | ({"x_rescale_factor": 0.1} if large else {}),
        "runtime_config": {
            **RuntimeConfig.defaults(),
            "cfg_number": 1 if distilled else 3,
            "video_size_w": 1280 if large else 720,
            "num_steps": _STEPS[size]["distill" if distilled else "base"],
            "load": f"./downloads/{name}",
            "t5_pretrained": "./downloads/t5_pretrained",
            "t5_device": "cuda" if large else "cpu",
            "vae_pretrained": "./downloads/vae",
        },
        "engine_config": {
            **EngineConfig.defaults(),
            "distributed_timeout_minutes": 15,
            "cp_size": 8 if large else 1,
            "cp_strategy": "cp_ulysses",
            "fp8_quant": kind == "distill_quant",
            "distill": distilled,
            "kv_offload": True,
        },
    }
