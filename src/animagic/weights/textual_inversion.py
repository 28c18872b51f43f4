"""Textual inversion: new words for CLIP text encoders, from files (arXiv 2208.01618)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders import TextualInversionLoaderMixin
from torch import Tensor

from ..errors import CheckpointError, InputError
from .files import PathLike, check_allowed, read_pickle, read_tensors
from .values import is_dense, is_finite

# Which encoder of SDXL an embedding is for.
_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}


def read_embedding(file: Path, allow_pickle: bool = False) -> tuple[str, dict[str, Tensor]]:
    """The word and, for each text encoder that gets one, its vectors (count, width).

    Files of A1111's web UI (`string_to_param`, `emb_params`), of diffusers (word -> vectors), and for SDXL (`clip_l`,
    `clip_g`) are understood; where they do not say the word, the file's name is it.
    Raises: InputError for a pickle that is not allowed, CheckpointError, which names the file.
    """
    if not file.is_file():
        raise CheckpointError(f"there is no embedding {file}.")
    if file.suffix == ".safetensors":
        content: Any = read_tensors(file)
    else:
        check_allowed(file, allow_pickle)
        content = read_pickle(file)
    word, vectors = file.stem, content
    if isinstance(content, Mapping):
        if isinstance(content.get("string_to_param"), Mapping):
            word, vectors = content.get("name") or word, content["string_to_param"].get("*")
        elif "emb_params" in content:
            vectors = content["emb_params"]
        elif not set(content) & set(_ENCODERS) and len(content) == 1:
            word, vectors = next(iter(content.items()))
    found = vectors if isinstance(vectors, Mapping) else {"clip_l": vectors}
    parts = {}
    for name, value in found.items():
        if name not in _ENCODERS or not is_dense(value) or value.ndim not in (1, 2) or not value.numel():
            raise CheckpointError(f"{file} is no embedding of textual inversion: {name!r} is unknown.")
        if not value.is_floating_point() or not is_finite(value):
            raise CheckpointError(f"the embedding {file} holds {value.dtype}s that are not all finite numbers.")
        parts[_ENCODERS[name]] = value.detach().float().reshape(-1, value.shape[-1])
    return str(word), parts


class TextualInversionMixin(TextualInversionLoaderMixin):
    """Textual inversion in a pipeline with one or two CLIP text encoders, with the methods of diffusers."""

    tokenizer: Any
    text_encoder: Any

    def load_textual_inversion(self, source: PathLike, token: str | None = None, *, allow_pickle: bool = False) -> str:
        """Teach the text encoders the word of an embedding.

        Args:
            source: a file, or a folder with learned_embeds.safetensors or .bin.
            token: the word to use in prompts; None: that of the file.
            allow_pickle: read pickles (.pt, .bin); no code in them is run.
        Returns the word. Raises: InputError for a pickle that is not allowed, and a word that is known already;
            CheckpointError for an embedding of another width, or that is for an encoder that is not there.
        """
        path = Path(source)
        if path.is_dir():
            names = [path / f"learned_embeds{suffix}" for suffix in (".safetensors", ".bin")]
            path = next((file for file in names if file.is_file()), names[0])
        word, parts = read_embedding(path, allow_pickle)
        word = token or word
        for part, vectors in parts.items():
            encoder = getattr(self, part, None)
            if encoder is None:
                raise CheckpointError(f"the embedding {path} is for {part}, which this pipeline does not have.")
            width = encoder.get_input_embeddings().weight.shape[-1]
            if vectors.shape[-1] != width:
                raise CheckpointError(
                    f"the embedding {path} is {vectors.shape[-1]} numbers wide; this model's {part} reads {width}: it "
                    "was made for another base model."
                )
            if word in getattr(self, part.replace("text_encoder", "tokenizer")).get_vocab():
                raise InputError(f"the word {word!r} is known to the text encoder already; choose another token.")
        for part, vectors in parts.items():
            tokenizer = getattr(self, part.replace("text_encoder", "tokenizer"))
            super().load_textual_inversion(vectors, word, tokenizer, getattr(self, part))
        return word
