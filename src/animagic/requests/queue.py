"""A queue of trainings, as a file says it: which stages, how they are measured, and which embedded models they may
replace."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import evaluation, zoo
from ..errors import InputError
from ..media import atomic_path
from ..pipelines.devices import be_quiet, use_threads
from ..wording import in_one_sentence
from ..zoo import shipping
from .generation import load_pipeline
from .training import fitting, read_recipe, run_of

if TYPE_CHECKING:
    from ..training.progress import Progress
    from ..training.queue import Listener, Measured, Stop, Task

Given = TypeVar("Given", bound=BaseModel)


class Evaluation(BaseModel):
    """How a model is measured: the arguments of `animagic.evaluation.evaluate`, and what counts.

    score: fields of the summary whose mean is the score: "colour", or "base/style" where there are several variants.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    score: list[str] = Field(min_length=1)
    count: int | None = None
    seed: int | None = None
    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    batch: int | None = None
    motion_apart: bool = False


class Entry(BaseModel):
    """A line of the queue.

    recipe: a file. part: of the recipe, or one of its stages. every: steps from mark to mark.
    folder: of the run; None: runs/NAME-OF-RECIPE.
    start: a model, from whose weights it begins if its folder has none; None: from nothing.
    keep: a folder for what it has reached, beside its own; None: it is not kept there.
    evaluation: what is done at the marks; None: nothing. model: the embedded model that is replaced by better ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    part: str
    every: int = Field(ge=1)
    folder: str | None = None
    start: str | None = None
    keep: str | None = None
    evaluation: dict[str, Any] | None = None
    model: str | None = None


def read_queue(path: str | Path) -> list[Task]:
    """The tasks of a queue file, checked as far as they can be. Raises InputError."""
    from ..training.queue import Task

    listed = read_recipe(path).get("queue")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"the queue {path} must have a list of stages under `queue`.")
    tasks = []
    for number, values in enumerate(listed, 1):
        where = f"the queue {path}, entry {number}"
        entry = _read(Entry, values, where)
        run = run_of(entry.recipe, entry.folder, [entry.part])
        judge = None
        if entry.evaluation is not None:
            judge = Judge(_read(Evaluation, entry.evaluation, f"{where}: evaluation"), entry, run.root)
        elif entry.model is not None:
            raise InputError(f"{where}: {entry.model} can only be replaced by what is measured: add an evaluation.")
        start = None if entry.start is None else zoo.folder_of(entry.start)
        with fitting(entry.recipe):
            tasks.append(Task(run, entry.every, judge, start, None if entry.keep is None else Path(entry.keep)))
    return tasks


def _read(kind: type[Given], values: Any, where: str) -> Given:
    if not isinstance(values, dict):
        raise InputError(f"{where} must have fields, not {values!r}.")
    try:
        return kind(**values)
    except ValidationError as error:
        raise in_one_sentence(error, kind, values, lambda name: f"{where}: {name}") from None


class Judge:
    """Measures with a suite of `animagic.evaluation`, and replaces an embedded model; see `training.queue.Judge`."""

    def __init__(self, settings: Evaluation, entry: Entry, root: Path):
        evaluation.suites.find_suite(settings.suite)
        self.settings, self.entry, self.root = settings, entry, root
        self.shelf = None if entry.model is None else zoo.entry(entry.model)
        if self.shelf is not None:
            if not self.shelf.folder.exists():
                shipping.recover(self.shelf)
            shipping.check_card(self.shelf)

    @cached_property
    def given(self) -> dict[str, Any]:
        """The settings that were given."""
        return self.settings.model_dump(exclude_defaults=True)

    def measure(self, model: str | Path) -> Measured:
        from ..training.queue import Measured

        arguments = {name: value for name, value in self.given.items() if name not in ("suite", "score")}
        loras, moves = zoo.loras(model), zoo.loras(model, "motion_loras")
        result = evaluation.evaluate(
            load_pipeline(str(model)),
            self.settings.suite,
            model=str(model),
            loras=loras,
            motion_loras=moves,
            **arguments,
        )
        values = dict(self._values(result.report["summary"]))
        report = {name: value for name, value in result.report.items() if name != "rows"}
        return Measured(sum(values.values()) / len(values), values, report, evaluation.sheet(result))

    def _values(self, summary: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
        """The fields of a summary that make the score, in percent, or as their mean. Raises InputError."""
        variants = list(summary)
        for name in self.settings.score:
            variant, _, field = name.rpartition("/")
            found = summary.get(variant or variants[0], {}).get(field)
            if found is None or (not variant and len(variants) > 1):
                known = [f"{one}/{field}" if len(variants) > 1 else field for one in variants for field in summary[one]]
                raise InputError(f"the suite {self.settings.suite} gives no {name!r}; choose from {', '.join(known)}.")
            yield name, found["percent"] if "percent" in found else found["mean"]

    def score_to_beat(self) -> float:
        if self.shelf is None:
            return math.inf
        known = shipping.scores(self.shelf)
        if known.get("evaluation") == self.given:
            return known["score"]
        # Measured in another way, or never: once more, as it is done here.
        weights, kept = shipping.fingerprint(self.shelf), self.root / "shipped.json"
        if not weights:
            return -math.inf
        state = {"weights": weights, "evaluation": self.given}
        if kept.exists() and (last := json.loads(kept.read_text("utf-8")))["of"] == state:
            return last["score"]
        score = self.measure(self.shelf.name).score
        with atomic_path(kept) as temporary:
            temporary.write_text(json.dumps({"score": score, "of": state}), "utf-8")
        return score

    def ship(self, model: Path, measured: Measured, line: dict[str, Any]) -> None:
        assert self.shelf is not None
        report = {**measured.report, "model": self.shelf.name}
        values = {"score": measured.score, "values": measured.values, "evaluation": self.given}
        values |= {"recipe": self.entry.recipe, **line, "report": report}
        figures = f"{evaluation.table(report)}\n{_shares(report)}{self._sentence(line)}\n"
        shipping.replace(self.shelf, model, values, figures, measured.sheet)

    def _sentence(self, line: Mapping[str, Any]) -> str:
        parts = [f"Score {line['score']:.1f}: the mean of {', '.join(line['values'])}."]
        parts += [f"Step {line['step']:,} of {line['steps']:,} of {line['stage']} in `{self.entry.recipe}`"]
        parts[-1] += f", {line['pflop']:.3g} PFLOP in all stages." if line["pflop"] else "."
        return " ".join([*parts, f"Measured on {line['time'][:10]}."])


def _shares(report: Mapping[str, Any]) -> str:
    """How often each shape, motion, ... that was asked for was seen, where there is one variant; Markdown."""
    if len(report["confusion"]) != 1:
        return ""
    lines = []
    for name, taken in next(iter(report["confusion"].values())).items():
        shares = {asked: seen.get(asked, 0) / sum(seen.values()) for asked, seen in taken.items()}
        best = sorted(shares, key=lambda asked: -shares[asked])
        lines.append(f"By {name}: {', '.join(f'{asked} {shares[asked]:.0%}' for asked in best)}.\n")
    return "\n".join([*lines, ""])


def train_queue(
    path: str | Path,
    stop: Stop,
    threads: int = 1,
    on_log: Listener | None = None,
    on_score: Listener | None = None,
) -> bool:
    """Go on with the trainings of a queue file; returns whether all are done, or it was stopped.

    Args:
        stop: says when to end; as a context manager it listens to signals.
        threads: CPU threads to use.
        on_log, on_score: get the name of a stage, and a line of its log or of its scores.

    Raises: InputError, CheckpointError.
    """
    from ..training.queue import work

    be_quiet()
    use_threads(threads)
    return work(read_queue(path), stop, on_log, on_score)


def queue_progress(path: str | Path) -> list[Progress]:
    """How far the stages of a queue file are. Raises: InputError, CheckpointError."""
    from ..training.queue import progress

    return progress(read_queue(path))
