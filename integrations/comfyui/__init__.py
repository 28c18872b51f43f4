"""Nodes of Animagic for ComfyUI, in its V3 contract."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
