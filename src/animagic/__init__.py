"""Animagic: make video with diffusion models. Public names are imported when they are first used."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from . import mirror
from .systems import public_classes

__version__ = "0.1.0"

# Public name -> the module that has it; those of a system are in its row of `systems.SYSTEMS`. `import animagic` itself
# imports nothing heavy.
_HOMES = {
    "AsyncClient": "animagic.client",
    "AutoModel": "animagic.zoo.auto",
    "Client": "animagic.client",
    "ConvAutoencoder": "animagic.layers.autoencoder",
    "MovingFront": "animagic.timeline",
    "OverlappingWindows": "animagic.timeline",
    "ShiftingWindow": "animagic.timeline",
    "Staircase": "animagic.timeline",
    "WholeClip": "animagic.timeline",
    "AnimagicError": "animagic.errors",
    "CheckpointError": "animagic.errors",
    "InputError": "animagic.errors",
    "MediaError": "animagic.errors",
    "LivePrompt": "animagic.pipelines.text",
    "load": "animagic.zoo",
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

__all__ = [*_HOMES, *public_classes(), *_MODULES, "__version__"]

mirror.install()
_of_diffusers = mirror.names_of("diffusers")

if TYPE_CHECKING:
    from .client import AsyncClient, Client
    from .errors import AnimagicError, CheckpointError, InputError, MediaError
    from .zoo import load


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if (system := public_classes().get(name)) is not None:
        return system.get(system.classes[name])
    if name in _MODULES or (not name.startswith("_") and find_spec(f"animagic.{name}") is not None):
        return importlib.import_module(f"animagic.{name}")
    return _of_diffusers(name)


def __dir__() -> list[str]:
    return sorted(__all__)
