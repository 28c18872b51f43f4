"""What whoever runs a server says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """The most that a request from outside may hold or ask for.

    Args:
        upload: bytes of one file.
        pixels: of one picture, or of one frame of a video: given, or to be made.
        frames: of one video: given, or to be made.
        seconds: of one sound.
        queued: unfinished jobs of one key.
        uploads: bytes of all files that lie ready for one key.
    """

    upload: int = 256 * 2**20
    pixels: int = 4096 * 4096
    frames: int = 10_000
    seconds: float = 3600.0
    queued: int = 100
    uploads: int = 2 * 2**30


@dataclass(frozen=True)
class Settings:
    """What whoever runs a server says about it.

    Args:
        folder: of everything that is kept: database, jobs, uploads.
        database: a SQLAlchemy URL, "postgresql+psycopg://..."; "": an SQLite file in the folder.
        device: that models run on; None: the best there is.
        memory: bytes that loaded models may take together; None: one model is kept.
        keep: seconds that a finished job is kept; None: until it is deleted.
        disk: bytes that jobs may take on disk; the oldest finished ones go first; None: no limit.
        drain: seconds that a running job may go on when the server is asked to stop, before it is stopped; it
            continues at the next start.
        threads: of the CPU that make videos; None: as many as PyTorch takes by itself.
    """

    folder: Path
    database: str = ""
    device: str | None = None
    memory: int | None = None
    keep: float | None = None
    disk: int | None = None
    drain: float = 5.0
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.folder / 'jobs.sqlite'}"

    @property
    def jobs(self) -> Path:
        """Where every job has a folder of its own."""
        return self.folder / "jobs"
