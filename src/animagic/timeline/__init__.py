"""The one idea of the project: a video is a timeline of latent frames, and a plan says which are denoised when."""

from .engine import Clean, Progress, Sampler, Timeline
from .free_init import FreeInit
from .guidance import ChunkGuidance, Denoiser, NestedGuidance, TextGuidance
from .levels import flow_levels, shortcut_intervals
from .noise import ChunkNoise, free_noise
from .plan import Frames, Plan, PlanSummary, Staircase, Step, WholeClip, Window
from .resume import RunFolder
from .schedulers import SchedulerSolver, build_scheduler
from .shifting import MovingFront, ShiftingWindow
from .solver import FlowEuler, Solver
from .windows import OverlappingWindows, uniform_windows

__all__ = [
    "ChunkGuidance",
    "ChunkNoise",
    "Clean",
    "Denoiser",
    "FlowEuler",
    "Frames",
    "FreeInit",
    "MovingFront",
    "NestedGuidance",
    "OverlappingWindows",
    "Plan",
    "PlanSummary",
    "Progress",
    "RunFolder",
    "Sampler",
    "SchedulerSolver",
    "ShiftingWindow",
    "Solver",
    "Staircase",
    "Step",
    "TextGuidance",
    "Timeline",
    "WholeClip",
    "Window",
    "build_scheduler",
    "flow_levels",
    "free_noise",
    "shortcut_intervals",
    "uniform_windows",
]
