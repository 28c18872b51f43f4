"""A job: a request for a video, and what has become of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["queued", "in_progress", "completed", "failed"]


@dataclass(frozen=True)
class Job:
    """A request for a video, and what has become of it. Times are seconds since 1970.

    Args:
        id: "video_" and 32 hexadecimal digits.
        request: as `VideoOptions.stored()` gives it; files in it are copies in the job's own folder.
        owner: id of the key that asked for it; "" where no key is needed.
        priority: jobs of higher priority are made first.
        report: the last `animagic.requests.Report`, as a dict; None: nothing has been done.
        error: (code, sentence) of a failed job; code "cancelled" if somebody stopped it.
        remixed_from, extends: ids of the jobs that it was made from.
        expires_at: when its files are deleted; None: never.
        asked: what a client said in its own words ("seconds", "size"), to be told it again.
        result: of a completed job: `animagic.requests.Result` as a dict.
    """

    id: str
    status: Status
    model: str
    request: dict[str, Any]
    created_at: float
    owner: str = ""
    priority: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    report: dict[str, Any] | None = None
    error: tuple[str, str] | None = None
    remixed_from: str | None = None
    extends: str | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed")

    @property
    def progress(self) -> int:
        """0 to 100; below 100 until it is completed."""
        if self.status == "completed":
            return 100
        report = self.report or {}
        total = report.get("total_steps")
        return min(99, int(100 * report["step"] / total)) if total else 0
