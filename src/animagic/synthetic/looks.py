"""The name that `styles` had before."""

from .styles import STYLES as LOOKS
from .styles import apply_style as apply_look

__all__ = ["LOOKS", "apply_look"]
