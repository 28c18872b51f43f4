"""Model folders, compared with the networks that they become: the libraries that read them only warn, if at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from ..weights.files import Weights

_STEMS = ("diffusion_pytorch_model", "model")


def open_weights(folder: Path, names: Iterable[str], allow_pickle: bool) -> dict[str, Weights]:
    """The weights of the networks of these names that lie in a model folder, by their names; nothing is read but
    the headers.

    Raises: InputError for a pickle that is not allowed, CheckpointError for a damaged file or a configuration of
        impossible sizes.
    """
    from ..weights.files import Weights, find_weights, read_json
    from ..weights.values import check_sizes

    found = {}
    for name in names:
        place = folder / name
        stem = next((stem for stem in _STEMS if place.is_dir() and find_weights(place, stem)), None)
        if stem is not None:
            found[name] = Weights.open(place, stem, allow_pickle)
        if (place / "config.json").is_file():
            check_sizes(read_json(place / "config.json"), place / "config.json")
    return found


def check_loaded(components: Mapping[str, Any], weights: Mapping[str, Weights]) -> None:
    """Raises CheckpointError for the first tensor that is missing, unexpected, of another shape or kind, or that holds
    what is no number."""
    import torch

    from ..weights.values import is_finite

    networks = {part: module for part, module in components.items() if isinstance(module, torch.nn.Module)}
    # A part that is no component, as a motion adapter, has been put into another one, under similar names.
    inside = {_place(name) for part, stored in weights.items() if part not in networks for name in stored.entries}
    for part in weights.keys() & networks.keys():
        _check_names(part, networks[part], weights[part], inside)
    for part in weights:
        for name, tensor in _tensors(components.get(part)):
            if not is_finite(tensor):
                raise CheckpointError(f"the tensor {part}.{name} holds NaN or infinity; get the model again.")


def _tensors(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if hasattr(module, "named_parameters"):
        yield from module.named_parameters()
        yield from module.named_buffers()


def _check_names(part: str, module: torch.nn.Module, stored: Weights, inside: set[str]) -> None:
    own = module.state_dict()
    known = {name for name, _ in _tensors(module)} | own.keys()  # also buffers that are not stored
    found = {_own_name(name, module, known): entry for name, entry in stored.entries.items()}
    for name, entry in found.items():
        if name not in known:
            if _ignored(name, module):
                continue
            raise CheckpointError(f"{entry.file}: the tensor {entry.name} is unexpected.")
        if name in own and own[name].is_floating_point() and not entry.dtype.is_floating_point:
            raise CheckpointError(f"{entry.file}: the tensor {entry.name} is stored as {entry.dtype}, not as numbers.")
        if name in own and tuple(own[name].shape) != entry.shape:
            shape = list(own[name].shape)
            raise CheckpointError(
                f"{entry.file}: the tensor {entry.name} has the shape {list(entry.shape)}, not {shape}."
            )
    shared = {own[name].data_ptr() for name in found if name in own}  # weights that two layers have in common
    for name, tensor in own.items():
        if name not in found and _place(name) not in inside and (tensor.is_meta or tensor.data_ptr() not in shared):
            raise CheckpointError(f"{stored.source} lacks the tensor {part}.{name}.")


def _place(name: str) -> str:
    """Where in a network a tensor lies: "down_blocks.0.motion_modules"."""
    return ".".join(name.split(".")[:3])


def _own_name(name: str, module: torch.nn.Module, known: set[str]) -> str:
    """The network's name for a tensor: files of transformers may have the prefix of the whole model, or lack it."""
    if name in known:
        return name
    _, _, short = name.partition(".")
    longer = (other for other in (short, f"{getattr(module, 'base_model_prefix', '')}.{name}") if other in known)
    return next(longer, name)


def _ignored(name: str, module: torch.nn.Module) -> bool:
    """Whether the library says that a network of this kind does without."""
    patterns: Any = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    return name.endswith("position_ids") or any(re.search(pattern, name) for pattern in patterns)
