"""The original configuration files of MAGI-1: every field, what is done with it, and what is refused.

The library honours a file as it is: a field either has its effect, or has none on one device, or is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...fields import Field, nearest

if TYPE_CHECKING:
    from .pipeline import Magi1Pipeline

_ONE_DEVICE = "this build runs on one device"
_AS_PUBLISHED = "no published model has another value"
_NO_EFFECT = "has no effect: there is one process"

FIELDS: dict[str, dict[str, Field]] = {
    "model_config": {
        "model_name": Field(str, "must be `videodit_ardf`", only=("videodit_ardf",), instead=_AS_PUBLISHED),
        "num_layers": Field(int, "blocks of the transformer", least=1),
        "hidden_size": Field(int, "its width", least=1),
        "ffn_hidden_size": Field(int, "width inside its feed-forward networks", least=1),
        "num_attention_heads": Field(int, "query heads", least=1),
        "num_query_groups": Field(int, "key/value heads, each shared by several query heads", least=1),
        "kv_channels": Field(int, "values of a head", least=1),
        "layernorm_epsilon": Field(float, "added to variances", default=1e-6, least=0),
        "apply_layernorm_1p": Field(
            bool, "must be true: norms are stored minus one", default=True, only=(True,), instead=_AS_PUBLISHED
        ),
        "x_rescale_factor": Field(float, "the network's input times this, its output divided by it", default=1),
        "half_channel_vae": Field(bool, "true: the latent channels are given twice", default=False),
        "params_dtype": Field(
            str,
            "number format of the weights; what the original keeps in float32 stays so",
            default="torch.bfloat16",
            only=("torch.bfloat16", "torch.float16", "torch.float32"),
            instead="no other number format is supported",
        ),
        "patch_size": Field(int, "latent pixels of a token's side", default=2, least=1),
        "t_patch_size": Field(int, "must be 1", default=1, only=(1,), instead=_AS_PUBLISHED),
        "in_channels": Field(int, "channels that the network takes", least=1),
        "out_channels": Field(int, "channels that it gives", least=1),
        "cond_hidden_ratio": Field(float, "width of the condition, as a part of `hidden_size`", default=0.25, least=0),
        "caption_channels": Field(int, "channels of the text encoder", default=4096, least=1),
        "caption_max_length": Field(int, "tokens of a prompt; what is longer is cut", default=800, least=1),
        "xattn_cond_hidden_ratio": Field(float, "must be 1", default=1.0, only=(1,), instead=_AS_PUBLISHED),
        "cond_gating_ratio": Field(float, "must be 1", default=1.0, only=(1,), instead=_AS_PUBLISHED),
        "gated_linear_unit": Field(bool, "true: SwiGLU instead of GELU", default=False),
    },
    "runtime_config": {
        "cfg_number": Field(
            int,
            "3: guided by text and history; 1: one pass, as distilled models need",
            default=3,
            only=(1, 3),
            instead="guidance takes three passes, or one with a distilled model",
        ),
        "cfg_t_range": Field(
            list[float], "times from which the scales below hold", default=[0.0, 0.0217, 0.1, 0.3, 0.999], least=0
        ),
        "prev_chunk_scales": Field(
            list[float], "guidance by earlier chunks in each of these ranges", default=[1.5, 1.5, 1.5, 1.0, 1.0]
        ),
        "text_scales": Field(list[float], "guidance by the text in each of them", default=[7.5, 7.5, 7.5, 0.0, 0.0]),
        "noise2clean_kvrange": Field(
            list[int],
            "chunks that a chunk sees, from noisy to clean; empty: all of them",
            default=[5, 4, 3, 2],
            least=1,
        ),
        "clean_chunk_kvrange": Field(
            int, "chunks that a clean chunk sees; -1: as in the last step", default=1, least=-1
        ),
        "clean_t": Field(float, "the time at which clean chunks are read", default=0.9999, least=0),
        "seed": Field(int, "of the noise; another one with `--set runtime_config.seed=7`", default=1234, least=0),
        "num_frames": Field(int, "new frames; exactly as many are made", default=96, least=1),
        "video_size_h": Field(int, "height in pixels", default=720, least=1),
        "video_size_w": Field(int, "width in pixels", default=720, least=1),
        "num_steps": Field(int, "denoising steps of a chunk", default=64, least=1),
        "window_size": Field(int, "chunks in flight", default=4, least=1),
        "fps": Field(int, "frames a second, of the video and of the clip that is read", default=24, least=1),
        "chunk_width": Field(int, "latent frames of a chunk", default=6, least=1),
        "load": Field(str, "folder of the transformer's weights"),
        "t5_pretrained": Field(str, "folder of the text encoder"),
        "t5_device": Field(
            str,
            "where the text encoder runs, in float32",
            default="cpu",
            only=("cpu", "cuda"),
            instead="the text encoder runs on one of two devices",
        ),
        "vae_pretrained": Field(str, "folder of the autoencoder"),
        "scale_factor": Field(float, "latents times this", default=0.18215),
        "temporal_downsample_factor": Field(
            int, "must be 4: frames in a latent frame", default=4, only=(4,), instead=_AS_PUBLISHED
        ),
    },
    "engine_config": {
        "distributed_backend": Field(
            str, _NO_EFFECT, default="nccl", only=("nccl", "gloo"), instead="there is no other"
        ),
        "distributed_timeout_minutes": Field(int, _NO_EFFECT, default=10, least=1),
        "pp_size": Field(int, "must be 1: runs on one device", default=1, only=(1,), instead=_ONE_DEVICE),
        "cp_size": Field(int, "must be 1: runs on one device", default=1, only=(1,), instead=_ONE_DEVICE),
        "cp_strategy": Field(
            str,
            _NO_EFFECT,
            default="none",
            only=("none", "cp_ulysses", "cp_shuffle_overlap"),
            instead="there is no other",
        ),
        "ulysses_overlap_degree": Field(int, _NO_EFFECT, default=1, least=1),
        "fp8_quant": Field(bool, "true: `load` holds FP8 weights", default=False),
        "distill_nearly_clean_chunk_threshold": Field(
            float, "with `cfg_number` 1: from this time on a chunk is seen once more alone", default=0.3, least=0
        ),
        "shortcut_mode": Field(
            str,
            "how 12 steps are spread",
            default="8,16,16",
            only=("8,16,16", "16,16,8"),
            instead="12 steps are spread in one of two ways",
        ),
        "distill": Field(bool, "true: the network is told the size of its steps", default=False),
        "kv_offload": Field(
            bool,
            "true: keys and values of earlier chunks wait in the host's memory; nothing to do without a GPU",
            default=False,
        ),
        "enable_cuda_graph": Field(
            bool,
            "must be false",
            default=False,
            only=(False,),
            instead="calls are not recorded as CUDA graphs; compile the transformer in Python instead",
        ),
    },
}


def read_config(file: str | Path, settings: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """An original configuration file, checked, with every field.

    Args:
        file: the JSON file.
        settings: "SECTION.FIELD=VALUE" in place of what the file says.
    Raises: InputError that names the section, the field, what is allowed and what to do.
    """
    if Path(file).suffix != ".json":
        raise InputError(f"the configuration {file} is no .json file; give one of the original configurations.")
    try:
        given = json.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"the configuration {file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise InputError(f"the configuration {file} is not JSON: {str(error).splitlines()[0]}.") from error
    if not isinstance(given, dict) or not all(isinstance(section, dict) for section in given.values()):
        raise InputError(f"the configuration {file} must hold the sections {', '.join(FIELDS)}, each with its fields.")
    for setting in settings:
        section, name, value = _parse(setting)
        given.setdefault(section, {})[name] = value
    return check_config(given, str(file))


def check_config(given: Mapping[str, Any], source: str = "the configuration") -> dict[str, dict[str, Any]]:
    """The configuration with the default of every field that it leaves out; raises InputError for what cannot be."""
    for section in given:
        if section not in FIELDS:
            raise InputError(f"{source} has an unknown section {section!r}{nearest(section, FIELDS)}")
    config: dict[str, dict[str, Any]] = {}
    for section, known in FIELDS.items():
        fields = given.get(section, {})
        for name in fields:
            if name not in known:
                raise InputError(f"{source} has an unknown field {name!r} in {section}{nearest(name, known)}")
        config[section] = {}
        for name, about in known.items():
            if name not in fields and about.needed:
                raise InputError(f"{source} lacks {section}.{name}; add it to the file.")
            value = fields.get(name, about.default)
            about.check(value, f"{section}.{name}")
            config[section][name] = list(value) if isinstance(value, list) else value
    runtime = config["runtime_config"]
    tables = {name: len(runtime[name]) for name in ("cfg_t_range", "prev_chunk_scales", "text_scales")}
    if len(set(tables.values())) > 1 or not runtime["cfg_t_range"]:
        lengths = ", ".join(f"{name} has {length}" for name, length in tables.items())
        raise InputError(
            f"the guidance tables of runtime_config must have as many entries each, and one at least: {lengths}."
        )
    if runtime["cfg_t_range"] != sorted(runtime["cfg_t_range"]):
        raise InputError(f"runtime_config.cfg_t_range must increase, which {runtime['cfg_t_range']} does not.")
    if runtime["clean_chunk_kvrange"] == 0:
        raise InputError("runtime_config.clean_chunk_kvrange is 0; give the chunks that a clean chunk sees, or -1.")
    if runtime["num_steps"] < runtime["window_size"]:
        raise InputError(
            f"runtime_config.num_steps is {runtime['num_steps']}; at least {runtime['window_size']} are needed, "
            "one for each chunk of window_size."
        )
    return config


def find_special_tokens(file: str | Path, config: Mapping[str, Any]) -> Path | None:
    """special_tokens.npz where the original repository has it: in the working directory, or around the configuration or
    the weights."""
    load = config["runtime_config"]["load"]
    near = [Path(file).parent, *([_find_folder("load", load, file)] if load else [])]
    for folder in (Path(), *near, *(folder.parent for folder in near)):
        for place in ("special_tokens.npz", "assets/special_tokens.npz", "example/assets/special_tokens.npz"):
            if (folder / place).is_file():
                return folder / place
    return None


def _find_folder(name: str, path: str, file: str | Path) -> Path:
    """A folder of runtime_config: relative to the working directory, else to the configuration file."""
    if not path:
        raise InputError(f"runtime_config.{name} is empty; name the folder (--set runtime_config.{name}=FOLDER).")
    places = (Path(path), Path(file).parent / path)
    for place in places:
        if place.is_dir():
            return place
    looked = " nor ".join(str(place) for place in dict.fromkeys(places))
    raise InputError(
        f"runtime_config.{name} is {path}, but there is no folder {looked}; give it with "
        f"--set runtime_config.{name}=FOLDER."
    )


def load_pipeline(
    file: str | Path, settings: Iterable[str] = (), *, device: str = "cpu", allow_pickle: bool = False
) -> Magi1Pipeline:
    """The pipeline that an original configuration file describes, with its weights, on a device.

    Args:
        file, settings: see `read_config`.
        device: "cuda", "mps" or "cpu".
        allow_pickle: read the text encoder from pickle files, too.

    The transformer and the autoencoder have the number format `params_dtype`, the text encoder has float32.
    Raises: InputError, CheckpointError.
    """
    import torch

    from .pipeline import Magi1Pipeline
    from .weights import open_original

    config = read_config(file, settings)
    runtime = config["runtime_config"]
    on, text_on = torch.device(device), torch.device(runtime["t5_device"])
    if text_on.type == "cuda" and on.type != "cuda":
        raise InputError(
            f"runtime_config.t5_device is cuda, but the video is made on {device}; --set runtime_config.t5_device=cpu."
        )
    folders = {name: _find_folder(name, runtime[name], file) for name in ("load", "vae_pretrained", "t5_pretrained")}
    files = open_original(
        config,
        transformer=folders["load"],
        vae=folders["vae_pretrained"],
        t5=folders["t5_pretrained"],
        special_tokens=find_special_tokens(file, config),
        allow_pickle=allow_pickle,
    )
    # The size is refused before gigabytes are read.
    files.pipeline(Magi1Pipeline).check_size(runtime["video_size_h"], runtime["video_size_w"])
    dtype = getattr(torch, config["model_config"]["params_dtype"].removeprefix("torch."))
    networks: dict[str, Any] = {}
    for name, part in files.parts.items():
        is_text = name == "text_encoder"
        networks[name] = part.load(torch.float32 if is_text else dtype).to(text_on if is_text else on)
    pipe = files.pipeline(Magi1Pipeline, **networks)
    pipe.enable_vae_tiling(tile_frames=_tile_frames(runtime["fps"], runtime["chunk_width"]))
    if config["engine_config"]["kv_offload"] and on.type != "cpu":
        pipe.enable_kv_offload()
    return pipe


def _tile_frames(fps: int, chunk_width: int) -> int:
    """Frames that the autoencoder takes at once: half a second, as in the published code, in whole latent frames. Where
    that would leave a single latent frame of a chunk, which decodes to one frame instead of four: the whole chunk."""
    latent_frames = max(fps // 2 // 4, 2)
    return 4 * (chunk_width if chunk_width % latent_frames == 1 else latent_frames)


def _parse(setting: str) -> tuple[str, str, Any]:
    """ "SECTION.FIELD=VALUE" to its three parts; the value is JSON, or a bare text where the field is one."""
    path, equals, text = setting.partition("=")
    section, dot, name = path.strip().partition(".")
    if not equals or not dot:
        raise InputError(f"{setting!r} is not understood; write SECTION.FIELD=VALUE, as in engine_config.cp_size=1.")
    if section not in FIELDS:
        raise InputError(f"{setting!r} names an unknown section{nearest(section, FIELDS)}")
    if name not in FIELDS[section]:
        raise InputError(f"{setting!r} names an unknown field of {section}{nearest(name, FIELDS[section])}")
    if FIELDS[section][name].kind is str:
        return section, name, text.strip().strip("\"'")
    try:
        return section, name, json.loads(text)
    except ValueError:
        raise InputError(f"{setting!r} is not understood; {FIELDS[section][name].needs} is needed.") from None
