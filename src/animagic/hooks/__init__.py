"""Hooks on networks: those of diffusers, under the names that its pages use."""

from diffusers.hooks import apply_group_offloading, apply_layerwise_casting

from ..mirror import names_of

__all__ = ["apply_group_offloading", "apply_layerwise_casting"]

__getattr__ = names_of("diffusers.hooks")
