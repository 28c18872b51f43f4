"""Animagic: make video with diffusion models. Public names are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that has it. `import animagic` itself imports nothing heavy.
_HOMES = {
    "AnimateDiffPipeline": "animagic.systems.animatediff.pipeline",
    "AnimateDiffUNet": "animagic.systems.animatediff.unet",
    "AutoModel": "animagic.zoo.auto",
    "AutoencoderKLMagi1": "animagic.systems.magi1.autoencoder",
    "LivePrompt": "animagic.systems.magi1.live",
    "Magi1ImageToVideoPipeline": "animagic.systems.magi1.pipeline",
    "Magi1LoraLoaderMixin": "animagic.systems.magi1.lora",
    "Magi1Pipeline": "animagic.systems.magi1.pipeline",
    "Magi1SpecialTokens": "animagic.systems.magi1.prompts",
    "Magi1Transformer3DModel": "animagic.systems.magi1.transformer",
    "Magi1VideoToVideoPipeline": "animagic.systems.magi1.pipeline",
    "OverlappingWindows": "animagic.timeline",
    "SparseControlNet": "animagic.systems.animatediff.sparse",
    "Staircase": "animagic.timeline",
    "WholeClip": "animagic.timeline",
    "AnimagicError": "animagic.errors",
    "CheckpointError": "animagic.errors",
    "InputError": "animagic.errors",
    "MediaError": "animagic.errors",
    "load": "animagic.zoo",
    # diffusers looks for its base class beside ours when it loads a pipeline folder.
    "ModelMixin": "diffusers",
}
_MODULES = (
    "checkpoints",
    "evaluation",
    "hooks",
    "layers",
    "media",
    "synthetic",
    "systems",
    "timeline",
    "training",
    "utils",
    "zoo",
)

__all__ = [*_HOMES, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from .errors import AnimagicError, CheckpointError, InputError, MediaError
    from .zoo import load


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"animagic.{name}")
    raise AttributeError(f"module 'animagic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
