"""MagicInfinite's first weights, from the published ones of HunyuanVideo: what is new changes nothing yet. Nothing is
fetched."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from ...errors import CheckpointError, InputError
from ...speech import Wav2VecEncoder, WhisperEncoder
from ...weights.conversion import Opened
from ...weights.files import PathLike, StoredTensor, Weights, read_json
from ...weights.fit import Part, build, check, network_of
from ...weights.hunyuan_video import converted, is_original
from ...weights.places import FIND
from ...wording import nearest
from .prompts import components_of
from .transformer import MagicInfiniteTransformer3DModel

_NEW = ("audio_projector.", "audio_attention.", "portrait_embedder.")  # modules that HunyuanVideo lacks
_PATCHES = "x_embedder.proj.weight"
_CLASS = "HunyuanVideoTransformer3DModel"


# ---- the transformer


def transformer_arguments(config: Mapping[str, Any], source: Any = "the configuration") -> dict[str, Any]:
    """Arguments of our transformer, from the configuration of HunyuanVideo's in diffusers, joined with those of ours.

    HunyuanVideo reads noisy latents alone (text to video; image to video by `token_replace`), or the latents of an
    image beside them, or a mask of where they are known as well (`latent_concat`): these are ours, in the same order.
    Raises: CheckpointError for another model, InputError for a field that is not known.
    """
    if (name := config.get("_class_name", _CLASS)) != _CLASS:
        raise CheckpointError(f"{source} is that of a {name}; that of a {_CLASS} is needed.")
    fields = {name: value for name, value in config.items() if name[0] != "_" and name != "image_condition_type"}
    known = inspect.signature(MagicInfiniteTransformer3DModel).parameters
    if unknown := [name for name in fields if name not in known]:
        raise InputError(f"{source} has an unknown field {unknown[0]!r}{nearest(unknown[0], known)}")
    own = fields.get("out_channels", known["out_channels"].default)
    given = fields.get("in_channels", known["in_channels"].default)
    if given not in (own, 2 * own, 2 * own + 1):
        raise CheckpointError(
            f"{source} has {given} input channels; {own} (noisy latents), {2 * own} (and those of an image) or "
            f"{2 * own + 1} (and a mask) are needed."
        )
    return fields | {"in_channels": own}


def transformer_from_config(config: Mapping[str, Any]) -> MagicInfiniteTransformer3DModel:
    """The transformer of `transformer_arguments`, before training."""
    return MagicInfiniteTransformer3DModel(**transformer_arguments(config))


def completed_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of HunyuanVideo, under its original names or those of diffusers, as `network` has them, and its own for
    what is new."""
    own = network.state_dict()
    ours = {new: part for name, tensor in tensors.items() for new, part in _as_ours(name, tensor, own)}
    return {name: tensor for name, tensor in own.items() if name.startswith(_NEW)} | ours


COMPONENTS: dict[str, Any] = {"transformer": transformer_from_config}
"""The components that `animagic.checkpoints.from_original` can build."""


def _as_ours(name: str, tensor: Tensor, expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """A tensor of HunyuanVideo as our transformer has it: in patches, zeros for channels that are not read."""
    for new, part in converted(name, tensor, expected):
        if new == _PATCHES and part.ndim == 5 and (more := expected[new].shape[1] - part.shape[1]) > 0:
            zeros = part.new_zeros(len(part), more, *part.shape[2:])
            part = torch.cat([part, zeros], dim=1)
        yield new, part


@dataclass(frozen=True)
class FirstWeights(Weights):
    """HunyuanVideo's tensors as our transformer has them, read one at a time, and the initial ones of what is new.

    Args:
        stored: as they lie in their files.
        network: our transformer, on the meta device.
    """

    stored: Weights
    network: nn.Module

    @classmethod
    def of(cls, stored: Weights, network: nn.Module) -> FirstWeights:
        """Raises: CheckpointError for the first tensor that is missing, unexpected or of another shape or kind."""
        expected, entries, names = network.state_dict(), dict[str, StoredTensor](), dict[str, str]()
        for name, entry in stored.entries.items():
            empty = torch.empty(entry.shape, dtype=entry.dtype, device="meta")
            for new, part in _as_ours(name, empty, expected):
                entries[new] = StoredTensor(entry.file, entry.name, part.dtype, tuple(part.shape))
                names[new] = name
        base = {name: tensor for name, tensor in expected.items() if not name.startswith(_NEW)}
        check(base, entries, stored.source, names=names, hint=": is it HunyuanVideo of that configuration?")
        for name in expected.keys() - base.keys():
            entries[name] = StoredTensor(stored.source, name, entries[_PATCHES].dtype, tuple(expected[name].shape))
        return cls(stored.source, stored.files, entries, stored, network)

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, in the dtype in which it is stored, one at a time; the same ones every time."""
        expected = self.network.state_dict()
        for name, tensor in self.stored.read():
            yield from _as_ours(name, tensor, expected)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name, module in self.network.named_children():
                if f"{name}.".startswith(_NEW):
                    started = copy.deepcopy(module).to_empty(device="cpu").apply(_reset)
                    for leaf, tensor in started.state_dict().items():
                        yield f"{name}.{leaf}", tensor.to(self.entries[_PATCHES].dtype)


def _reset(module: nn.Module) -> None:
    reset: Any = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()


def open_transformer(
    source: PathLike, *, config: Mapping[str, Any] | None = None, allow_pickle: bool = False, **ours: Any
) -> Part:
    """Our transformer with HunyuanVideo's weights, checked and not yet read; see `from_hunyuan`."""
    place, fields = Path(source), dict(config or {})
    if place.is_dir():
        folder = place / "transformer" if (place / "transformer").is_dir() else place
        stored, label = Weights.open(folder, "diffusion_pytorch_model", allow_pickle), folder / "config.json"
        fields = read_json(label) | fields
    else:
        stored, label = Weights.open(place, allow_pickle=allow_pickle), place
        if not is_original(stored.entries) and config is None:
            raise CheckpointError(
                f"{place} holds no transformer of HunyuanVideo under its original names; give a folder of diffusers, "
                "or the configuration of these weights."
            )
        patches = stored.entries.get("img_in.proj.weight")
        published = {"guidance_embeds": any(name.startswith("guidance_in.") for name in stored.entries)}
        fields = published | ({"in_channels": patches.shape[1]} if patches else {}) | fields
    arguments = transformer_arguments(fields | ours, label)
    network = build(lambda: MagicInfiniteTransformer3DModel(**arguments), label)
    return Part(network, FirstWeights.of(stored, network))


def from_hunyuan(
    source: PathLike,
    *,
    config: Mapping[str, Any] | None = None,
    torch_dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
    **ours: Any,
) -> MagicInfiniteTransformer3DModel:
    """Our transformer, beginning where HunyuanVideo ended: where nothing is known of a portrait and nobody speaks, its
    numbers are those of HunyuanVideo, and it is ready for training.

    Args:
        source: HunyuanVideo in diffusers' layout, or the folder of its transformer alone; or its original file
            (.safetensors, or mp_rank_00_model_states.pt).
        config: fields in which HunyuanVideo differs from its config.json; of an original file, from the published one.
        torch_dtype: of the weights; None: as stored.
        allow_pickle: read the original file, a pickle; no code in it is run.
        ours: arguments of MagicInfiniteTransformer3DModel that HunyuanVideo's lacks, as `num_audio_layers`.
    Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
    """
    return open_transformer(source, config=config, allow_pickle=allow_pickle, **ours).load(torch_dtype)


# ---- a pipeline


def open_published(
    cls: type,
    hunyuan: PathLike,
    wav2vec: PathLike | None = None,
    *,
    transformer: PathLike | None = None,
    vae: PathLike | None = FIND,
    text_encoder: None = FIND,
    config: Mapping[str, Any] | None = None,
    torch_dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
    **ours: Any,
) -> Opened:
    """Find and check the parts of a pipeline of class `cls`; see `load_published`. The transformer and the autoencoder
    stay on disk until they are loaded."""
    heard: Any = WhisperEncoder if wav2vec is None else Wav2VecEncoder.from_pretrained(Path(wav2vec))
    ours = {"audio_layers": heard.layers, "audio_channels": heard.channels} | ours
    source = hunyuan if transformer is None else transformer
    parts = {"transformer": open_transformer(source, config=config, allow_pickle=allow_pickle, **ours)}
    others: dict[str, Any] = {} if wav2vec is None else {"audio_encoder": heard.model}
    if vae is not None:
        place = Path(hunyuan) / "vae" if vae is FIND else Path(vae)
        network = network_of(AutoencoderKLHunyuanVideo, read_json(place / "config.json"), place / "config.json")
        parts["vae"] = Part.checked(network, Weights.open(place, "diffusion_pytorch_model", allow_pickle))
    if text_encoder is FIND:
        others |= components_of(Path(hunyuan), torch_dtype)
        text = others["text_encoder"].config.get_text_config()
        if text.hidden_size != (reads := parts["transformer"].network.config.text_embed_dim):
            raise CheckpointError(
                f"{hunyuan} has a text encoder of {text.hidden_size} channels; the transformer reads {reads}."
            )
    return Opened(cls(**{name: part.network for name, part in parts.items()}, **others), parts)


def load_published(
    cls: type, hunyuan: PathLike, wav2vec: PathLike | None = None, *, torch_dtype: Any = None, **files: Any
) -> Any:
    """A pipeline of class `cls` that begins where HunyuanVideo ended: what `MagicInfinitePipeline.from_published` does.
    It has not learned to speak yet; its use is to be trained.

    Args:
        hunyuan: the folder of HunyuanVideo in diffusers' layout, from text or from an image.
        wav2vec: the folder of wav2vec 2.0, as transformers saves it; None: the embedded encoder of speech.
        transformer: a folder or original file in place of the transformer in `hunyuan`; see `from_hunyuan`, also for
            config, allow_pickle, and the arguments of ours.
        vae: the folder of another autoencoder; None: do without.
        text_encoder: None: do without text encoders.
        torch_dtype: of the weights; None: as stored.
    Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
    """
    opened = open_published(cls, hunyuan, wav2vec, torch_dtype=torch_dtype, **files)
    for part in opened.parts.values():
        part.load(torch_dtype)
    return opened.pipeline
