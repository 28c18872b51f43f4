"""The published configurations of MagicAnimate: read, changed by settings, loaded as pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...weights.inference_config import INFERENCE, check_sections
from ...weights.original import read_file, split_setting, value_of
from ...weights.places import find_from
from .schema import ConfigFields, Options

if TYPE_CHECKING:
    from .pipeline import MagicAnimatePipeline

_WEIGHTS = {
    "pretrained_model_path": "base",
    "pretrained_vae_path": "vae",
    "pretrained_controlnet_path": "controlnet",
    "pretrained_appearance_encoder_path": "appearance_encoder",
    "motion_module": "motion_module",
}
"""Fields that name weights -> arguments of `load_published`."""


@dataclass(frozen=True)
class Config:
    """A configuration, checked, with every field; paths are as they stand there. options: those of the command."""

    source: Path
    fields: dict[str, Any]
    options: dict[str, Any]

    @property
    def videos(self) -> list[tuple[str, str, int | None]]:
        """(picture, video, seed) of each, where they are. seed: None: a new one. Raises InputError."""
        fields = self.fields
        seeds = fields["seed"] if isinstance(fields["seed"], list) else [fields["seed"]]
        pairs = list(zip(fields["source_image"], fields["video_path"], strict=True))
        seeds = seeds * len(pairs) if len(seeds) == 1 else seeds
        return [
            (self._find(f"source_image[{i}]", picture), self._find(f"video_path[{i}]", video), None if s < 0 else s)
            for i, ((picture, video), s) in enumerate(zip(pairs, seeds, strict=True))
        ]

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of MagicAnimateSampling."""
        fields = self.fields
        return {
            "height": fields["size"],
            "width": fields["size"],
            "num_inference_steps": fields["steps"],
            "guidance_scale": fields["guidance_scale"],
            "context_frames": fields["L"],
        }

    @cached_property
    def files(self) -> dict[str, str]:
        """The weights that it names, by field, where they are. Raises InputError for one that is missing."""
        if self.fields["pretrained_unet_path"]:
            raise InputError(f"{self.source}: pretrained_unet_path is not supported; leave it empty.")
        named = {name: self.fields[name] for name in (*_WEIGHTS, "inference_config")}
        return {name: self._find(name, path) for name, path in named.items() if path}

    @cached_property
    def _inference(self) -> dict[str, dict[str, Any]]:
        return check_sections(read_file(file := self.files["inference_config"]), INFERENCE, file)

    def check(self) -> None:
        """Raises InputError for a file that is missing or whose configuration cannot be."""
        self._inference  # noqa: B018 - reads what is refused

    def load(self, dtype: Any, *, allow_pickle: bool = False) -> MagicAnimatePipeline:
        """The pipeline that it describes, in a number format, on the CPU. Raises: InputError, CheckpointError."""
        from diffusers import DDIMScheduler

        from ...weights.motion_module import motion_config
        from .pipeline import MagicAnimatePipeline

        flags = dict(self._inference["unet_additional_kwargs"])
        motion = motion_config(None, flags.pop("motion_module_kwargs"), flags)
        files = {argument: self.files[name] for name, argument in _WEIGHTS.items() if name in self.files}
        pipe = MagicAnimatePipeline.from_published(
            files.pop("base"),
            **files,
            motion_config={**motion, "joint_group_norm": True, "fusion_blocks": self.fields["fusion_blocks"]},
            torch_dtype=dtype,
            allow_pickle=allow_pickle,
        )
        scheduler = DDIMScheduler(**self._inference["noise_scheduler_kwargs"])
        return MagicAnimatePipeline(**pipe.components | {"scheduler": scheduler}, config=self.sampling)

    def _find(self, name: str, path: str) -> str:
        found = find_from(self.source, path)
        if found is None:
            raise InputError(
                f"{self.source}: {name} is {path}, but there is no such file in the working directory, nor from "
                f"{self.source.absolute().parent} upwards; give it with --set {name.partition('[')[0]}=FILE."
            )
        return str(found)


def recognises(content: Any) -> bool:
    """Whether what a file holds is most likely a configuration of MagicAnimate, right or wrong."""
    return isinstance(content, Mapping) and bool(
        content.keys() & {"source_image", "pretrained_appearance_encoder_path"}
    )


def read_config(file: str | Path, settings: Iterable[str] = ()) -> Config:
    """A published configuration, checked, but for the files that it names (`Config.check`).

    settings: "FIELD=VALUE" in place of what it says, "--OPTION=VALUE" for an option of the command.
    Raises: InputError that names the field, what is allowed and what to do.
    """
    content = read_file(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{file} must hold fields with their values: source_image, video_path, ...")
    given: dict[str, Any] = dict(content)
    options: dict[str, Any] = {}
    for setting in settings:
        _, name, text = split_setting(setting, "", "FIELD=VALUE")
        is_option = name.startswith("--")
        (options if is_option else given)[name] = value_of(setting, name, text, Options if is_option else ConfigFields)
    return Config(Path(file), ConfigFields.check(given, f"{file}: "), Options.check(options, ""))
