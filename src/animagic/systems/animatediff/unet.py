"""AnimateDiff's UNet."""

from ...weights.motion_module import MotionParts


class AnimateDiffUNet(MotionParts):
    """A text-to-image UNet whose frames see each other through motion modules (arXiv 2307.04725); see MotionUNet."""

    # Where it is found by that name; diffusers takes a module called "animatediff" for its own.
    __module__ = "animagic"
