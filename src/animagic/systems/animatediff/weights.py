"""AnimateDiff's pipelines from the files that people put together: a text-to-image model, a motion module, and what
goes around them; and its networks from the original configurations. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from ...errors import CheckpointError, InputError
from ...layers.inflation import arguments_for
from ...weights.files import PathLike, read_json, read_tensors
from ...weights.fit import build, check, fill
from ...weights.motion_module import VERSIONS, MotionFile, original_names, read_motion_module, unet_arguments
from ...weights.stable_diffusion import StableDiffusion, network_of
from .published import published_sampling
from .sparse import SparseControlNet
from .unet import AnimateDiffUNet

FIND: Any = object()
"""Of the tokenizer: look for it in the folders given."""


# ---- networks of the original configurations


def unet_from_config(config: Mapping[str, Any]) -> AnimateDiffUNet:
    """The UNet of an original configuration: fields of Stable Diffusion's UNet joined with `version` and
    `motion_module_kwargs`, and with `unet_additional_kwargs` fields that differ from the version's.

    Raises: InputError for a field or value that is not known.
    """
    base, motion = unet_arguments(config)
    return AnimateDiffUNet(**base, **motion)


def sparse_controlnet_from_config(config: Mapping[str, Any]) -> SparseControlNet:
    """The SparseCtrl network of an original configuration: fields of the UNet that it steers, joined with those of its
    own and with `motion_module_kwargs`.

    Raises: InputError for a field or value that is not known.
    """
    # It has one attention a module whatever the UNet has, none in the middle, and norms of single frames.
    ignored = {"version", "motion_module_mid_block", "use_inflated_groupnorm"}
    own = arguments_for(ControlNetModel, config) | arguments_for(SparseControlNet, config)
    ignored |= own.keys() - arguments_for(UNet2DConditionModel, config).keys()
    base, motion = unet_arguments({name: value for name, value in config.items() if name not in ignored})
    motion.pop("motion_attention_block_types", None)
    return SparseControlNet(**own | arguments_for(ControlNetModel, base) | motion)


COMPONENTS: dict[str, Any] = {"unet": unet_from_config, "sparse_controlnet": sparse_controlnet_from_config}
"""The components that `animagic.checkpoints.from_original` can build; tensors go by `original_names`."""


# ---- SparseCtrl


def load_sparse_controlnet(
    source: PathLike,
    unet: AnimateDiffUNet,
    *,
    config: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
) -> SparseControlNet:
    """A SparseCtrl network from its published file, or from a folder of `save_pretrained`.

    Args:
        unet: what it is to steer, and whose dtype it gets.
        config: the original `controlnet_additional_kwargs`; None: RGB or scribble is read from the tensors.
    Raises: InputError, CheckpointError, which name file and tensor.
    """
    path = Path(source)
    tensors = original_names(read_tensors(path, "diffusion_pytorch_model", allow_pickle))
    if path.is_dir():
        network = network_of(SparseControlNet, read_json(path / "config.json"), path / "config.json")
    elif config is not None:
        joined = arguments_for(UNet2DConditionModel, unet.config) | dict(config)
        network = build(lambda: sparse_controlnet_from_config(joined), path)
    else:
        network = build(lambda: SparseControlNet(**_sparse_config(tensors, unet, path)), path)
    check(network.state_dict(), tensors, path, hint=": is it for another base model?")
    return fill(network, tensors, unet.dtype)


def _sparse_config(tensors: Mapping[str, Tensor], unet: AnimateDiffUNet, path: Path) -> dict[str, Any]:
    embedding = "controlnet_cond_embedding."
    simple = f"{embedding}weight" in tensors
    first = tensors.get(f"{embedding}weight" if simple else f"{embedding}conv_in.weight")
    if first is None:
        raise CheckpointError(f"{path} is no SparseCtrl network: the tensor {embedding}conv_in.weight is missing.")
    same = ("motion_num_attention_heads", "motion_num_transformer_blocks", "motion_attention_dim_div")
    config = {name: unet.config[name] for name in same}
    if not simple:
        blocks = (tensors.get(f"{embedding}blocks.{i}.weight") for i in range(1, 99, 2))
        config["conditioning_embedding_out_channels"] = (len(first), *(len(b) for b in blocks if b is not None))
    channels = first.shape[1] - 1  # without the mask
    return SparseControlNet.config_for(
        unet, **config, conditioning_channels=channels, use_simplified_condition_embedding=simple
    )


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
        base: a text-to-image model: a file in Stability AI's layout, or a folder of diffusers.
        motion_module: its file; None: a new one, which does nothing until it is trained.
        dreambooth: a personalised text-to-image model, file or folder: whatever it has of UNet, autoencoder and text
            encoders takes the place of the base's.
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
    model = StableDiffusion(base, config, allow_pickle)
    for part in ("vae", "text_encoder"):
        if part not in model.parts:
            raise CheckpointError(
                f"{base} has no {part}; take a whole text-to-image model as base, this one as dreambooth."
            )
    motion = overlay = None
    if motion_module is not None:
        motion = read_motion_module(motion_module, version=version, config=motion_config, allow_pickle=allow_pickle)
    if dreambooth is not None:
        overlay = StableDiffusion(dreambooth, allow_pickle=allow_pickle)
    encoders = [part for part in model.parts if part.startswith("text_encoder") and tokenizer is FIND]
    names = [encoder.replace("text_encoder", "tokenizer") for encoder in encoders]
    parts: dict[str, Any] = {name: model.tokenizer(name) for name in names}
    for part in model.parts:
        network, source = model.network(part), overlay if overlay and part in overlay.parts else model
        if part == "unet" and motion is not None:
            parts[part] = _unet(network, source, motion, torch_dtype)
        else:
            parts[part] = fill(network, source.read(part, network), torch_dtype)
    if motion is None:
        new = VERSIONS[version or "v3"] | dict(motion_config or {})
        parts["unet"] = AnimateDiffUNet.from_unet2d(parts["unet"], **new).eval()
    scheduler, sampling = published_sampling(motion.version if motion else version, Path(motion_module or ""))
    unit = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
    side = parts["unet"].config.sample_size
    sizes = {"height": side * unit, "width": side * unit} if isinstance(side, int) else {}
    pipe = cls(**parts, scheduler=scheduler, config=sizes | sampling)
    _add(pipe, sparse_controlnet, embeddings, allow_pickle)
    for add, files in ((pipe.add_lora, loras), (pipe.load_motion_lora, motion_loras)):
        for file, weight in (files or {}).items():
            add(file, weight=weight, allow_pickle=allow_pickle)
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
    if pipe.get_list_adapters() and (dreambooth is not None or motion_module is not None):
        raise InputError("LoRAs are loaded: call unload_lora_weights() before parts are replaced.")
    motion = overlay = None
    if motion_module is not None:
        names = ("motion_num_attention_heads", "motion_attention_block_types")  # which a file does not tell
        kept = {name: pipe.unet.config[name] for name in names}
        motion = read_motion_module(motion_module, version=version, config=kept, allow_pickle=allow_pickle)
    if dreambooth is not None:
        overlay = StableDiffusion(dreambooth, allow_pickle=allow_pickle)
    if motion or overlay:
        parts["unet"] = _unet(pipe.unet, overlay, motion, pipe.unet.dtype)
    if overlay:
        for part in set(overlay.parts) & {name for name, own in parts.items() if own is not None} - {"unet"}:
            own = parts[part]
            config = own.config.to_dict() if part.startswith("text_encoder") else own.config
            network = network_of(type(own), config, f"the {part} of this pipeline")
            parts[part] = fill(network, overlay.read(part, network), own.dtype)
    made = type(pipe)(**parts, config=pipe.config.config)
    _add(made, sparse_controlnet, embeddings, allow_pickle)
    return made


def _add(pipe: Any, sparse_controlnet: PathLike | None, embeddings: Sequence[PathLike], allow_pickle: bool) -> None:
    if sparse_controlnet is not None:
        network = load_sparse_controlnet(sparse_controlnet, pipe.unet, allow_pickle=allow_pickle)
        pipe.register_modules(sparse_controlnet=network)
    for file in embeddings:
        pipe.load_textual_inversion(file, allow_pickle=allow_pickle)


def _unet(like: Any, source: StableDiffusion | None, motion: MotionFile | None, dtype: torch.dtype) -> AnimateDiffUNet:
    """A UNet of the configuration of `like`, or of its base and a motion module.

    source, motion: where its weights come from; None: from `like`.
    """
    config = {name: value for name, value in like.config.items() if not name.startswith("_")}
    config |= motion.config if motion is not None else {}
    made = network_of(AnimateDiffUNet, config, "the configuration of the UNet")
    if motion is not None:
        motion.check_base(made)
    tensors = source.read("unet", made, without="motion_modules.") if source is not None else like.base_state_dict()
    return fill(made, tensors | (motion.tensors if motion is not None else like.motion_state_dict()), dtype)
