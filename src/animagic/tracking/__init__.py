"""What finding faces and finding poses have in common: networks run by LiteRT, places kept over time, smoothing."""

from .crops import Crop, anchors_of, cut, merged, to_frame
from .following import MOST, Finder, follow, newcomers
from .networks import Detector, Network, sigmoid
from .smoothing import filled, fitted, gaps

__all__ = [
    "MOST",
    "Crop",
    "Detector",
    "Finder",
    "Network",
    "anchors_of",
    "cut",
    "filled",
    "fitted",
    "follow",
    "gaps",
    "merged",
    "newcomers",
    "sigmoid",
    "to_frame",
]
