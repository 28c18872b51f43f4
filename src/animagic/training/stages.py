"""A recipe is carried out: stages, which each system lists as data, are checked, trained one after the other and saved.

A system has a module `training` with STAGES: one or several `Course`s.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from ..errors import CheckpointError, InputError
from ..synthetic import vocabulary
from .data import SceneBatches
from .trainer import Trainer, TrainingConfig, processes
from .videos import VideoBatches

RENAMED = {"most_weight": "max_snr_weight", "chunks_per_batch": "batch_size", "chunk_frames": "num_frames"}
"""Fields of earlier versions -> their names."""

VOCABULARY = "vocabulary.json"


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
        section, recipe, root: its part of a certain recipe, all of that, and the folder of the run; `train` adds them.
    """

    name: str
    start: Callable[[Stage], tuple[nn.Module, dict[str, Any]]]
    objective: Callable[..., Any]
    data: Callable[..., Dataset] = SceneBatches
    files: bool = False
    model: Callable[..., Any] | None = None
    shares: str = ""
    needs: Sequence[str] = ()
    besides: Mapping[str, Callable[..., Any] | None] = field(default_factory=dict)
    optional: bool = False
    several: bool = False
    save: Callable[[Stage, nn.Module], object] | None = None
    part: str = ""
    folder: str = "{}"
    section: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    root: Path = Path()

    @property
    def config(self) -> TrainingConfig:
        """How it is trained."""
        return TrainingConfig(**self.section["training"])

    def batches(self) -> Dataset:
        """The training data that the section describes. Raises InputError."""
        data, config = dict(self.section["data"]), self.config
        reader = _reader(self, data)
        if reader is not VideoBatches:
            data.pop("source", None)
        return reader(seed=config.seed, steps=config.steps, **data)


@dataclass(frozen=True)
class Course:
    """The stages of one kind of recipe, in order, and the model folder at the end.

    Args:
        export: (recipe, folder of the run) -> the model folder, written anew from what has been trained.
        needs: fields that the recipe must have.
        only: the field that tells recipes of this kind; "": all others are.
        origin: the field that names the folder of a trained model that is gone on from, if there is one.
        check: raises InputError for what would otherwise be found out after hours.
    """

    stages: Sequence[Stage]
    export: Callable[[dict[str, Any], Path], Path]
    needs: Sequence[str] = ()
    only: str = ""
    origin: str = ""
    check: Callable[[dict[str, Any]], object] = lambda _: None


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
    stages = _read(course, recipe, folder)
    names = list(dict.fromkeys(stage.part for stage in stages))
    chosen = names if parts is None else list(parts)
    if unknown := sorted(set(chosen) - set(names)):
        raise InputError(f"the part {unknown[0]!r} is unknown; the recipe has {', '.join(names)}.")
    stages = [stage for stage in stages if stage.part in chosen]
    for stage in stages if steps is not None else ():
        stage.section["training"]["steps"] = steps
    for stage, batches in [(stage, stage.batches()) for stage in stages]:  # what is wrong with any is refused now
        _carry_out(stage, batches, on_log)
    made = [_export(course, recipe, folder) if processes().is_main_process else None]
    return broadcast_object_list(made)[0]


def _export(course: Course, recipe: dict[str, Any], root: Path) -> Path:
    """Write the model folder, and its vocabulary: that of the model it began as, else the studio's words.

    A model that has seen videos of one's own has none: nobody has listed their words.
    """
    target, origin = course.export(recipe, root), recipe.get(course.origin)
    readers = [_reader(stage, section.get("data")) for stage, _, section in _sections(course, recipe)]
    if not target.is_dir():
        return target
    if origin is not None:
        words = Path(origin) / VOCABULARY
        if words.is_file():
            shutil.copy(words, target)
    elif all(getattr(reader, "func", reader) is SceneBatches for reader in readers):
        (target / VOCABULARY).write_text(json.dumps(vocabulary(), indent=2) + "\n", "utf-8")
    return target


def _carry_out(stage: Stage, batches: Dataset, on_log: Callable[[str, dict], None] | None) -> None:
    state = processes()
    with state.main_process_first():  # it may leave files that the others read
        model, frozen = stage.start(stage)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = fingerprint(model, trained)
    section = stage.recipe[stage.shares] if stage.shares else stage.section
    objective = stage.objective(**frozen, **section["objective"])
    log = None if on_log is None else partial(on_log, stage.folder)
    average = Trainer(model, objective, batches, stage.config, stage.root / stage.folder, log).run()
    # Both: a parameter that is pulled to zero by weight decay changes without a gradient.
    if not before == fingerprint(model, trained) == fingerprint(average, trained):
        raise AssertionError("frozen weights have changed in training")
    if stage.save is not None and state.is_main_process:
        stage.save(stage, average)
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


def save_model(pipe: DiffusionPipeline, root: Path, **arguments: Any) -> Path:
    """Write the model folder of a run anew."""
    target = root / "model"
    shutil.rmtree(target, ignore_errors=True)
    pipe.save_pretrained(target, **arguments)
    return target


def _with_new_names(recipe: Any) -> Any:
    """A copy of a recipe in which no field has the name of an earlier version."""
    if isinstance(recipe, dict):
        return {RENAMED.get(name, name): _with_new_names(value) for name, value in recipe.items()}
    return recipe


def _read(course: Course, recipe: dict[str, Any], root: Path) -> list[Stage]:
    """The stages that a recipe has, each with its section. Raises InputError for unknown fields and missing ones."""
    stages, missing = [], []
    for stage, path, section in _sections(course, recipe):
        data = section.get("data") if isinstance(section, dict) else None
        readers: dict[str, Any] = {} if stage.model is None else {"model": stage.model}
        readers |= {} if stage.shares else {"objective": stage.objective}
        readers |= {"data": _reader(stage, data), "training": TrainingConfig}
        for name, reader in readers.items():
            known = ["source"] if name == "data" and stage.files else []
            given = section.get(name, {}) if isinstance(section, dict) else section
            _check_fields(f"{path}.{name}", given, reader, known)
        missing += [f"{path}.{name}" for name in (*readers, *stage.needs) if name not in section]
        for other, reader in stage.besides.items():
            missing += [other] if (given := _at(recipe, other)) is None else []
            if reader is not None and given is not None:
                _check_fields(other, given, reader)
        name, part = path.removeprefix(f"{stage.name}."), stage.part or stage.name
        added = {"section": section, "recipe": recipe, "root": root}
        stages.append(replace(stage, name=name, part=part, folder=stage.folder.format(name), **added))
    missing += [name for name in course.needs if name not in recipe]
    if missing:
        raise InputError(f"the recipe lacks {missing[0]}.")
    course.check(recipe)
    return stages


def _sections(course: Course, recipe: dict[str, Any]) -> Iterator[tuple[Stage, str, Any]]:
    """The stages that a recipe has, each with its section and where that stands."""
    for stage in course.stages:
        section = recipe.get(stage.name)
        if section is None and (stage.optional or stage.several):
            continue
        if not stage.several:
            yield stage, stage.name, {} if section is None else section
        elif isinstance(section, dict):
            yield from ((stage, f"{stage.name}.{name}", {} if one is None else one) for name, one in section.items())
        else:
            raise InputError(f"the recipe must have names under {stage.name}, not {section!r}.")


def _reader(stage: Stage, data: Any) -> Callable[..., Dataset]:
    files = stage.files and isinstance(data, dict) and data.get("source", "studio") != "studio"
    return VideoBatches if files else stage.data


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
