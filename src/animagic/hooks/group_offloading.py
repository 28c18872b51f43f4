"""Group offloading, as in diffusers."""

from diffusers.hooks.group_offloading import apply_group_offloading

__all__ = ["apply_group_offloading"]
