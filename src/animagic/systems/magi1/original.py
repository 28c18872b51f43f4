"""The published configuration files of MAGI-1: read, changed by settings, and loaded as the pipeline they describe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...weights.original import read_file, read_sections, split_setting, value_of
from ...weights.places import named_folder
from ...wording import nearest
from .schema import SECTIONS, check_config

if TYPE_CHECKING:
    from .pipeline import Magi1Pipeline


def recognises(content: Any) -> bool:
    """Whether what a file holds is most likely a configuration of MAGI-1, right or wrong."""
    return isinstance(content, dict) and bool(content.keys() & SECTIONS.keys())


def read_config(file: str | Path, settings: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """A published configuration file, checked, with every field.

    settings: "SECTION.FIELD=VALUE" in place of what the file says.
    Raises: InputError that names the section, the field, what is allowed and what to do.
    """
    config = read_sections(read_file(file), SECTIONS, file)
    for setting in settings:
        section, name, text = split_setting(setting, r".+", "SECTION.FIELD=VALUE, as in engine_config.cp_size=1")
        if section not in SECTIONS:
            raise InputError(f"{setting!r} names an unknown section{nearest(section, SECTIONS)}")
        config.setdefault(section, {})[name] = value_of(setting, name, text, SECTIONS[section])
    return check_config(config, str(file))


def find_special_tokens(file: str | Path, config: Mapping[str, Any]) -> Path | None:
    """special_tokens.npz where the original repository has it: in the working directory, or around the configuration or
    the weights."""
    from . import weights

    load, bases = config["runtime_config"]["load"], _bases(file)
    folder = named_folder(str(file), "runtime_config.load", load, bases) if load else None
    return weights.find_special_tokens(folder, bases)


def _bases(file: str | Path) -> list[Path]:
    """The folders that its paths may be relative to."""
    return [Path(), Path(file).parent]


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
    names = {"transformer": "load", "vae": "vae_pretrained", "t5": "t5_pretrained"}
    places = {
        part: named_folder(str(file), f"runtime_config.{name}", runtime[name], _bases(file))
        for part, name in names.items()
    }
    table = find_special_tokens(file, config)
    opened = open_original(Magi1Pipeline, config, **places, special_tokens=table, allow_pickle=allow_pickle)
    pipe = opened.pipeline
    pipe.check_size(runtime["video_size_h"], runtime["video_size_w"])  # before gigabytes are read
    dtype = getattr(torch, config["model_config"]["params_dtype"].removeprefix("torch."))
    for name, part in opened.parts.items():
        is_text = name == "text_encoder"
        part.load(torch.float32 if is_text else dtype).to(text_on if is_text else on)
    pipe.enable_vae_tiling(tile_frames=_tile_frames(runtime["fps"], runtime["chunk_width"]))
    if config["engine_config"]["kv_offload"] and on.type != "cpu":
        pipe.enable_kv_offload()
    return pipe


def _tile_frames(fps: int, chunk_width: int) -> int:
    """Frames that the autoencoder takes at once: half a second, as in the published code, in whole latent frames. Where
    that would leave a single latent frame of a chunk, which decodes to one frame instead of four: the whole chunk."""
    latent_frames = max(fps // 2 // 4, 2)
    return 4 * (chunk_width if chunk_width % latent_frames == 1 else latent_frames)
