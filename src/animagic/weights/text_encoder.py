"""Text encoders of transformers from the folders in which whole models are published. Nothing is fetched."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError, first_line
from .files import Weights, read_json
from .fit import Part, network_of


def open_text_encoder(cls: Any, folder: Path, channels: int, allow_pickle: bool = False) -> Part:
    """The encoder of a model in a folder, checked; the model may have a decoder, which is left out.

    Args:
        cls: its class, as T5EncoderModel.
        channels: of its embeddings, which must be as many.
    Raises: CheckpointError; InputError for a pickle that is not allowed.
    """
    file, kind = folder / "config.json", cls.config_class.model_type
    fields = read_json(file)
    if fields.get("model_type") != kind:
        name = fields.get("model_type")
        raise CheckpointError(f"{file} is not that of a {kind.upper()}: its model_type is {name!r}, not {kind!r}.")
    network = network_of(cls, fields, file)
    width = network.config.hidden_size
    if width != channels:
        raise CheckpointError(f"{file} describes a text encoder of {width} channels; the transformer reads {channels}.")
    network.config.architectures = [cls.__name__]
    weights = Weights.open(folder, allow_pickle=allow_pickle)
    own = {name.partition(".")[0] for name in network.state_dict()}
    tied = cls._tied_weights_keys or {}  # stored under either name, or both
    names = {name: tied.get(name, name) for name in weights.entries if name.partition(".")[0] in own}
    return Part.checked(network, weights.renamed(names), without=tied)


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder. Raises CheckpointError; InputError where a library is missing that reads it."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        if not (folder / "spiece.model").is_file():
            raise CheckpointError(f"{folder} holds no tokenizer: spiece.model is missing.")
        if not all(importlib.util.find_spec(name) for name in ("sentencepiece", "google.protobuf")):
            raise InputError(f"to read {folder / 'spiece.model'}, pip install 'animagic[convert]'.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # on a damaged file, transformers and sentencepiece raise almost anything
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {first_line(error)}.") from error
