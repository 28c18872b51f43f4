"""The files that people put together for AnimateDiff: a picture model, a motion module, and what goes around them.

Picture models come as one file in Stability AI's layout (how DreamBooth models are shared), as one file with diffusers'
UNet, or as a folder of diffusers. Nothing is fetched.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils as single_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ...errors import CheckpointError, InputError
from ...shards import Weights, open_file, read_json
from .checkpoint import motion_name, original_names
from .motion import MotionModule
from .published import SD15, SDXL, VERSIONS, published_sampling, recognise, table_length
from .sparse import SparseControlNet
from .unet import AnimateDiffUNet

PathLike = str | os.PathLike
FIND: Any = object()
"""Of the tokenizer: look for it in the folders given."""

_CLASSES: dict[str, Any] = {
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


# ---- picture models


class PictureModel:
    """The weights of a picture model in one of its layouts.

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
            self.parts = [part for part in _CLASSES if (self.source / part / "config.json").is_file()]
            if "unet" not in self.parts:
                raise CheckpointError(f"{source} is no picture model of diffusers: it lacks unet/config.json.")
            return
        if not self.source.is_file():
            raise CheckpointError(f"there is no file and no folder {source}.")
        self._tensors = read_tensors(self.source, allow_pickle)
        if any(name.startswith("cond_stage_model.model.") for name in self._tensors):
            raise CheckpointError(f"{source} is Stable Diffusion 2, for which there are no motion modules.")
        self._is_diffusers = "conv_in.weight" in self._tensors
        if self._is_diffusers:
            self.parts = ["unet"]
            return
        self.parts = [part for part in _CLASSES if any(name.startswith(_PREFIXES[part]) for name in self._tensors)]
        if "unet" not in self.parts:
            raise CheckpointError(
                f"{source} is no picture model: it has neither model.diffusion_model.* nor conv_in.weight."
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
        try:
            return build(_CLASSES[part], self.config(part))
        except (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise CheckpointError(f"{self.source} has a {part} whose configuration is wrong: {reason}.") from error

    def tokenizer(self, part: str) -> Any:
        """Raises CheckpointError if there is none."""
        for folder in self._folders:
            if (folder / part).is_dir():
                try:
                    return CLIPTokenizer.from_pretrained(folder / part, local_files_only=True)
                except Exception as error:  # on a damaged file, transformers raises almost anything
                    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
                    raise CheckpointError(f"the tokenizer {folder / part} cannot be read: {reason}.") from error
        raise CheckpointError(
            f"{self.source} has no {part}; give as config a folder of diffusers that has one, or tokenizer=None to do "
            "without."
        )

    def read(self, part: str, network: nn.Module) -> dict[str, Tensor]:
        """The tensors of a part under the names of its network, all of which fit; it may be an AnimateDiffUNet."""
        if self._tensors:
            tensors = self._tensors if self._is_diffusers else self._converted(part, network)
        else:
            stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
            tensors = dict(Weights.open(self.source / part, stem, self.allow_pickle).read())
        if part == "vae":
            tensors = {_without_old_attention(name): tensor for name, tensor in tensors.items()}
        if part.startswith("text_encoder"):
            tensors = {name: t for name, t in tensors.items() if not name.endswith("position_ids")}
            if not hasattr(network, "text_model"):
                tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
        if part == "unet":
            tensors = {name: tensor for name, tensor in tensors.items() if "motion_modules." not in name}
        expected = {n: t for n, t in network.state_dict().items() if "motion_modules." not in n}
        given = {id(tensor): name for name, tensor in self._tensors.items()}  # converting renames, mostly
        check(expected, tensors, self.source, {name: given.get(id(t), name) for name, t in tensors.items()})
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


def read_tensors(file: Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Every tensor of a file of weights."""
    opened = open_file(file, allow_pickle)
    return dict(opened.read(opened.entries))


def check(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: Path, names: Mapping[str, str] | None = None
) -> None:
    """Raises CheckpointError, which names file and tensor, unless names and shapes are those expected.

    names: what tensors are called in the file, where it is something else.
    """
    names = names or {}
    for name, ours in expected.items():
        if name not in given:
            raise CheckpointError(f"{source}: the tensor {name} is missing.")
        has, needs = list(given[name].shape), list(ours.shape)
        if has != needs:
            raise CheckpointError(
                f"{source}: the tensor {names.get(name, name)} has the shape {has}, not {needs}: is it for another "
                "base model?"
            )
    for name in given:
        if name not in expected:
            raise CheckpointError(f"{source}: the tensor {names.get(name, name)} is unexpected.")


def build(cls: Any, config: Mapping[str, Any]) -> Any:
    """A network on the meta device but for its constant buffers."""
    with init_empty_weights(include_buffers=False):
        if issubclass(cls, (CLIPTextModel, CLIPTextModelWithProjection)):
            return cls(CLIPTextConfig.from_dict(dict(config)))
        return cls.from_config(dict(config))


def fill(network: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """The network, ready for inference, with its tensors, which must have been checked."""
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return network.eval()


# ---- motion modules


@dataclass(frozen=True)
class MotionFile:
    """A motion module as read: its version (of VERSIONS), the arguments of AnimateDiffUNet that go with it, and its
    tensors by their published names."""

    source: Path
    version: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def check_base(self, unet: Any) -> None:
        """Raises CheckpointError if it was made for another kind of base, or does not fit in another way."""
        widths = list(unet.config.block_out_channels)
        names = re.compile(r"down_blocks\.(\d+)\..*\.temporal_transformer\.(norm|proj_in)\.weight")
        levels = {int(m[1]): t.shape[-1] for name, t in self.tensors.items() if (m := names.fullmatch(name))}
        own = [levels[level] for level in sorted(levels)]
        if own and own != widths:
            made_for = {4: "Stable Diffusion 1.5", 3: "SDXL"}.get(len(own), "another base")
            raise CheckpointError(
                f"{self.source} is a motion module for {made_for} (widths {', '.join(map(str, own))}); this base model "
                f"has {', '.join(map(str, widths))}: take a module that was made for it."
            )
        expected = {name: tensor for name, tensor in unet.state_dict().items() if unet.is_motion(name)}
        check(expected, self.tensors, self.source)


def read_motion_module(
    source: PathLike,
    *,
    version: str | None = None,
    config: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
) -> MotionFile:
    """A motion module from its file, in the published layout or diffusers', or from a MotionAdapter's folder.

    Args:
        version: of VERSIONS; None: it is recognised.
        config: arguments of AnimateDiffUNet in which it differs from the published ones.
        allow_pickle: read pickles; no code in them is run.
    Everything in the file but motion modules is ignored.
    Raises: InputError, CheckpointError, which name the file.
    """
    path = Path(source)
    if version is not None and version not in VERSIONS:
        raise InputError(f"AnimateDiff {version!r} is unknown; choose {', '.join(VERSIONS)}.")
    if path.is_dir():
        weights = Weights.open(path, "diffusion_pytorch_model", allow_pickle)
        weights = weights.renamed({name: name for name in weights.entries if "motion_modules." in name})
        read, names = dict(weights.read()), list(weights.entries)
    else:
        file = open_file(path, allow_pickle)
        names = list(file.entries)
        read = dict(file.read(name for name in names if "motion_modules." in name))
    for sign, what in (("controlnet_cond_embedding.", "a SparseCtrl network"), ("lora", "a LoRA")):
        if any(sign in name for name in names):
            raise CheckpointError(f"{source} is {what}, not a motion module.")
    if not read:
        raise CheckpointError(f"{source} is no motion module: no tensor's name contains motion_modules.")
    named = {motion_name(_from_motion_on(name)): tensor for name, tensor in read.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    version = version or recognise(shapes, path)
    arguments = VERSIONS[version] | {
        "motion_max_length": table_length(shapes) or VERSIONS[version]["motion_max_length"]
    }
    return MotionFile(path, version, arguments | dict(config or {}), original_names(named))


def _from_motion_on(name: str) -> str:
    """Without what trainers put before names: module., unet., ..."""
    starts = [name.find(block) for block in ("down_blocks.", "mid_block.", "up_blocks.")]
    return name[min((start for start in starts if start >= 0), default=0) :]


# ---- SparseCtrl


def load_sparse_controlnet(
    source: PathLike, unet: AnimateDiffUNet, *, allow_pickle: bool = False, dtype: torch.dtype | None = None
) -> SparseControlNet:
    """A SparseCtrl network from its published file, or from a folder of `save_pretrained`; RGB or scribble is read from
    its tensors.

    Args:
        unet: what it is to steer. dtype: None: that of the UNet.
    Raises: InputError, CheckpointError, which name file and tensor.
    """
    path, dtype = Path(source), dtype or unet.dtype
    if path.is_dir():
        network = build(SparseControlNet, read_json(path / "config.json"))
        tensors = dict(Weights.open(path, "diffusion_pytorch_model", allow_pickle).read())
    else:
        tensors = original_names(read_tensors(path, allow_pickle))
        with init_empty_weights(include_buffers=False):
            network = SparseControlNet(**_sparse_config(tensors, unet, path))
    check(network.state_dict(), tensors, path)
    return fill(network, tensors, dtype)


def _sparse_config(tensors: Mapping[str, Tensor], unet: AnimateDiffUNet, path: Path) -> dict[str, Any]:
    embedding = "controlnet_cond_embedding."
    simple = f"{embedding}weight" in tensors
    first = tensors.get(f"{embedding}weight" if simple else f"{embedding}conv_in.weight")
    if first is None:
        raise CheckpointError(f"{path} is no SparseCtrl network: the tensor {embedding}conv_in.weight is missing.")
    known = set(inspect.signature(ControlNetModel).parameters)
    config = {name: value for name, value in unet.config.items() if name in known}
    if not simple:
        blocks = (tensors.get(f"{embedding}blocks.{i}.weight") for i in range(1, 99, 2))
        sizes = (len(first), *(len(block) for block in blocks if block is not None))
        config["conditioning_embedding_out_channels"] = sizes
    same = ("motion_num_attention_heads", "motion_num_transformer_blocks", "motion_attention_dim_div")
    return {
        **config,
        **{name: unet.config[name] for name in same},
        "motion_max_length": 32,
        "conditioning_channels": first.shape[1] - 1,  # without the mask
        "use_simplified_condition_embedding": simple,
    }


# ---- pipelines


def load_published(
    cls: type,
    base: PathLike,
    motion_module: PathLike | None = None,
    *,
    dreambooth: PathLike | None = None,
    config: PathLike | None = None,
    tokenizer: None = FIND,
    version: str | None = None,
    motion_config: Mapping[str, Any] | None = None,
    domain_adapter: PathLike | None = None,
    domain_adapter_scale: float = 1.0,
    loras: Mapping[str, float] | None = None,
    motion_loras: Mapping[str, float] | None = None,
    embeddings: Sequence[PathLike] = (),
    sparse_controlnet: PathLike | None = None,
    torch_dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
) -> Any:
    """A pipeline of class `cls` from published files; what `AnimateDiffPipeline.from_published` does.

    Args:
        base: a picture model: a file in Stability AI's layout, or a folder of diffusers.
        motion_module: its file; None: a new one, which does nothing until it is trained.
        dreambooth: a personalised picture model, file or folder: whatever it has of UNet, autoencoder and text encoders
            takes the place of the base's.
        config: a folder of diffusers for what a single file lacks: tokenizers, and configurations that are not those of
            Stable Diffusion 1.5 or XL.
        tokenizer: None: do without.
        version: "v1", "v2", "v3" or "sdxl"; None: recognised from the motion module (v3 without one).
        motion_config: arguments of AnimateDiffUNet in which the motion module differs from the published ones.
        domain_adapter, loras, motion_loras: see AnimateDiffLoraMixin. embeddings: of textual inversion.
        sparse_controlnet: a SparseCtrl network.
        allow_pickle: read pickles (.ckpt, .bin, .pt); no code in them is run.

    Its scheduler, steps and guidance are those that the motion module was made for (`published_sampling`).
    Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
    """
    model = PictureModel(base, config, allow_pickle)
    for part in ("vae", "text_encoder"):
        if part not in model.parts:
            raise CheckpointError(f"{base} has no {part}; take a whole picture model as base, this one as dreambooth.")
    motion = None
    if motion_module is not None:
        motion = read_motion_module(motion_module, version=version, config=motion_config, allow_pickle=allow_pickle)
    overlay = None
    if dreambooth is not None:
        overlay = PictureModel(dreambooth, allow_pickle=allow_pickle)
    encoders = [part for part in model.parts if part.startswith("text_encoder") and tokenizer is FIND]
    names = [encoder.replace("text_encoder", "tokenizer") for encoder in encoders]
    parts: dict[str, Any] = {name: model.tokenizer(name) for name in names}
    for part in model.parts:
        network = model.network(part)
        source = overlay if overlay and part in overlay.parts else model
        if part == "unet":
            arguments = motion.config if motion else {**VERSIONS[version or "v3"], **(motion_config or {})}
            parts[part] = _unet(network, source, motion, arguments, torch_dtype)
        else:
            parts[part] = fill(network, source.read(part, network), torch_dtype)
    sampling = published_sampling(motion.version if motion else version, Path(motion_module or ""))
    unit = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
    side = parts["unet"].config.sample_size
    sizes = {"height": side * unit, "width": side * unit} if isinstance(side, int) else {}
    pipe = cls(**parts, scheduler=sampling.scheduler, config=sizes | sampling.config)
    if sparse_controlnet is not None:
        network = load_sparse_controlnet(sparse_controlnet, pipe.unet, allow_pickle=allow_pickle)
        pipe.register_modules(sparse_controlnet=network)
    for file in embeddings:
        pipe.load_textual_inversion(file, allow_pickle=allow_pickle)
    for file, weight in (loras or {}).items():
        pipe.add_lora(file, weight=weight, allow_pickle=allow_pickle)
    for file, weight in (motion_loras or {}).items():
        pipe.load_motion_lora(file, weight=weight, allow_pickle=allow_pickle)
    if domain_adapter is not None:
        pipe.load_domain_adapter(domain_adapter, domain_adapter_scale, allow_pickle=allow_pickle)
    return pipe


def with_files(
    pipe: Any,
    *,
    dreambooth: PathLike | None = None,
    motion_module: PathLike | None = None,
    sparse_controlnet: PathLike | None = None,
    embeddings: Sequence[PathLike] = (),
    version: str | None = None,
    allow_pickle: bool = False,
) -> Any:
    """A pipeline like this one, with parts from files in place of its own; it shares the others.

    Args and errors: those of `load_published`; sampling settings stay. Raises InputError while LoRAs are loaded.
    """
    parts = dict(pipe.components)
    unet, dtype = pipe.unet, pipe.unet.dtype
    if pipe.get_list_adapters() and (dreambooth is not None or motion_module is not None):
        raise InputError("LoRAs are loaded: call unload_lora_weights() before parts are replaced.")
    motion = None
    if motion_module is not None:
        kept = {name: unet.config[name] for name in ("motion_num_attention_heads", "motion_attention_block_types")}
        motion = read_motion_module(motion_module, version=version, config=kept, allow_pickle=allow_pickle)
    overlay = None if dreambooth is None else PictureModel(dreambooth, allow_pickle=allow_pickle)
    if motion or overlay:
        arguments = motion.config if motion else {}
        parts["unet"] = _unet(unet, overlay, motion, arguments, dtype)
    if overlay:
        for part in set(overlay.parts) & {name for name, own in parts.items() if own is not None} - {"unet"}:
            own = parts[part]
            network = build(type(own), own.config.to_dict() if part.startswith("text_encoder") else own.config)
            parts[part] = fill(network, overlay.read(part, network), own.dtype)
    made = type(pipe)(**parts, config=pipe.config.config)
    if sparse_controlnet is not None:
        network = load_sparse_controlnet(sparse_controlnet, made.unet, allow_pickle=allow_pickle)
        made.register_modules(sparse_controlnet=network)
    for file in embeddings:
        made.load_textual_inversion(file, allow_pickle=allow_pickle)
    return made


def _unet(
    like: Any, source: PictureModel | None, motion: MotionFile | None, arguments: Mapping[str, Any], dtype: torch.dtype
) -> AnimateDiffUNet:
    """A UNet of the configuration of `like` and these motion arguments.

    source, motion: where its weights come from; None: from `like`, or, of motion modules that it has not, new ones.
    """
    config = {name: value for name, value in like.config.items() if not name.startswith("_")}
    made = build(AnimateDiffUNet, {**config, **arguments})
    if motion is not None:
        motion.check_base(made)
    tensors = source.read("unet", made) if source is not None else like.base_state_dict()
    if motion is not None:
        tensors |= motion.tensors
    elif isinstance(like, AnimateDiffUNet):
        tensors |= like.motion_state_dict()
    else:
        tensors |= _new_motion_modules(made)
    return fill(made, tensors, dtype)


def _new_motion_modules(unet: AnimateDiffUNet) -> dict[str, Tensor]:
    """Begins the motion modules of a UNet that is on the meta device; returns their tensors."""
    for motion in unet.modules():
        for module in motion.modules() if isinstance(motion, MotionModule) else ():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.zeros_like(parameter, device="cpu")))
            start: Any = getattr(module, "reset_parameters", None)
            if start is not None:
                start()
        if isinstance(motion, MotionModule):
            nn.init.zeros_(motion.temporal_transformer.proj_out.weight)
            nn.init.zeros_(motion.temporal_transformer.proj_out.bias)
    return unet.motion_state_dict()
