"""Motions that are composed of swings, as data."""

from __future__ import annotations

# joint: (axis, mean degrees, swing in degrees, cycles in one loop, phase in cycles); several are multiplied in order.
# Turns about x to the back for what hangs down and to the front for what stands up; about z to the left for what hangs.
_Term = tuple[str, str, float, float, float, float]
COMPOSED: dict[str, tuple[float, tuple[_Term, ...]]] = {
    "sway": (2.4, (
        ("pelvis", "z", 0, 5, 1, 0), ("spine", "z", 0, 5, 1, 0.5), ("chest", "y", 0, 8, 1, 0.2),
        ("head", "z", 0, 5, 1, 0.1), ("left_shoulder", "z", 14, 5, 1, 0.1), ("right_shoulder", "z", -14, 5, 1, 0.1),
        ("left_elbow", "x", -24, 8, 1, 0.3), ("right_elbow", "x", -24, 8, 1, 0.8),
        ("left_hip", "z", 0, 5, 1, 0.5), ("right_hip", "z", 0, 5, 1, 0.5),
    )),
    "wave": (1.6, (
        ("left_shoulder", "z", 95, 6, 1, 0), ("left_shoulder", "x", -80, 0, 0, 0), ("left_elbow", "x", -62, 30, 2, 0),
        ("right_shoulder", "z", -10, 2, 1, 0), ("right_elbow", "x", -18, 4, 1, 0), ("head", "z", -4, 4, 1, 0.3),
        ("spine", "z", 0, 3, 1, 0),
    )),
    "wave_both": (1.5, (
        ("left_shoulder", "z", 110, 16, 1, 0), ("left_shoulder", "x", -75, 0, 0, 0),
        ("left_elbow", "x", -35, 22, 1, 0.1),
        ("right_shoulder", "z", -110, 16, 1, 0), ("right_shoulder", "x", -75, 0, 0, 0),
        ("right_elbow", "x", -35, 22, 1, 0.6), ("spine", "z", 0, 6, 1, 0),
    )),
    "squat": (2.2, (
        ("left_hip", "x", -45, 45, 1, 0.25), ("right_hip", "x", -45, 45, 1, 0.25),
        ("left_knee", "x", 53, -53, 1, 0.25), ("right_knee", "x", 53, -53, 1, 0.25),
        ("left_ankle", "x", -18, 18, 1, 0.25), ("right_ankle", "x", -18, 18, 1, 0.25),
        ("pelvis", "x", 10, -10, 1, 0.25), ("spine", "x", 8, -8, 1, 0.25),
        ("left_shoulder", "x", -45, 40, 1, 0.25), ("right_shoulder", "x", -45, 40, 1, 0.25),
        ("left_hip", "z", 9, -9, 1, 0.25), ("right_hip", "z", -9, 9, 1, 0.25),
    )),
    "arms_up": (2.4, (
        ("left_shoulder", "z", 86, -76, 1, 0.25), ("right_shoulder", "z", -86, 76, 1, 0.25),
        ("left_elbow", "x", -14, 6, 1, 0), ("right_elbow", "x", -14, 6, 1, 0), ("head", "x", -4, 8, 1, 0.25),
    )),
    "turn": (3.6, (
        ("left_shoulder", "z", 12, 4, 2, 0), ("right_shoulder", "z", -12, -4, 2, 0),
        ("left_elbow", "x", -20, 10, 2, 0),
        ("right_elbow", "x", -20, 10, 2, 0.5), ("left_hip", "x", -9, 14, 2, 0), ("left_knee", "x", 14, -14, 2, 0),
        ("right_hip", "x", -9, 14, 2, 0.5), ("right_knee", "x", 14, -14, 2, 0.5),
    )),
    "hop": (1.0, (
        ("left_hip", "x", -22, 22, 1, 0.25), ("right_hip", "x", -22, 22, 1, 0.25),
        ("left_knee", "x", 40, -40, 1, 0.25), ("right_knee", "x", 40, -40, 1, 0.25),
        ("left_ankle", "x", -14, 18, 1, 0.25), ("right_ankle", "x", -14, 18, 1, 0.25),
        ("left_shoulder", "z", 50, -36, 1, 0.2), ("right_shoulder", "z", -50, 36, 1, 0.2),
        ("left_elbow", "x", -30, 10, 1, 0), ("right_elbow", "x", -30, 10, 1, 0),
    )),
    "march": (1.2, (
        ("left_hip", "x", -30, 34, 1, 0), ("left_knee", "x", 38, -38, 1, 0), ("right_hip", "x", -30, 34, 1, 0.5),
        ("right_knee", "x", 38, -38, 1, 0.5), ("left_shoulder", "x", -6, 30, 1, 0.5),
        ("left_elbow", "x", -60, 14, 1, 0.5),
        ("right_shoulder", "x", -6, 30, 1, 0), ("right_elbow", "x", -60, 14, 1, 0), ("chest", "y", 0, 6, 1, 0),
        ("left_shoulder", "z", 8, 0, 0, 0), ("right_shoulder", "z", -8, 0, 0, 0),
    )),
    "bow": (2.6, (
        ("pelvis", "x", 24, -24, 1, 0.25), ("spine", "x", 14, -14, 1, 0.25), ("chest", "x", 8, -8, 1, 0.25),
        ("head", "x", 6, -6, 1, 0.25), ("left_hip", "x", -24, 24, 1, 0.25), ("right_hip", "x", -24, 24, 1, 0.25),
        ("left_shoulder", "z", 10, 0, 0, 0), ("right_shoulder", "z", -10, 0, 0, 0),
        ("left_shoulder", "x", -20, 20, 1, 0.25), ("right_shoulder", "x", -20, 20, 1, 0.25),
    )),
    "twist": (1.8, (
        ("spine", "y", 0, 18, 1, 0), ("chest", "y", 0, 20, 1, 0), ("pelvis", "y", 0, -10, 1, 0.03),
        ("left_hip", "y", 0, 10, 1, 0.03), ("right_hip", "y", 0, 10, 1, 0.03),
        ("left_shoulder", "z", 76, 6, 2, 0), ("right_shoulder", "z", -76, -6, 2, 0),
        ("left_elbow", "x", -16, 6, 1, 0),
        ("right_elbow", "x", -16, 6, 1, 0.5),
    )),
    "clap": (0.9, (
        ("left_shoulder", "x", -62, 0, 0, 0), ("right_shoulder", "x", -62, 0, 0, 0),
        ("left_shoulder", "y", 9, 20, 1, 0), ("right_shoulder", "y", -9, -20, 1, 0),
        ("left_elbow", "x", -22, 8, 1, 0), ("right_elbow", "x", -22, 8, 1, 0), ("spine", "z", 0, 3, 1, 0),
        ("left_hip", "x", -4, 4, 1, 0), ("left_knee", "x", 8, -8, 1, 0),
    )),
    "side_step": (2.0, (
        ("left_hip", "z", 8, 12, 1, 0), ("right_hip", "z", -8, 12, 1, 0), ("pelvis", "z", 0, -4, 1, 0),
        ("left_shoulder", "z", 34, 16, 1, 0), ("right_shoulder", "z", -34, 16, 1, 0),
        ("left_elbow", "x", -70, 20, 1, 0),
        ("right_elbow", "x", -70, 20, 1, 0.5), ("chest", "y", 0, 10, 1, 0.25),
        ("left_knee", "x", 12, 10, 2, 0), ("right_knee", "x", 12, 10, 2, 0), ("left_hip", "x", -6, -5, 2, 0),
        ("right_hip", "x", -6, -5, 2, 0),
    )),
    "disco": (1.2, (
        ("right_shoulder", "x", -50, 10, 1, 0), ("right_shoulder", "z", -60, 60, 1, 0),
        ("right_elbow", "x", -24, 20, 1, 0.2),
        ("left_shoulder", "z", 30, 6, 1, 0), ("left_elbow", "x", -84, 8, 1, 0), ("pelvis", "y", 0, 14, 1, 0),
        ("pelvis", "z", 0, 5, 1, 0.2), ("left_hip", "x", -10, 10, 1, 0), ("left_knee", "x", 18, 16, 1, 0.5),
        ("right_knee", "x", 18, 16, 1, 0), ("right_hip", "x", -10, 10, 1, 0.5), ("head", "y", 0, 14, 1, 0.1),
    )),
    "reach": (2.2, (
        ("left_shoulder", "x", -60, 50, 1, 0), ("right_shoulder", "x", -60, 50, 1, 0.5),
        ("left_elbow", "x", -40, -30, 1, 0),
        ("right_elbow", "x", -40, -30, 1, 0.5), ("chest", "y", 0, 14, 1, 0), ("spine", "x", 4, 4, 2, 0),
    )),
}  # fmt: skip
"""Composed motions: seconds of one loop at rate 1, and the terms of the joints' turns."""
