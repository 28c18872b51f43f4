"""The one idea of the project: a video is a timeline of latent frames, and a plan says which are denoised when."""

from .engine import Clean, Progress, Sampler, Timeline
from .guidance import ChunkGuidance, Denoiser, TextGuidance
from .levels import flow_levels, shortcut_intervals
from .plan import Frames, Plan, PlanSummary, Staircase, Step, WholeClip, Window
from .resume import RunFolder
from .schedulers import SchedulerSolver, build_scheduler
from .solver import FlowEuler, Solver
from .windows import OverlappingWindows, uniform_windows

__all__ = [
    "ChunkGuidance",
    "Clean",
    "Denoiser",
    "FlowEuler",
    "Frames",
    "OverlappingWindows",
    "Plan",
    "PlanSummary",
    "Progress",
    "RunFolder",
    "Sampler",
    "SchedulerSolver",
    "Solver",
    "Staircase",
    "Step",
    "TextGuidance",
    "Timeline",
    "WholeClip",
    "Window",
    "build_scheduler",
    "flow_levels",
    "shortcut_intervals",
    "uniform_windows",
]
