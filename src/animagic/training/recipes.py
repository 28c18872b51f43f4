"""What a recipe holds, compared with the stages that a system lists: unknown fields and missing ones are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset

from ..errors import InputError
from .trainer import TrainingConfig

if TYPE_CHECKING:
    from .stages import Course, Stage

RENAMED = {"most_weight": "max_snr_weight", "chunks_per_batch": "batch_size", "chunk_frames": "num_frames"}
"""Fields of earlier versions -> their names."""


def with_new_names(recipe: Any) -> Any:
    """A copy of a recipe in which no field has the name of an earlier version."""
    if isinstance(recipe, dict):
        return {RENAMED.get(name, name): with_new_names(value) for name, value in recipe.items()}
    return recipe


def read_stages(course: Course, recipe: dict[str, Any], root: Path) -> list[Stage]:
    """The stages that a recipe has, each with its section. Raises InputError for unknown fields and missing ones."""
    stages, missing = [], []
    for stage, path, section in _sections(course, recipe):
        data = section.get("data") if isinstance(section, dict) else None
        readers: dict[str, Any] = {} if stage.model is None else {"model": stage.model}
        readers |= {} if stage.shares else {"objective": stage.objective}
        readers |= {"data": reader_of(stage, data), "training": TrainingConfig}
        for name, reader in readers.items():
            known = ["source"] if name == "data" and (stage.files or stage.sources) else []
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
        if (section is None and stage.several) or (stage.optional and (section is None or isinstance(section, str))):
            continue
        if not stage.several:
            yield stage, stage.name, {} if section is None else section
        elif isinstance(section, dict):
            yield from ((stage, f"{stage.name}.{name}", {} if one is None else one) for name, one in section.items())
        else:
            raise InputError(f"the recipe must have names under {stage.name}, not {section!r}.")


def reader_of(stage: Stage, data: Any) -> Callable[..., Dataset]:
    source = data.get("source", "studio") if isinstance(data, dict) else "studio"
    if source in stage.sources:
        return stage.sources[source]
    return stage.files if stage.files is not None and source != "studio" else stage.data


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
