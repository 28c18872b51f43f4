"""What a pose is: 33 landmarks of a body, and the 24 parts of its surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LANDMARKS = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb",
    "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_heel",
    "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
"""The landmarks of BlazePose (arXiv 2006.10204) in its order. Left and right are the person's own."""

PARTS = (
    "background", "torso_back", "torso_front", "right_hand", "left_hand", "left_foot", "right_foot",
    "right_upper_leg_back", "left_upper_leg_back", "right_upper_leg_front", "left_upper_leg_front",
    "right_lower_leg_back", "left_lower_leg_back", "right_lower_leg_front", "left_lower_leg_front",
    "left_upper_arm_inner", "right_upper_arm_inner", "left_upper_arm_outer", "right_upper_arm_outer",
    "left_lower_arm_inner", "right_lower_arm_inner", "left_lower_arm_outer", "right_lower_arm_outer", "head_right",
    "head_left",
)  # fmt: skip
"""The parts of DensePose (arXiv 1802.00434) by their number in a part map."""

PART_COLOURS = np.array(
    [
        (68, 1, 84),
        (71, 17, 100),
        (72, 31, 112),
        (71, 45, 123),
        (68, 57, 131),
        (64, 70, 136),
        (59, 82, 139),
        (54, 93, 141),
        (49, 104, 142),
        (44, 114, 142),
        (40, 124, 142),
        (36, 134, 142),
        (33, 145, 140),
        (31, 154, 138),
        (32, 164, 134),
        (39, 173, 129),
        (53, 183, 121),
        (72, 193, 110),
        (92, 200, 99),
        (117, 208, 84),
        (142, 214, 69),
        (170, 220, 50),
        (200, 224, 32),
        (226, 228, 24),
        (253, 231, 37),
    ],
    np.uint8,
)
"""(25, 3): the colours of a DensePose video, viridis from the background (0) to the last part."""


@dataclass(frozen=True, slots=True)
class Poses:
    """The people of a video, frame by frame.

    points: float32 (frames, people, 33, 3): x and y in pixels from the top left corner, and depth in pixels, of which
    only differences within a person count; smaller is nearer to the camera. confidence: float32 (frames, people, 33),
    0 to 1; 0: not seen, its point means nothing. height, width: of the frames, in pixels.
    """

    points: np.ndarray
    confidence: np.ndarray
    height: int
    width: int
    fps: float
