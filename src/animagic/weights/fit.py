"""Weights and the network they belong to: compared name by name, the network built without memory, then filled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from ..errors import CheckpointError, InputError, first_line
from .files import StoredTensor, Weights
from .values import check_sizes

Network = TypeVar("Network", bound=nn.Module)


def check(
    expected: Mapping[str, Tensor],
    given: Mapping[str, Tensor | StoredTensor],
    source: Any,
    *,
    hint: str = "",
    names: Mapping[str, str] | None = None,
    same_kind: bool = True,
) -> None:
    """Compares tensors with those of a network, by name and shape.

    Args:
        source: what the errors name; of stored tensors, the file of the tensor.
        hint: added to the sentence, as in ": is it for another base model?".
        names: what tensors are called in the file, where it is something else.
        same_kind: refuse integers and 8-bit floats in place of floats, too; not needed where values are copied.
    Raises: CheckpointError for the first tensor that is missing, unexpected or of another shape or kind.
    """
    names = names or {}
    for name, ours in expected.items():
        if name not in given:
            raise CheckpointError(f"{source}: the tensor {name} is missing{hint}.")
        theirs = given[name]
        what = f"{getattr(theirs, 'file', source)}: the tensor {names.get(name, name)}"
        has, needs = list(theirs.shape), list(ours.shape)
        if has != needs:
            raise CheckpointError(f"{what} has the shape {has}, not {needs}{hint}.")
        if same_kind and _kind(theirs.dtype) != _kind(ours.dtype):
            raise CheckpointError(f"{what} is stored as {theirs.dtype}, not as {ours.dtype}{hint}.")
    for name, theirs in given.items():
        if name not in expected:
            file = getattr(theirs, "file", source)
            raise CheckpointError(f"{file}: the tensor {names.get(name, name)} is unexpected{hint}.")


def _kind(dtype: torch.dtype) -> str:
    """8-bit numbers stand for other ones only with their scales; all other floats can be turned into each other."""
    return "float" if dtype.is_floating_point and dtype.itemsize > 1 else str(dtype)


def build(make: Callable[[], Network], source: Any) -> Network:
    """The network that `make` makes, its parameters on the meta device, ready for inference.

    Raises: CheckpointError, which names the `source` of its configuration, for one that describes no network.
    """
    try:
        with init_empty_weights(include_buffers=False):
            return make().eval()
    except InputError as error:
        raise CheckpointError(f"{source} cannot be used: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} describes no network that can be built: {first_line(error)}.") from error


def network_of(cls: Any, config: Mapping[str, Any], source: Any) -> Any:
    """A network of diffusers or transformers with this configuration, on the meta device; see `build`."""
    of_transformers = getattr(cls, "config_class", None)
    fields = dict(config)
    check_sizes(fields, source)
    return build(lambda: cls(of_transformers.from_dict(fields)) if of_transformers else cls.from_config(fields), source)


def changed_twin(network: Network, **changes: Any) -> Network:
    """A network of diffusers once more, on the meta device, with other values of some fields of its configuration."""
    config: Any = network.config
    with torch.device("meta"):
        return type(network)(**{name: value for name, value in config.items() if name[0] != "_"} | changes)


def fill(
    network: Network, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None
) -> Network:
    """The network of `build` with its weights, which must have been checked; no second copy of them is made.

    dtype: see `loading_dtype`; None: as they come.
    """
    kept = getattr(network, "_keep_in_fp32_modules", None) or ()
    if dtype == torch.bfloat16 and not isinstance(network, ModelMixin):
        kept = ()  # of transformers, it is for float16 only
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if dtype is not None:
            tensor = tensor.to(loading_dtype(name, tensor.dtype, dtype, kept))
        parent, _, leaf = name.rpartition(".")
        owner = network.get_submodule(parent)
        old = getattr(owner, leaf)
        if isinstance(old, nn.Parameter):  # of its own class: FP8 has one
            tensor = type(old)(tensor, requires_grad=old.requires_grad)
        setattr(owner, leaf, tensor)
    tie: Any = getattr(network, "tie_weights", None)
    if tie is not None:
        tie()
    return network.eval()


def loading_dtype(name: str, stored: torch.dtype, wanted: torch.dtype, kept: Iterable[str]) -> torch.dtype:
    """The dtype that a tensor gets in a network of dtype `wanted`, as published files have it: FP8 stays, and what is
    in the modules `kept` stays in float32 where the rest gets less."""
    if stored.itemsize == 1:
        return stored
    if wanted.itemsize < 4 and any(part in kept for part in name.split(".")):
        return torch.float32
    return wanted


@dataclass(frozen=True)
class Part:
    """A network of a pipeline on the meta device, with the weights that fit it."""

    network: Any
    weights: Weights

    @classmethod
    def checked(cls, network: Any, weights: Weights, *, without: Iterable[str] = (), hint: str = "") -> Part:
        """without: tensors of the network that need not be in the files. Raises: CheckpointError, see `check`."""
        expected = {name: tensor for name, tensor in network.state_dict().items() if name not in without}
        check(expected, weights.entries, weights.source, hint=hint)
        return cls(network, weights)

    def load(self, dtype: torch.dtype | None = None) -> Any:
        """The network with its weights, ready for inference. dtype: see `loading_dtype`."""
        return fill(self.network, self.weights.read(), dtype)
