"""A request for a video and how it is carried out: the one way that command line, app and server share."""

from ..pipelines.options import MAX_SEED, VideoOptions
from .generation import (
    assist,
    check_inputs,
    count_equal_frames,
    draw_plan,
    generate,
    load_pipeline,
    metadata,
    pipeline_for,
)
from .kept import enhance, kept_seed, resume_folder
from .many import generate_all
from .request import (
    Report,
    Result,
    build_request,
    free_name,
    from_metadata,
    is_original,
    job_for,
    slug,
    system_of,
)

__all__ = [
    "MAX_SEED",
    "Report",
    "Result",
    "VideoOptions",
    "assist",
    "build_request",
    "check_inputs",
    "count_equal_frames",
    "draw_plan",
    "enhance",
    "free_name",
    "from_metadata",
    "generate",
    "generate_all",
    "is_original",
    "job_for",
    "kept_seed",
    "load_pipeline",
    "metadata",
    "pipeline_for",
    "resume_folder",
    "slug",
    "system_of",
]
