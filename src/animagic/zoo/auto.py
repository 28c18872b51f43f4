"""One class that loads any network, whichever it is: by what its configuration says."""

from __future__ import annotations

import os
from typing import Any

import diffusers
from diffusers.configuration_utils import ConfigMixin

import animagic

from . import HUB, embedded

_HUB = (*HUB, "proxies")


class _Config(ConfigMixin):
    config_name = "config.json"


class AutoModel(diffusers.AutoModel):
    """diffusers' AutoModel, which knows the networks of this library as well, and the names of its models."""

    @classmethod
    def from_pretrained(cls, pretrained_model_or_path: Any = None, **kwargs: Any) -> Any:
        """Load a network by the name of an embedded model, from a folder or by hub id.

        Args:
            subfolder: which part of a pipeline ("transformer", "vae", ...).
            torch_dtype and others: passed on to the network's own `from_pretrained`. use_safetensors=None: read
                pickles, too.
        """
        source, kwargs = os.fspath(embedded(pretrained_model_or_path)), {"use_safetensors": True} | kwargs
        hub = {name: kwargs[name] for name in _HUB if name in kwargs}
        try:
            config = _Config.load_config(source, subfolder=kwargs.get("subfolder"), **hub)
        except OSError:
            config = {}  # diffusers says what is missing
        ours = _ours(config)
        if ours is not None:
            return ours.from_pretrained(source, **kwargs)
        return super().from_pretrained(source, **kwargs)

    @classmethod
    def from_config(cls, pretrained_model_name_or_path_or_dict: Any = None, **kwargs: Any) -> Any:
        """A network with random weights, from a configuration or from where one lies."""
        config = pretrained_model_name_or_path_or_dict
        if not isinstance(config, dict):
            hub = {name: kwargs[name] for name in (*_HUB, "subfolder") if name in kwargs}
            config = _Config.load_config(embedded(config), **hub)
        ours = _ours(config)
        if ours is not None:
            return ours.from_config(config)
        return super().from_config(config, **kwargs)


def _ours(config: dict[str, Any]) -> Any:
    """The class of this library that a configuration names, if it does."""
    name = config.get("_class_name")
    return getattr(animagic, name) if name in animagic.__all__ else None
