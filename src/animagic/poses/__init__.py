"""Poses of people: what they are, how they are found in a video, changed and drawn."""

from .cleaning import smoothed
from .drawing import draw_parts, draw_skeleton, overlay, part_map
from .extraction import extract_poses
from .files import from_json, to_json
from .recognition import is_pose_video
from .retargeting import retargeted
from .skeleton import LANDMARKS, PART_COLOURS, PARTS, Poses

__all__ = [
    "LANDMARKS",
    "PARTS",
    "PART_COLOURS",
    "Poses",
    "draw_parts",
    "draw_skeleton",
    "extract_poses",
    "from_json",
    "is_pose_video",
    "overlay",
    "part_map",
    "retargeted",
    "smoothed",
    "to_json",
]
