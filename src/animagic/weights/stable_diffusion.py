"""Stable Diffusion 1.5 and XL in every layout: one file in Stability AI's (how DreamBooth models are shared), one file
with the UNet of diffusers, or a folder of diffusers. Nothing is fetched."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as single_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..errors import CheckpointError, first_line
from .files import PathLike, read_json, read_tensors
from .fit import check, network_of

CLASSES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
# In Stability AI's layout.
_PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."),
    "text_encoder_2": ("conditioner.embedders.1.model.",),
}
# The attention of autoencoders written by old versions of diffusers.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

SD15: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    },
}
"""Stable Diffusion 1.4 and 1.5: configurations of diffusers and transformers."""

SDXL: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {**SD15["vae"], "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    "text_encoder": SD15["text_encoder"],
    "text_encoder_2": {
        **SD15["text_encoder"],
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
}
"""Stable Diffusion XL."""


class StableDiffusion:
    """The weights of a text-to-image model in one of its layouts.

    Args:
        source: a file or folder.
        config: a folder of diffusers, whose configurations (and tokenizer) are taken where the source has none.
        allow_pickle: read pickles; no code in them is run.

    parts: which of unet, vae, text_encoder, text_encoder_2 it has.
    Raises: InputError, CheckpointError, which name the file.
    """

    def __init__(self, source: PathLike, config: PathLike | None = None, allow_pickle: bool = False):
        self.source, self.allow_pickle = Path(source), allow_pickle
        self._folders = [Path(config)] if config is not None else []
        self._tensors: dict[str, Tensor] = {}
        if config is not None and not Path(config).is_dir():
            raise CheckpointError(f"there is no folder {config}.")
        if self.source.is_dir():
            self._folders.insert(0, self.source)
            self.parts = [part for part in CLASSES if (self.source / part / "config.json").is_file()]
            if "unet" not in self.parts:
                raise CheckpointError(f"{source} is no text-to-image model of diffusers: it lacks unet/config.json.")
            return
        if not self.source.is_file():
            raise CheckpointError(f"there is no file and no folder {source}.")
        self._tensors = read_tensors(self.source, allow_pickle=allow_pickle)
        if any(name.startswith("cond_stage_model.model.") for name in self._tensors):
            raise CheckpointError(f"{source} is Stable Diffusion 2, which is not supported; 1.5 and XL are.")
        self._is_diffusers = "conv_in.weight" in self._tensors
        if self._is_diffusers:
            self.parts = ["unet"]
            return
        self.parts = [part for part in CLASSES if any(name.startswith(_PREFIXES[part]) for name in self._tensors)]
        if "unet" not in self.parts:
            raise CheckpointError(
                f"{source} is no text-to-image model: it has neither model.diffusion_model.* nor conv_in.weight."
            )

    @cached_property
    def _is_xl(self) -> bool:
        return any(name.startswith(("conditioner.", "add_embedding.")) for name in self._tensors)

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part: of the folders, or that of the published model of this kind."""
        for folder in self._folders:
            if (folder / part / "config.json").is_file():
                fields = read_json(folder / part / "config.json")
                return {name: value for name, value in fields.items() if not name.startswith("_")}
        return dict((SDXL if self._is_xl else SD15)[part])

    def network(self, part: str) -> Any:
        """A part without its weights. Raises CheckpointError for a configuration that describes none."""
        return network_of(CLASSES[part], self.config(part), f"the {part} of {self.source}")

    def tokenizer(self, part: str) -> Any:
        """Raises CheckpointError if there is none."""
        for folder in self._folders:
            if (folder / part).is_dir():
                try:
                    return CLIPTokenizer.from_pretrained(folder / part, local_files_only=True)
                except Exception as error:  # on a damaged file, transformers raises almost anything
                    raise CheckpointError(
                        f"the tokenizer {folder / part} cannot be read: {first_line(error)}."
                    ) from error
        raise CheckpointError(
            f"{self.source} has no {part}; give as config a folder of diffusers that has one, or tokenizer=None to do "
            "without."
        )

    def read(self, part: str, network: Any, without: str | None = None) -> dict[str, Tensor]:
        """The tensors of a part under the names of its network, all of which fit.

        without: of the network and the files, tensors whose names contain it are left out.
        """
        if self._tensors:
            tensors = self._tensors if self._is_diffusers else self._converted(part, network)
        else:
            stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
            tensors = read_tensors(self.source / part, stem, self.allow_pickle)
        if part == "vae":
            tensors = {_without_old_attention(name): tensor for name, tensor in tensors.items()}
        if part.startswith("text_encoder"):
            tensors = {name: t for name, t in tensors.items() if not name.endswith("position_ids")}
            if not hasattr(network, "text_model"):
                tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
        expected = network.state_dict()
        if without is not None:
            tensors, expected = ({n: t for n, t in d.items() if without not in n} for d in (tensors, expected))
        given = {id(tensor): name for name, tensor in self._tensors.items()}  # converting renames, mostly
        names = {name: given.get(id(tensor), name) for name, tensor in tensors.items()}
        check(expected, tensors, self.source, hint=": is it for another base model?", names=names)
        return tensors

    def _converted(self, part: str, network: Any) -> dict[str, Tensor]:
        try:
            if part == "unet":
                return single_file.convert_ldm_unet_checkpoint(self._tensors, network.config)
            if part == "vae":
                return single_file.convert_ldm_vae_checkpoint(self._tensors, network.config)
            if part == "text_encoder":
                return single_file.convert_ldm_clip_checkpoint(self._tensors)
            return single_file.convert_open_clip_checkpoint(network, self._tensors, prefix=_PREFIXES[part][0])
        except KeyError as error:
            raise CheckpointError(f"{self.source}: the tensor {error.args[0]} is missing.") from error


def _without_old_attention(name: str) -> str:
    if ".attentions." not in name:
        return name
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name
