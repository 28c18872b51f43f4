"""Figures about a server in the format of Prometheus."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from ..jobs.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NEWEST = 100
"""Jobs that the seconds per frame are a mean of."""
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


class Metrics:
    """The figures of one server; those of its jobs are asked for when they are read."""

    def __init__(self, service: Service):
        self._registry = CollectorRegistry()
        self._service = service
        self.requests = Histogram(
            "animagic_request_seconds",
            "How long requests took; a stream, as long as it lasted.",
            ("method", "path", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)

    def text(self) -> bytes:
        """Raises StoreUnavailable."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []  # so that nothing is collected when it is registered

    def collect(self) -> Iterator[Metric]:
        counts = self._service.store.counts()
        jobs = GaugeMetricFamily("animagic_jobs", "Jobs that are kept, by status.", labels=["status"])
        for status, count in counts.items():
            jobs.add_metric([status], count)
        yield jobs
        yield GaugeMetricFamily("animagic_queue_length", "Jobs that wait for their turn.", counts.get("queued", 0))
        yield self._seconds_per_frame()
        memory = GaugeMetricFamily("animagic_peak_memory_bytes", "The most memory a process had.", labels=["process"])
        for name, bytes in peak_memory().items():
            memory.add_metric([name], bytes)
        yield memory

    def _seconds_per_frame(self) -> Metric:
        spent: dict[str, tuple[float, int]] = {}
        for job in self._service.store.list(None, None, _NEWEST, "desc")[0]:
            if job.result and job.started_at and job.completed_at:
                seconds, frames = spent.get(job.model, (0.0, 0))
                spent[job.model] = seconds + job.completed_at - job.started_at, frames + job.result["frames"]
        about = f"Seconds that a frame takes, a mean of the newest {_NEWEST} jobs."
        family = GaugeMetricFamily("animagic_seconds_per_frame", about, labels=["model"])
        for model, (seconds, frames) in spent.items():
            family.add_metric([model], seconds / max(1, frames))
        return family


def peak_memory() -> dict[str, int]:
    """Bytes that the server and the processes that it started have held at most; {} where the system does not say."""
    found: dict[str, int] = {}
    own = os.getpid()
    children = [child for file in Path(f"/proc/{own}/task").glob("*/children") for child in _read(file).split()]
    for name, process in [("server", str(own)), *(("worker", child) for child in children)]:
        if held := re.search(r"VmHWM:\s+(\d+) kB", _read(Path(f"/proc/{process}/status"))):
            found[name] = max(found.get(name, 0), 1024 * int(held[1]))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has just ended
        return ""
