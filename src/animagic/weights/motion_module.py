"""Motion modules of AnimateDiff's kind: their versions, configurations and names, their files, and how they and a base
model fill a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..errors import CheckpointError, InputError
from ..layers.inflation import arguments_for
from ..layers.motion_unet import MotionUNet
from .files import PathLike, Weights
from .fit import check

VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"motion_max_length": 24, "motion_mid_block": False, "joint_group_norm": True},
    "v2": {"motion_max_length": 32, "motion_mid_block": True, "joint_group_norm": False},
    "v3": {"motion_max_length": 32, "motion_mid_block": False, "joint_group_norm": False},
    "sdxl": {"motion_max_length": 32, "motion_mid_block": False, "joint_group_norm": False},
}
"""Version -> the arguments of AnimateDiffUNet in which it differs."""

# Original names -> ours.
_MODULE_FIELDS = {
    "num_attention_heads": "motion_num_attention_heads",
    "num_transformer_block": "motion_num_transformer_blocks",
    "attention_block_types": "motion_attention_block_types",
    "temporal_position_encoding_max_len": "motion_max_length",
    "temporal_attention_dim_div": "motion_attention_dim_div",
}
FLAGS = {
    "motion_module_resolutions": "motion_resolutions",
    "motion_module_mid_block": "motion_mid_block",
    "motion_module_decoder_only": "motion_decoder_only",
}
# Fields that only one value is known of.
FIXED: dict[str, Any] = {
    "use_motion_module": True,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "cross_frame_attention_mode": None,
}
T = TypeVar("T")


def motion_config(
    version: str | None = None, module: Mapping[str, Any] | None = None, flags: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The motion part of AnimateDiffUNet's arguments.

    Args:
        version: of VERSIONS, which the other two change; None: they say everything.
        module: the original `motion_module_kwargs`. flags: the rest of the original `unet_additional_kwargs`.
    Raises: InputError for a version, field or value that is not known.
    """
    if version is not None and version not in VERSIONS:
        raise InputError(f"AnimateDiff {version!r} is unknown; choose {', '.join(VERSIONS)}.")
    made = dict(VERSIONS[version]) if version is not None else {}
    module, flags = dict(module or {}), dict(flags or {})
    module.pop("zero_initialize", None)  # of no matter once it is trained
    positions = module.pop("temporal_position_encoding", True)
    for fields, given, where in ((_MODULE_FIELDS, module, "motion_module_kwargs"), (FLAGS, flags, "the UNet")):
        for name, value in given.items():
            if name in fields:
                made[fields[name]] = tuple(value) if isinstance(value, list) else value
            elif name == "use_inflated_groupnorm":
                made["joint_group_norm"] = not value
            elif name not in FIXED:
                raise InputError(f"the configuration of {where} has an unknown field {name!r}.")
            elif value != FIXED[name]:
                raise InputError(f"{name} is {value!r}; only {FIXED[name]!r} is supported.")
    if not positions:
        made["motion_max_length"] = 0
    return made


def original_names(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Without what trainers put before names (`module.`), and without the tables of positions, which are computed."""
    named = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return {name: tensor for name, tensor in named.items() if not name.endswith((".pos_encoder.pe", ".pos_embed.pe"))}


def motion_name(name: str) -> str:
    """The published name of a motion module's tensor or layer that may have diffusers' name; others stay."""
    if "motion_modules." not in name or ".temporal_transformer." in name:
        return name
    name = re.sub(r"(motion_modules\.\d+\.)", r"\1temporal_transformer.", name)
    name = re.sub(r"(transformer_blocks\.\d+\.)norm3\b", r"\1ff_norm", name)
    name = re.sub(r"(transformer_blocks\.\d+\.)norm(\d)\b", lambda m: f"{m[1]}norms.{int(m[2]) - 1}", name)
    return re.sub(r"(transformer_blocks\.\d+\.)attn(\d)\b", lambda m: f"{m[1]}attention_blocks.{int(m[2]) - 1}", name)


def diffusers_name(name: str) -> str:
    """The name that a motion module's tensor with a published name has in diffusers."""
    name = name.replace(".temporal_transformer.", ".").replace(".ff_norm.", ".norm3.")
    name = re.sub(r"\.norms\.(\d)\.", lambda m: f".norm{int(m[1]) + 1}.", name)
    return re.sub(r"\.attention_blocks\.(\d)\.", lambda m: f".attn{int(m[1]) + 1}.", name)


def recognise(shapes: Mapping[str, tuple[int, ...]], file: Path) -> str:
    """Which version the tensors of a motion module are: a key of VERSIONS.

    Args:
        shapes: by published names, with the tables of positions if the file has them.
        file: where v1 and v3 differ in nothing else (without those tables), its name decides.
    Raises: CheckpointError if that does not say it either.
    """
    levels = {int(m[1]) for name in shapes if (m := re.match(r"(?:down|up)_blocks\.(\d+)\.motion_modules\.", name))}
    if len(levels) == 3:
        return "sdxl"
    if any(name.startswith("mid_block.motion_modules.") for name in shapes):
        return "v2"
    length = table_length(shapes)
    if length is not None:
        return "v1" if length == VERSIONS["v1"]["motion_max_length"] else "v3"
    named = file.name.lower()
    if "v3" in named:
        return "v3"
    if re.search(r"v1[45](?!.*v2)", named) or "v1" in re.split(r"[^a-z0-9]", named):
        return "v1"
    raise CheckpointError(
        f"{file} is of AnimateDiff v1 or v3, which its tensors do not tell; say which: version 'v1' or 'v3'."
    )


def table_length(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The most frames that a motion module tells apart, by the tables of positions in its file; None without them."""
    return next((s[-2] for n, s in shapes.items() if n.endswith((".pos_encoder.pe", ".pos_embed.pe"))), None)


def unet_arguments(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An original configuration (fields of Stable Diffusion's UNet, of the motion modules, and `version`) as the
    arguments of the base model and those of the motion modules. Raises InputError for what is not known."""
    fields = {name: value for name, value in config.items() if not name.startswith("_")}
    version, module = fields.pop("version", None), fields.pop("motion_module_kwargs", {})
    flags = {name: fields.pop(name) for name in [*FLAGS, *FIXED, "use_inflated_groupnorm"] if name in fields}
    if unknown := fields.keys() - arguments_for(UNet2DConditionModel, fields):
        raise InputError(f"the configuration has an unknown field {min(unknown)!r}.")
    # Blocks are called 3D in the original, and do what the 2-D ones do to every frame.
    flat = {name: _flat(value) if name.endswith(("_types", "_type")) else value for name, value in fields.items()}
    return flat, motion_config(version, module, flags)


def _flat(blocks: Any) -> Any:
    if isinstance(blocks, (list, tuple)):
        return tuple(_flat(block) for block in blocks)
    return blocks.replace("3D", "2D") if isinstance(blocks, str) else blocks


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
        check(expected, self.tensors, self.source, hint=": is it for another base model?")


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
    arguments = motion_config(version)
    weights = Weights.open(path, "diffusion_pytorch_model", allow_pickle)
    names = [name for name in weights.entries if "motion_modules." in name]
    for sign, what in (("controlnet_cond_embedding.", "a SparseCtrl network"), ("lora", "a LoRA")):
        if any(sign in name for name in weights.entries):
            raise CheckpointError(f"{source} is {what}, not a motion module.")
    if not names:
        raise CheckpointError(f"{source} is no motion module: no tensor's name contains motion_modules.")
    named = dict(weights.renamed({name: motion_name(_from_motion_on(name)) for name in names}).read())
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    version = version or recognise(shapes, path)
    arguments |= VERSIONS[version]
    arguments["motion_max_length"] = table_length(shapes) or arguments["motion_max_length"]
    return MotionFile(path, version, arguments | dict(config or {}), original_names(named))


def _from_motion_on(name: str) -> str:
    """Without what trainers put before names: module., unet., ..."""
    starts = [name.find(block) for block in ("down_blocks.", "mid_block.", "up_blocks.")]
    return name[min((start for start in starts if start >= 0), default=0) :]


Network = TypeVar("Network", bound="MotionParts")


class MotionParts(MotionUNet):
    """A MotionUNet that is filled from a base model and from motion modules."""

    @classmethod
    def from_unet2d(cls: type[Network], unet: UNet2DConditionModel, **config: Any) -> Network:
        """The UNet of a text-to-image model with new motion modules, which do nothing yet; weights are copied."""
        made = cls(**arguments_for(UNet2DConditionModel, unet.config), **config)
        made.to(unet.conv_in.weight)  # its device and type; diffusers warns where these are given
        made.load_base_state_dict(unet.state_dict())
        return made

    def load_base_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Take the weights of a base model. Raises CheckpointError that names the first tensor that does not fit."""
        self._load_part(self.base_state_dict(), state_dict, "the base model")

    def load_motion_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Take motion modules. Raises CheckpointError that names the first tensor that does not fit."""
        self._load_part(self.motion_state_dict(), state_dict, "the motion module")

    def _load_part(self, ours: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], what: str) -> None:
        check(ours, given, what, hint=": is it for another base model?")
        self.load_state_dict(dict(given), strict=False)
