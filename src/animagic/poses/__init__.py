"""Poses of people: what they are, how they are found in a video, changed and drawn."""

from .drawing import draw_parts, draw_skeleton, overlay, part_map
from .skeleton import LANDMARKS, PART_COLOURS, PARTS, Poses

__all__ = ["LANDMARKS", "PARTS", "PART_COLOURS", "Poses", "draw_parts", "draw_skeleton", "overlay", "part_map"]
