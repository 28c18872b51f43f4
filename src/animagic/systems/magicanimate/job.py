"""Requests for MagicAnimate."""

from __future__ import annotations

from ...pipelines.job import Job


class MagicAnimateJob(Job):
    """A request for a person who moves as in a video."""
