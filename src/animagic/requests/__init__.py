"""A request for a video and how it is carried out: the one way that command line, app and server share."""

from .carrying import check_inputs, count_equal_frames, draw_plan, fit_request, generate, metadata, pipeline_for
from .kept import enhance, kept_seed, resume_folder
from .loading import default_device, load_pipeline
from .request import MAX_SEED, Report, Request, Result, free_name, slug

__all__ = [
    "MAX_SEED",
    "Report",
    "Request",
    "Result",
    "check_inputs",
    "count_equal_frames",
    "default_device",
    "draw_plan",
    "enhance",
    "fit_request",
    "free_name",
    "generate",
    "kept_seed",
    "load_pipeline",
    "metadata",
    "pipeline_for",
    "resume_folder",
    "slug",
]
