"""MAGI-1's networks from the original configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .autoencoder import AutoencoderKLMagi1
from .transformer import Magi1Transformer3DModel

# Fields that say nothing about the shape of the network, and what they must be.
_FIXED = {"model_name": ("videodit_ardf",), "apply_layernorm_1p": (True,)}
_IGNORED = {"params_dtype"}


def transformer_from_config(config: Mapping[str, Any]) -> Magi1Transformer3DModel:
    """The transformer of an original JSON; raises InputError for a field that is not known or not supported."""
    if "model_config" not in config:
        raise InputError("the MAGI-1 configuration lacks model_config.")
    fields = dict(config["model_config"])
    for name, allowed in _FIXED.items():
        value = fields.pop(name, allowed[0])
        if value not in allowed:
            raise InputError(f"{name} is {value!r}; only {allowed[0]!r} is known.")
    for name in _IGNORED:
        fields.pop(name, None)
    fields["chunk_width"] = config.get("runtime_config", {}).get("chunk_width", 6)
    fields["fp8"] = config.get("engine_config", {}).get("fp8_quant", False)
    return _build(Magi1Transformer3DModel, fields)


def autoencoder_from_config(config: Mapping[str, Any]) -> AutoencoderKLMagi1:
    """The autoencoder of an original `ddconfig`."""
    return _build(AutoencoderKLMagi1, dict(config.get("ddconfig", config)))


def _build(network: Any, fields: dict[str, Any]) -> Any:
    import inspect

    unknown = set(fields) - set(inspect.signature(network.__init__).parameters)
    if unknown:
        raise InputError(f"the configuration has an unknown field {sorted(unknown)[0]!r}.")
    return network(**fields)
