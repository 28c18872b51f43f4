"""The register of models: by name the embedded ones, by folder or hub id any other."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AnimagicError, CheckpointError, InputError, first_line
from ..outside import parsed, read_text
from ..systems import SYSTEMS, System
from .words import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from ..pipelines.memory import Networks

_HERE = Path(__file__).parent
HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token")
"""Arguments of `from_pretrained` about where a model lies on the hub."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A model of the register.

    Args:
        folder: where it lies. summary: one line for people.
        base: the model whose parts it uses, but for those that it has itself.
    """

    name: str
    folder: Path
    summary: str
    base: str | None = None

    @property
    def system(self) -> str:
        return system_of(self.name)

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


_MODELS: dict[str, EmbeddedModel] = {}


def register(name: str, folder: str | Path, summary: str, base: str | None = None) -> None:
    """Give a model folder a name, by which every command knows it."""
    _MODELS[name] = EmbeddedModel(name, Path(folder), summary, base)


for _name, _about in json.loads((_HERE / "models.json").read_text("utf-8")).items():
    register(_name, _HERE / _name, **_about)
DEFAULT = next(iter(_MODELS))


def names() -> list[str]:
    """The names of the embedded models."""
    return list(_MODELS)


def entry(name: str) -> EmbeddedModel:
    """An embedded model by name; raises InputError that suggests the nearest names."""
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=3, cutoff=0.4) or list(_MODELS)
        raise InputError(
            f"there is no model {name!r}: did you mean {' or '.join(near)}? "
            "A folder or a hub id (owner/name) works as well."
        )
    return _MODELS[name]


def embedded(model: str | Path) -> str | Path:
    """The folder of an embedded model by its name; anything else as it is."""
    return _MODELS[model].folder if isinstance(model, str) and model in _MODELS else model


def resolve(model: str | Path) -> str:
    """A zoo name, a folder or a hub id to what diffusers loads from. Raises InputError."""
    text = str(model)
    if not text.strip():
        raise InputError(f"the name of the model is empty; known are {', '.join(_MODELS)}.")
    if text in _MODELS:
        return str(_MODELS[text].folder)
    if Path(text).is_dir():
        if not (Path(text) / "model_index.json").exists():
            raise InputError(f"{text} is not a model folder: it has no model_index.json.")
        return text
    # A hub id is owner/name; anything else was meant as a name or a folder.
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return text
    if "/" in text:
        raise InputError(f"there is no model folder {text}.")
    return str(entry(text).folder)


def _index(model: str | Path, **hub: Any) -> dict[str, Any]:
    """The fields of model_index.json. hub: `revision`, `token`, ... Raises InputError, CheckpointError."""
    from huggingface_hub import hf_hub_download

    source = resolve(model)
    try:
        index = Path(source) / "model_index.json"
        path = index if index.exists() else Path(hf_hub_download(source, "model_index.json", **hub))
        fields = parsed(read_text(path, "file"), f"file {path}", as_json=True)
        if not isinstance(fields, dict) or not isinstance(fields.get("_class_name"), str):
            raise ValueError("its model_index.json is not that of a pipeline.")
        return fields
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the model {model} cannot be read: {str(error).splitlines()[0]}") from error


def loras(model: str | Path, kind: str = "loras") -> dict[str, Path]:
    """The LoRAs that lie in a model's folder, by name. kind: "loras" (looks) or "motion_loras" (camera moves)."""
    return {file.stem: file for file in sorted((Path(resolve(model)) / kind).glob("*.safetensors"))}


def vocabulary(model: str | Path) -> Vocabulary | None:
    """The words that a model, or its base, was trained with: group -> canonical word -> its wordings.

    None: its folder does not say, or is not here. Raises: InputError, CheckpointError.
    """
    own, base = read_vocabulary(Path(resolve(model))), _MODELS[str(model)].base if str(model) in _MODELS else None
    return vocabulary(base) if own is None and base is not None else own


def settings(model: str | Path = DEFAULT) -> dict[str, Any]:
    """The sampling settings of a model, without loading its weights. Raises InputError, CheckpointError."""
    return _index(model).get("config") or {}


def system_of(model: str | Path, **hub: Any) -> str:
    """The name of a model's system. hub: `revision`, `token`, ... where it lies on the hub.

    Raises: InputError, CheckpointError.
    """
    return _system(model, _index(model, **hub)).name


def _system(model: str | Path, index: dict[str, Any]) -> System:
    name = index["_class_name"]
    for system in SYSTEMS.values():
        if system.makes(name):
            return system
    known = ", ".join(system.title for system in SYSTEMS.values())
    raise InputError(f"the model {model} is a {name}; known are models of {known}.")


def pipeline_class(model: str | Path) -> Any:
    """The class of a model's pipeline. Raises InputError, CheckpointError."""
    import animagic

    return getattr(animagic, next(iter(SYSTEMS[system_of(model)].pipelines.values())))


def is_base(model: str | Path) -> bool:
    """Whether a model makes no videos itself: a system builds on it. Raises InputError, CheckpointError."""
    return _needed(model, _index(model)) is not None


def _needed(model: str | Path, index: dict[str, Any]) -> str | None:
    """The advice for a model that only is the base of one that makes videos; None for others."""
    bases = _system(model, index).bases
    return next((needed for start, needed in bases.items() if index["_class_name"].startswith(start)), None)


def folder_of(model: str | Path) -> Path:
    """The folder of a model, fetched from the hub if it is not here. Raises InputError, CheckpointError."""
    from huggingface_hub import snapshot_download

    source = resolve(model)
    try:
        return Path(source) if Path(source).is_dir() else Path(snapshot_download(source))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the model {model} cannot be read: {str(error).splitlines()[0]}") from error


def dtype_on(model: str | Path, device: str) -> torch.dtype:
    """The dtype of a model's weights: bfloat16 on a GPU that has it if they are stored so, else float32.

    Raises: InputError, CheckpointError.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not device.startswith("cuda") or not torch.cuda.is_bf16_supported():
        return torch.float32
    folder = folder_of(model)
    kinds: set[str] = set()
    try:
        for file in sorted(file for part in ("transformer", "unet") for file in (folder / part).glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                kinds |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"the model {model} cannot be read: {str(error).splitlines()[0]}") from error
    return torch.bfloat16 if "BF16" in kinds else torch.float32


def load(model: str | Path = DEFAULT, task: str = "text", **arguments: Any) -> DiffusionPipeline:
    """The pipeline of a model.

    Args:
        model: a zoo name, a folder, or a hub id.
        task: "text", "image" or "video": what the video is made from.
        arguments: passed on to `from_pretrained` (dtype, device_map, ...). Without a dtype, weights are loaded as
            float32, which every device has and which is the fastest on a CPU. use_safetensors=None: pickles, too.
    Raises: InputError for an unknown model or task, CheckpointError for a folder that cannot be loaded.
    """
    import torch

    import animagic

    index = _index(model, **{name: arguments[name] for name in HUB if name in arguments})
    if (needed := _needed(model, index)) is not None:
        raise InputError(f"the model {model} makes pictures; {needed}.")
    names = _system(model, index).pipelines
    if task not in names:
        raise InputError(f"task {task!r} is unknown; choose from {', '.join(names)}.")
    source = resolve(model)
    arguments = {"dtype": torch.float32, "use_safetensors": True} | arguments
    base = _MODELS[str(model)].base if str(model) in _MODELS else None
    if base is not None:
        # A base of another system has parts that this one has no place for.
        lent = {name for name in index if not (Path(source) / name).is_dir()}
        arguments |= {name: part for name, part in load(base, task, **arguments).components.items() if name in lent}
    from .strict import check_loaded, open_weights

    kind = getattr(animagic, names[task])
    try:
        if not Path(source).is_dir():
            hub = {name: arguments[name] for name in (*HUB, "use_safetensors") if name in arguments}
            source = kind.download(source, **hub)
        named = [name for name in index if name not in arguments]  # what the caller gives is not read from the folder
        weights = open_weights(Path(source), named, allow_pickle=not arguments["use_safetensors"])
        pipe: Any = kind.from_pretrained(source, **arguments)
        if "quantization_config" not in arguments:  # which gives tensors of other shapes
            check_loaded(pipe.components, weights)
        pipe.plan()  # settings that no plan can be made from
    except AnimagicError as error:
        raise type(error)(f"the model {model} cannot be loaded: {error}") from error
    except Exception as error:  # on a damaged folder, diffusers, transformers and safetensors raise almost anything
        name = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        raise CheckpointError(f"the model {model} cannot be loaded: {name}{first_line(error)}.") from error
    return pipe


def memory_networks() -> dict[str, type[Networks]]:
    """Name of a system -> its class that predicts memory, of those that have one."""
    return {name: row.room("memory").MemoryNetworks for name, row in SYSTEMS.items() if "memory" in row.rooms}


def networks_of(model: str, dtype: torch.dtype) -> Networks:
    """The networks of a model in that dtype, without weights, to predict its memory: a published one ("magi1-4.5b",
    "24B_distill_quant", ...), an original configuration, a name that `animagic models` lists, or a folder.

    Raises: InputError, CheckpointError.
    """
    kinds = memory_networks()
    if model in _MODELS or Path(model).is_dir():
        base = _MODELS[model].base if model in _MODELS else None
        system = _system(model, index := _index(model)).name
        if system not in kinds or _needed(model, index) is not None:
            raise InputError(f"the memory of the model {model} cannot be predicted: it is a {index['_class_name']}.")
        others = None if base is None else Path(resolve(base))
        return kinds[system].of_folder(Path(resolve(model)), index, dtype, others)
    for kind in kinds.values():
        if (networks := kind.of_published(model, dtype)) is not None:
            return networks
    published = [name for kind in kinds.values() for choices in kind.published.values() for name in choices.values()]
    raise InputError(
        f"there is no model {model!r} here; give a folder, {', '.join(_MODELS)}, "
        f"or a published model: {', '.join(published)}."
    )
