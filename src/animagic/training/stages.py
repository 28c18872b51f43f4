"""A recipe is carried out: stages, which each system lists as data, are checked, trained one after the other and saved.

A system has a module `training` with STAGES: one or several `Course`s.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from ..errors import CheckpointError, InputError
from .data import SceneBatches
from .trainer import Trainer, TrainingConfig, processes
from .videos import VideoBatches

RENAMED = {"most_weight": "max_snr_weight", "chunks_per_batch": "batch_size", "chunk_frames": "num_frames"}
"""Fields of earlier versions -> their names."""


@dataclass(frozen=True)
class Stage:
    """One network that a recipe may train.

    Args:
        name: of its section in the recipe; if there are `several`, each under a name of its own, the section holds
            them all.
        start: the model before its first step, the same in every run of a recipe, and the frozen parts that the
            objective needs.
        objective: its other fields are the section's `objective`, or that of the section `shares`.
        data: the studio's batches, whose fields are the section's `data`; with `files` that may name a `source`
            instead, videos of one's own.
        model: the fields of the section's `model`; None: it has none.
        needs: what else must be in the section, such as a rank.
        besides: what must be in the recipe, too -> who reads the fields under it, if any.
        optional: it is left out where the recipe has no such section.
        save: writes what is made of the trained model, beyond the files of the trainer.
        part: the name by which it is chosen, if not its own.
        folder: of the trainer within that of the run; {} is the name.
    """

    name: str
    start: Callable[[Task], tuple[nn.Module, dict[str, Any]]]
    objective: Callable[..., Any]
    data: Callable[..., Dataset] = SceneBatches
    files: bool = False
    model: Callable[..., Any] | None = None
    shares: str = ""
    needs: Sequence[str] = ()
    besides: Mapping[str, Callable[..., Any] | None] = field(default_factory=dict)
    optional: bool = False
    several: bool = False
    save: Callable[[Task, nn.Module], object] | None = None
    part: str = ""
    folder: str = "{}"


@dataclass(frozen=True)
class Course:
    """The stages of one kind of recipe, in order, and the model folder at the end.

    Args:
        stages: see Stage.
        export: (recipe, folder of the run) -> the model folder, written anew from what has been trained.
        needs: fields that the recipe must have.
        only: the field that tells recipes of this kind; "": all others are.
        check: raises InputError for what would otherwise be found out after hours.
    """

    stages: Sequence[Stage]
    export: Callable[[dict[str, Any], Path], Path]
    needs: Sequence[str] = ()
    only: str = ""
    check: Callable[[dict[str, Any]], object] = lambda _: None


@dataclass(frozen=True)
class Task:
    """A stage of a certain recipe: `section` is its part of it, `root` the folder of the run."""

    stage: Stage
    name: str
    section: dict[str, Any]
    recipe: dict[str, Any]
    root: Path

    @property
    def path(self) -> str:
        """Where the section stands in the recipe."""
        return f"{self.stage.name}.{self.name}" if self.stage.several else self.name

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return self.root / self.stage.folder.format(self.name)

    @property
    def config(self) -> TrainingConfig:
        return TrainingConfig(**self.section["training"])

    @property
    def part(self) -> str:
        """The name by which it is chosen."""
        return self.stage.part or self.stage.name

    def batches(self) -> Dataset:
        """The training data that the section describes. Raises InputError."""
        data, config = self.section["data"], self.config
        read = _reader(self.stage, data)
        given = {name: value for name, value in data.items() if read is VideoBatches or name != "source"}
        return read(seed=config.seed, steps=config.steps, **given)


def train(
    recipe: dict[str, Any],
    courses: Sequence[Course],
    folder: str | Path,
    parts: Iterable[str] | None = None,
    steps: int | None = None,
    on_log: Callable[[str, dict], None] | None = None,
) -> Path:
    """Train the parts of a recipe (default: all) in `folder`, and write the model folder.

    Each stage goes on from its own checkpoint. `steps` replaces the recipe's number of steps in the parts that are
    trained. `on_log` is called with the stage and a line of its log. Of several processes only the main one writes.

    Returns: the model folder. Raises: InputError for a recipe that cannot be used, CheckpointError for a folder of
    another recipe.
    """
    recipe, folder = _with_new_names(recipe), Path(folder)
    course = next(course for course in courses if not course.only or course.only in recipe)
    tasks = list(_tasks(course, recipe, folder))
    _check(course, recipe, tasks)
    names = list(dict.fromkeys(task.part for task in tasks))
    chosen = names if parts is None else list(parts)
    if unknown := sorted(set(chosen) - set(names)):
        raise InputError(f"the part {unknown[0]!r} is unknown; the recipe has {', '.join(names)}.")
    tasks = [task for task in tasks if task.part in chosen]
    for task in tasks if steps is not None else ():
        task.section["training"]["steps"] = steps
    for task, batches in [(task, task.batches()) for task in tasks]:  # all data first: what is wrong is refused now
        _carry_out(task, batches, on_log)
    made = [course.export(recipe, folder) if processes().is_main_process else None]
    return broadcast_object_list(made)[0]


def _carry_out(task: Task, batches: Dataset, on_log: Callable[[str, dict], None] | None) -> None:
    state = processes()
    with state.main_process_first():  # it may leave files that the others read
        model, frozen = task.stage.start(task)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = fingerprint(model, trained)
    section = task.recipe[task.stage.shares] if task.stage.shares else task.section
    objective = task.stage.objective(**frozen, **section["objective"])
    log = None if on_log is None else partial(on_log, task.folder.name)
    average = Trainer(model, objective, batches, task.config, task.folder, log).run()
    # Both: a parameter that is pulled to zero by weight decay changes without a gradient.
    if not before == fingerprint(model, trained) == fingerprint(average, trained):
        raise AssertionError("frozen weights have changed in training")
    if task.stage.save is not None and state.is_main_process:
        task.stage.save(task, average)
    state.wait_for_everyone()


def fingerprint(model: nn.Module, trained: set[str]) -> str:
    """A hash of every tensor of a model but those that are trained."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def average_of(folder: Path, what: str = "this part") -> dict[str, torch.Tensor]:
    """The moving average that a training has left in its folder. Raises CheckpointError."""
    path = folder / "average.safetensors"
    if not path.exists():
        raise CheckpointError(f"{path} is missing: train {what} first.")
    return load_file(path)


def _with_new_names(recipe: Any) -> Any:
    """A copy of a recipe in which no field has the name of an earlier version."""
    if isinstance(recipe, dict):
        return {RENAMED.get(name, name): _with_new_names(value) for name, value in recipe.items()}
    return recipe


def _tasks(course: Course, recipe: dict[str, Any], root: Path) -> Iterator[Task]:
    for stage in course.stages:
        section = recipe.get(stage.name)
        if section is None and (stage.optional or stage.several):
            continue
        if not stage.several:
            yield Task(stage, stage.name, {} if section is None else section, recipe, root)
            continue
        if not isinstance(section, dict):
            raise InputError(f"the recipe must have names under {stage.name}, not {section!r}.")
        for name, one in section.items():
            yield Task(stage, str(name), {} if one is None else one, recipe, root)


def _reader(stage: Stage, data: Any) -> Callable[..., Dataset]:
    files = stage.files and isinstance(data, dict) and data.get("source", "studio") != "studio"
    return VideoBatches if files else stage.data


def _check(course: Course, recipe: dict[str, Any], tasks: list[Task]) -> None:
    """Raises InputError for what would otherwise be found out after hours: unknown fields and missing ones."""
    missing: list[str] = []
    for task in tasks:
        stage, section = task.stage, task.section
        data = section.get("data") if isinstance(section, dict) else None
        readers: dict[str, Any] = {} if stage.model is None else {"model": stage.model}
        readers |= {} if stage.shares else {"objective": stage.objective}
        readers |= {"data": _reader(stage, data), "training": TrainingConfig}
        for name, reader in readers.items():
            known = {"source"} if name == "data" and stage.files else set()
            given = section.get(name, {}) if isinstance(section, dict) else section
            _check_fields(f"{task.path}.{name}", given, reader, known)
        missing += [f"{task.path}.{name}" for name in (*readers, *stage.needs) if name not in section]
        for path, reader in stage.besides.items():
            missing += [path] if (given := _at(recipe, path)) is None else []
            if reader is not None and given is not None:
                _check_fields(path, given, reader)
    missing += [name for name in course.needs if name not in recipe]
    if missing:
        raise InputError(f"the recipe lacks {missing[0]}.")
    course.check(recipe)


def _check_fields(path: str, given: Any, reader: Callable[..., Any], more: Iterable[str] = ()) -> None:
    if not isinstance(given, dict):
        raise InputError(f"the recipe must have fields under {path}, not {given!r}.")
    unknown = sorted(set(map(str, given)) - set(inspect.signature(reader).parameters) - set(more))
    if unknown:
        raise InputError(f"the recipe has an unknown field {path}.{unknown[0]}.")


def _at(recipe: dict[str, Any], path: str) -> Any:
    """The value under a path such as "text_encoder.model"; None: nothing."""
    found: Any = recipe
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
