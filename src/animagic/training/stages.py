"""A recipe is carried out: stages, which each system lists as data, are checked, trained one after the other and saved.

A system has a module `training` with STAGES: one or several `Course`s.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from diffusers import DiffusionPipeline
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset

from ..errors import CheckpointError, InputError, first_line
from ..layers.autoencoder import ConvAutoencoder
from ..media import atomic_path
from ..media.files import dead_parts, is_part_of, replace_folder, temporary_name
from ..media.keeping import MARKER
from ..synthetic import vocabulary
from ..weights.files import find_weights, read_tensors
from ..weights.fit import check
from .bank import SceneBank
from .data import SceneBatches
from .recipes import read_stages, reader_of, with_new_names
from .trainer import FILES, Trainer, TrainingConfig, processes

SHIPPED = "shipped.safetensors"
"""In the folder of a stage: weights from which it begins, see `start_from`."""
Network = TypeVar("Network", bound=nn.Module)

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
        data: the studio's batches, whose fields are the section's `data`.
        sources: what else may be named there as `source` -> its batches. files: the batches of any other source, videos
            of one's own; None: there is none.
        model: the fields of the section's `model`; None: it has none.
        needs: what else must be in the section, such as a rank.
        besides: what must be in the recipe, too -> who reads the fields under it, if any.
        optional: it is left out where the recipe has no such section, or a path there: of a folder with what it would
            make.
        save: writes what is made of the trained model, beyond the files of the trainer.
        shipped: reads its weights from a model folder, under the names that they have in the file of the section's
            `start`; None: the weights of the component that is called as the stage.
        part: a name by which it is chosen, beside its own.
        folder: of the trainer within that of the run; {} is the name.
        section, recipe, root: its part of a certain recipe, all of that, and the folder of the run; see `prepare`.
    """

    name: str
    start: Callable[[Stage], tuple[nn.Module, dict[str, Any]]]
    objective: Callable[..., Any]
    data: Callable[..., Dataset] = SceneBatches
    sources: Mapping[str, Callable[..., Dataset]] = field(default_factory=dict)
    files: Callable[..., Dataset] | None = None
    model: Callable[..., Any] | None = None
    shares: str = ""
    needs: Sequence[str] = ()
    besides: Mapping[str, Callable[..., Any] | None] = field(default_factory=dict)
    optional: bool = False
    several: bool = False
    save: Callable[[Stage, nn.Module], object] | None = None
    shipped: Callable[[Path], dict[str, torch.Tensor]] | None = None
    part: str = ""
    folder: str = "{}"
    section: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    root: Path = Path()

    @property
    def config(self) -> TrainingConfig:
        """How it is trained."""
        return TrainingConfig(**self.section["training"])

    @property
    def shows_files(self) -> bool:
        """Whether it learns from videos of one's own."""
        return self.files is not None and reader_of(self, self.section.get("data")) is self.files

    def batches(self) -> Dataset:
        """The training data that the section describes. Raises InputError."""
        data, config = dict(self.section["data"]), self.config
        reader = reader_of(self, data)
        if reader is not self.files:
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
        words: the vocabulary of a model that reads prompts, unless it goes on from another one.
        check: raises InputError for what would otherwise be found out after hours.
    """

    stages: Sequence[Stage]
    export: Callable[[dict[str, Any], Path], Path]
    needs: Sequence[str] = ()
    only: str = ""
    origin: str = ""
    words: Callable[[], Mapping[str, Any]] = vocabulary
    check: Callable[[dict[str, Any]], object] = lambda _: None


@dataclass(frozen=True)
class Run:
    """A recipe in a folder. known: its stages; stages: those that are to be carried out."""

    course: Course
    recipe: dict[str, Any]
    root: Path
    known: list[Stage]
    stages: list[Stage]

    def export(self) -> Path:
        """Write the model folder, anew, from what has been trained so far; the main process does. Returns it."""
        made = [self._export() if processes().is_main_process else None]
        return broadcast_object_list(made)[0]

    def _export(self) -> Path:
        """A model that reads prompts gets its vocabulary: that of the model it began as, else the studio's words. One
        that has seen videos of one's own has none: nobody has listed their words."""
        final = self.root / "model"
        try:
            target = self.course.export(self.recipe, self.root)
            self._add_words(target)
            if is_part_of(target, final):
                replace_folder(target, final)
                return final
            return target
        finally:
            for part in dead_parts(self.root, f".{final.name}."):
                shutil.rmtree(part)

    def _add_words(self, target: Path) -> None:
        origin = self.recipe.get(self.course.origin)
        if origin is not None:
            words = Path(origin) / VOCABULARY
            if words.is_file():
                shutil.copy(words, target)
        elif _reads_prompts(target) and not any(stage.shows_files for stage in self.known):
            (target / VOCABULARY).write_text(json.dumps(self.course.words(), indent=2) + "\n", "utf-8")

    def check_folder(self) -> None:
        """Raises InputError where the model folder would take the place of one that no training has left."""
        model, left = self.root / "model", [self.root / stage.folder / name for stage in self.known for name in FILES]
        begun = any(path.exists() for path in left)
        if os.path.lexists(model) and not begun and not (self.root / MARKER).exists():
            raise InputError(f"{model} is there already, and no training has left it; give another --folder.")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process trains in the folder. Raises InputError if one does."""
        if not processes().is_main_process:
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / MARKER, timeout=0):
                try:
                    yield
                finally:
                    if [path.name for path in self.root.iterdir()] == [MARKER]:  # nothing was made
                        shutil.rmtree(self.root)
        except Timeout as error:
            raise InputError(f"{self.root} is being trained in by another process; wait, or stop that one.") from error


def _reads_prompts(model: Path) -> bool:
    """Whether a folder is that of a pipeline, and not of one without a text encoder."""
    index = model / "model_index.json"
    return index.exists() and json.loads(index.read_text("utf-8")).get("text_encoder") != [None, None]


def prepare(
    recipe: dict[str, Any],
    courses: Sequence[Course],
    folder: str | Path,
    parts: Iterable[str] | None = None,
    steps: int | None = None,
) -> Run:
    """Check a recipe; the arguments are those of `train`. Raises InputError."""
    recipe, folder = with_new_names(recipe), Path(folder)
    course = next(course for course in courses if not course.only or course.only in recipe)
    known = read_stages(course, recipe, folder)
    names = list(dict.fromkeys(stage.part for stage in known))
    chosen = set(names if parts is None else parts)
    if unknown := sorted(chosen - {name for stage in known for name in (stage.part, stage.name)}):
        raise InputError(f"the part {unknown[0]!r} is unknown; the recipe has {', '.join(names)}.")
    stages = [stage for stage in known if chosen & {stage.part, stage.name}]
    for stage in stages if steps is not None else ():
        stage.section["training"]["steps"] = steps
    run = Run(course, recipe, folder, known, stages)
    run.check_folder()
    return run


def train(
    recipe: dict[str, Any],
    courses: Sequence[Course],
    folder: str | Path,
    parts: Iterable[str] | None = None,
    steps: int | None = None,
    on_log: Callable[[str, dict], None] | None = None,
) -> Path:
    """Train the parts of a recipe (default: all) in `folder`, and write the model folder.

    Each stage goes on from its own checkpoint. `parts` are names of parts or of stages. `steps` replaces the recipe's
    number of steps in the parts that are trained. `on_log` is called with the stage and a line of its log. Of several
    processes only the main one writes.

    Returns: the model folder. Raises: InputError for a recipe that cannot be used, CheckpointError for a folder of
    another recipe.
    """
    run = prepare(recipe, courses, folder, parts, steps)
    ready = [(stage, stage.batches()) for stage in run.stages]  # what is wrong with any of them is refused now
    with run.alone():
        for stage, batches in ready:
            carry_out(stage, batches, on_log)
        return run.export()


def carry_out(
    stage: Stage,
    batches: Dataset,
    on_log: Callable[[str, dict], None] | None = None,
    on_save: Callable[[int, nn.Module], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> bool:
    """Train a stage, on from its checkpoint; returns whether it is finished.

    Args:
        on_save: called with the step that is on disk and the moving average of the model, before the first step and
            after every save.
        stop: asked after every step; if it says yes, the stage is saved there and ends early.
    """
    state = processes()
    with state.main_process_first():  # it may leave files that the others read
        model, frozen = stage.start(stage)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = fingerprint(model, trained)
    section = stage.recipe[stage.shares] if stage.shares else stage.section
    objective = stage.objective(**frozen, **section["objective"])
    log = None if on_log is None else partial(on_log, stage.folder)
    trainer = Trainer(model, objective, batches, stage.config, stage.root / stage.folder, log)
    if isinstance(batches, SceneBank):
        networks = [part for part in frozen.values() if isinstance(part, nn.Module)]
        key, first = "".join(fingerprint(one, set()) for one in networks), trainer.step * state.num_processes
        batches.open(stage.root / "bank", objective.encode_video, objective.encode_text, key, first)

    def saved(step: int) -> None:
        if on_save is not None:
            on_save(step, trainer.average)

    if state.is_main_process:
        saved(trainer.step)
    average = trainer.run(saved, stop)
    # Both: a parameter that is pulled to zero by weight decay changes without a gradient.
    if not before == fingerprint(model, trained) == fingerprint(average, trained):
        raise AssertionError("frozen weights have changed in training")
    if trainer.finished and stage.save is not None and state.is_main_process:
        stage.save(stage, average)
    state.wait_for_everyone()
    return trainer.finished


def start_from(run: Run, model: Path) -> None:
    """Let the stages of a recipe that have no checkpoint begin from the weights in a model folder, where it has them.
    Their folders keep copies, because the model may be replaced while they are trained.

    Raises: CheckpointError if it has none for a stage that is to be carried out.
    """
    for stage in run.known:
        folder = stage.root / stage.folder
        copy = folder / SHIPPED
        if stage not in run.stages and stage.shipped is None and not (model / stage.name).is_dir():
            continue
        if not copy.exists() and not (folder / "state.pt").exists():
            tensors = component(model, stage.name) if stage.shipped is None else stage.shipped(model)
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(copy) as temporary:
                save_file(tensors, temporary)
        if copy.exists():
            stage.section["start"] = str(copy)


def with_start(model: Network, section: dict[str, Any]) -> Network:
    """The model with the weights of the section's `start`, a file, if it has one. Raises CheckpointError."""
    if section.get("start"):
        tensors = read_tensors(Path(section["start"]))
        check(model.state_dict(), tensors, section["start"])
        model.load_state_dict(tensors)
    return model


def load_autoencoder(folder: str | Path, *kinds: Any) -> Any:
    """The frozen autoencoder in a folder of diffusers, ours or one of these classes, or that of the model there. Raises
    CheckpointError."""
    folder = Path(folder) / "vae" if (Path(folder) / "vae").is_dir() else folder
    for kind in (ConvAutoencoder, *kinds):
        try:
            if kind.load_config(folder).get("_class_name") == kind.__name__:
                return kind.from_pretrained(folder, use_safetensors=True).float().eval().requires_grad_(False)
        except Exception as error:  # on a damaged folder, diffusers and safetensors raise almost anything
            raise CheckpointError(f"the autoencoder in {folder} cannot be read: {first_line(error)}.") from error
    raise CheckpointError(f"{folder} holds no autoencoder of a kind that is known.")


def component(model: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of a component in a model folder, as diffusers or transformers keep them. Raises CheckpointError."""
    folder = model / name
    stem = "model" if find_weights(folder) else "diffusion_pytorch_model"
    return read_tensors(folder, stem)


def fingerprint(model: nn.Module, trained: set[str]) -> str:
    """A hash of every tensor of a model but those that are trained."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def average_of(folder: Path, what: str = "this part") -> dict[str, torch.Tensor]:
    """The moving average that a training has left in its folder, or the weights there from which it is to begin.

    Raises: CheckpointError.
    """
    path = folder / "average.safetensors"
    if path.exists():
        return load_file(path)
    if (folder / SHIPPED).exists():
        return load_file(folder / SHIPPED)
    raise CheckpointError(f"{path} is missing: train {what} first.")


def save_model(pipe: DiffusionPipeline, root: Path, **arguments: Any) -> Path:
    """Write the model folder of a run anew, under a temporary name; `Run.export` puts it in the place of the last."""
    target = temporary_name(root / "model")
    pipe.save_pretrained(target, **arguments)
    return target
