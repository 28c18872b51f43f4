"""Jobs in order: handed in, made one after the other by a worker, watched, changed and kept. What app and server share."""

from __future__ import annotations

import itertools
import logging
import queue
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import zoo
from ..errors import AnimagicError, InputError
from ..pipelines.options import VideoOptions
from .folder import Folder, Head, Piece
from .inputs import check_limits, copied, fingerprint
from .job import Job, Status
from .process import WorkerProcess
from .record import Event, Record, Seen
from .settings import Settings

log = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds for a step, after which a worker that is to stop is ended by force
_REMEMBERED = 200  # finished jobs in memory
_HOUSEKEEPING = 30.0  # seconds


class NoSuchJob(InputError):
    """There is no job of that id, or it is somebody else's."""


class TooMany(InputError):
    """Somebody has as many unfinished jobs as the limits allow."""


class JobFailed(AnimagicError):
    """The job whose stream is read has failed. code: as in `Job.error`."""

    def __init__(self, code: str, sentence: str):
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Model:
    """A model of the zoo. bytes: on disk. command: the command that makes its videos."""

    name: str
    system: str
    title: str
    summary: str
    command: str
    options_class: type[VideoOptions]
    bytes: int
