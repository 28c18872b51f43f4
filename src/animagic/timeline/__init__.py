"""The one idea of the project: a video is a timeline of latent frames, and a plan says which are denoised when."""

from .engine import Clean, Progress, Sampler, Timeline
from .guidance import ChunkGuidance, Denoiser, TextGuidance
from .levels import ddpm_alphas, flow_levels, shortcut_intervals
from .plan import Plan, PlanSummary, Staircase, Step, WholeClip, Window
from .resume import RunFolder
from .solver import Ddim, FlowEuler, Solver

__all__ = [
    "ChunkGuidance",
    "Clean",
    "Ddim",
    "Denoiser",
    "FlowEuler",
    "Plan",
    "PlanSummary",
    "Progress",
    "RunFolder",
    "Sampler",
    "Solver",
    "Staircase",
    "Step",
    "TextGuidance",
    "Timeline",
    "WholeClip",
    "Window",
    "ddpm_alphas",
    "flow_levels",
    "shortcut_intervals",
]
