"""A queue of trainings: the topmost unfinished stage goes on, is measured at its marks, and its weights replace the
shipped ones where they are better. Whatever ends the process, the next one goes on from the last save."""

from __future__ import annotations

import gc
import json
import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from ..errors import InputError
from ..media import atomic_path, write_image
from .progress import SCORES, SHEET, Progress, log_of, progress_of, scores_of, step_of, write_page
from .stages import Run, Stage, carry_out, start_from
from .trainer import keep, restore

LOCK = "queue.lock"
PATIENCE = 10.0  # seconds: the processes that draw outlive one that was killed, and keep its lock, for about five


@dataclass(frozen=True)
class Measured:
    """What a model can do. score: the higher, the better; values: what it is the mean of, by name; report: all that was
    measured, for JSON; sheet: a picture of results, uint8 (H, W, 3)."""

    score: float
    values: dict[str, float]
    report: dict[str, Any]
    sheet: np.ndarray


class Judge(Protocol):
    """Measures models, and knows what is shipped."""

    def measure(self, model: Path) -> Measured:
        """What the model in a folder can do."""

    def score_to_beat(self) -> float:
        """That of the shipped weights; -inf: there are none; inf: they are not to be replaced."""

    def ship(self, model: Path, measured: Measured, line: dict[str, Any]) -> None:
        """Replace the shipped weights by those of a model folder. line: of its scores."""


@dataclass(frozen=True)
class Task:
    """An entry of a queue.

    Args:
        run: its recipe, its stages, and the folder that is written to.
        every: steps from mark to mark; the last step is a mark, too.
        judge: None: it is trained only.
        start: a model folder, from whose weights it begins; None: from nothing.
        keep: a folder for what every stage has reached (weights in float16), to be kept where runs are not; stages
            whose own folders hold nothing go on from there, with a new state of the optimiser. None: it is not kept.
    """

    run: Run
    every: int
    judge: Judge | None = None
    start: Path | None = None
    keep: Path | None = None

    def __post_init__(self) -> None:
        for stage in self.run.stages:
            stage.section["training"]["precision"] = "fp32"
            stage.batches()  # what is wrong with any task is refused before the first is trained
            between = stage.config.save_every
            if self.every < 1 or self.every % between:
                raise InputError(
                    f"every is {self.every}; {stage.name} is saved every {between} steps: give a multiple."
                )

    def finished(self, stage: Stage) -> bool:
        """Whether every step is made, and what came out is measured. Raises CheckpointError."""
        steps = stage.config.steps
        return step_of(stage) >= steps and (self.judge is None or _is_scored(stage, steps))


@dataclass
class Stop:
    """Says when a queue is to end: at the signals that ask a process to end, or when its time is over. A second signal
    does what it did before.

    seconds: of its time. signal: the number of the one that came.
    """

    seconds: float = math.inf
    signal: int | None = None
    _began: float = field(init=False, default_factory=time.monotonic)
    _before: dict[int, Any] = field(init=False, default_factory=dict)
    _at_once: bool = field(init=False, default=False)

    def __call__(self) -> bool:
        return self.signal is not None or time.monotonic() - self._began >= self.seconds

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        self.signal = number
        self.__exit__()
        if self._at_once:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises KeyboardInterrupt: for what can be done again."""
        self._at_once = True
        try:
            if self.signal is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False


Listener = Callable[[str, dict[str, Any]], None]
"""Gets the name of a stage, and a line of its log or of its scores."""


def work(tasks: Sequence[Task], stop: Stop, on_log: Listener | None = None, on_score: Listener | None = None) -> bool:
    """Go on with the topmost unfinished stage, and with those after it; returns whether all are done.

    Raises: InputError if another process works in the folder, CheckpointError.
    """
    for task in tasks:
        if task.keep is not None:
            for stage in task.run.known:
                restore(task.keep / f"{stage.folder}.safetensors", task.run.root / stage.folder)
        for stage in task.run.stages:
            if task.finished(stage):
                continue
            if stop():
                return False
            with _locked(task.run.root, PATIENCE):
                _train(tasks, task, stage, stop, on_log, on_score)
            if not task.finished(stage):
                return False
    return True


def _train(
    tasks: Sequence[Task], task: Task, stage: Stage, stop: Stop, on_log: Listener | None, on_score: Listener | None
) -> None:
    root = task.run.root
    here = [one for one in tasks if one.run.root == root]

    def on_save(step: int, average: nn.Module) -> None:
        if task.keep is not None and step:
            keep(root / stage.folder, task.keep / f"{stage.folder}.safetensors")
        mark = step > 0 and (step % task.every == 0 or step == stage.config.steps)
        if task.judge is not None and mark and not _is_scored(stage, step):
            with _random_state_kept(), torch.no_grad():
                line = _score(task.run, task.judge, stage, step, average, stop)
            if on_score is not None:
                on_score(stage.folder, line)
        write_page(root, [stage for one in here for stage in one.run.stages], progress(here))

    try:
        if task.start is not None:
            start_from(task.run, task.start)
        known, step = scores_of(root), step_of(stage)
        if any(line["stage"] == stage.folder and line["step"] > step for line in known):  # of a run that was removed
            _write_scores(root, [line for line in known if line["stage"] != stage.folder or line["step"] <= step])
        carry_out(stage, stage.batches(), on_log, on_save, stop)
    except (KeyboardInterrupt, RuntimeError):  # RuntimeError: the signal has ended the processes that draw, too
        if stop.signal is None:
            raise


def _score(run: Run, judge: Judge, stage: Stage, step: int, average: nn.Module, stop: Stop) -> dict[str, Any]:
    """Measure a model as it is now, and ship it if it is better than what is shipped. Returns the line that is kept."""
    began = time.monotonic()
    with stop.at_once():
        if stage.save is not None:
            stage.save(stage, average)
        model = run.export()
        measured, to_beat = judge.measure(model), judge.score_to_beat()
    line: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "stage": stage.folder,
        "step": step,
        "steps": stage.config.steps,
        "score": round(measured.score, 3),
        "values": measured.values,
        "to_beat": round(to_beat, 3) if math.isfinite(to_beat) else None,
        "shipped": measured.score > to_beat,
        "pflop": sum(
            log[-1].get("pflop", 0) for log in map(log_of, run.known) if log
        ),  # of the run, not of this stage alone
        "seconds": round(time.monotonic() - began, 1),
    }
    write_image(run.root / SHEET, measured.sheet)
    if line["shipped"]:
        judge.ship(model, measured, line)
    _write_scores(run.root, [*scores_of(run.root), line])
    gc.collect()  # the pipelines that were measured
    return line


def _write_scores(root: Path, lines: list[dict[str, Any]]) -> None:
    with atomic_path(root / SCORES) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


def _is_scored(stage: Stage, step: int) -> bool:
    return any(line["step"] == step for line in scores_of(stage.root, stage))


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """What is drawn inside changes nothing of what is drawn after it."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def progress(tasks: Sequence[Task]) -> list[Progress]:
    """How far every stage of a queue is. Raises CheckpointError."""
    rows, busy = [], {root: _is_locked(root) for root in {task.run.root for task in tasks}}
    for task in tasks:
        for stage in task.run.stages:
            if task.finished(stage):
                rows.append(progress_of(stage, "done"))
            else:  # a queue trains the topmost one
                rows.append(progress_of(stage, "running" if busy[stage.root] else "waiting"))
                busy[stage.root] = False
    return rows


@contextmanager
def _locked(root: Path, patience: float) -> Iterator[None]:
    """Inside, no other queue trains in the folder of a run. Raises InputError if one does for so many seconds."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / LOCK, timeout=patience):
            yield
    except Timeout as error:
        raise InputError(f"another queue trains in {root}: wait for it, or stop it.") from error


def _is_locked(root: Path) -> bool:
    if not (root / LOCK).exists():
        return False
    try:
        with _locked(root, 0):
            return False
    except InputError:
        return True
