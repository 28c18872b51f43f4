"""Poses of people: what they are, how they are found in a video, changed and drawn."""

from .skeleton import LANDMARKS, PART_COLOURS, PARTS, Poses

__all__ = ["LANDMARKS", "PARTS", "PART_COLOURS", "Poses"]
