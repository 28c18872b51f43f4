"""The published inference files of AnimateDiff: read as entries, changed by settings, and loaded as pipelines.

Such a file lists entries; each names weights, and prompts of which every one becomes a video. Files of the first
release map names to entries, of which each may list several motion modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import AnimagicError, CheckpointError, InputError
from ...weights.inference_config import INFERENCE, check_sections
from ...weights.original import read_file, split_setting, value_of
from ...weights.places import find_from
from .schema import CONTROLNET, EntryFields, MotionLora, Options

if TYPE_CHECKING:
    import numpy as np

    from .pipeline import AnimateDiffPipeline

# Where the original's instructions put it, and where it lies on the hub today.
_BASES = ("models/StableDiffusion/stable-diffusion-v1-5", "models/StableDiffusion")
_BASE_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@dataclass(frozen=True)
class Entry:
    """One entry of a file, checked, with every field; paths are as they stand there.

    source: the file. number: from 0. options: those of the command.
    """

    source: Path
    number: int
    fields: dict[str, Any]
    options: dict[str, Any]

    def __str__(self) -> str:
        return f"entry {self.number} of {self.source}"

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width."""
        frames, height, width = (self.fields[name] or self.options[f"--{name}"] for name in "LHW")
        return frames, height, width

    @property
    def videos(self) -> list[tuple[str, str, int | None]]:
        """(prompt, negative prompt, seed) of each. seed: None: a new one."""
        prompts, seeds = self.fields["prompt"], self.fields["seed"]
        negatives = _one_each(self.fields["n_prompt"], len(prompts))
        seeds = _one_each(seeds if isinstance(seeds, list) else [seeds], len(prompts))
        return [(p, n, None if s < 0 else s) for p, n, s in zip(prompts, negatives, seeds, strict=True)]

    @property
    def controls(self) -> dict[int, str]:
        """Frame -> picture that it is kept to."""
        if not self.fields["controlnet_path"]:
            return {}
        frames = self.size[0]
        return {
            index % frames: self.files[f"controlnet_images[{i}]"]
            for i, index in enumerate(self.fields["controlnet_image_indexs"])
        }

    @property
    def sampling(self) -> dict[str, Any]:
        """Fields of AnimateDiffSampling."""
        frames, height, width = self.size
        return {
            "num_frames": frames,
            "height": height,
            "width": width,
            "num_inference_steps": self.fields["steps"],
            "guidance_scale": self.fields["guidance_scale"],
            "context_frames": self._motion_config()["motion_max_length"] or frames,
        }

    @property
    def scheduler(self) -> Any:
        """DDIM with the noise that `inference_config` describes."""
        from diffusers import DDIMScheduler

        return DDIMScheduler(**self._inference["noise_scheduler_kwargs"])

    @property
    def weights(self) -> dict[str, Any]:
        """The files and settings that its pipeline is loaded from; entries with equal ones can share it."""
        named = {name: value for name, value in self.fields.items() if "lora" in name or "scale" in name}
        named.pop("guidance_scale")
        files = {name: path for name, path in self.files.items() if not name.startswith("controlnet_images")}
        return {**named, **files, "options": self.options}

    @cached_property
    def files(self) -> dict[str, str]:
        """The files that it names, by field, where they are. Raises InputError for one that is missing."""
        fields = self.fields
        named = ("motion_module", "dreambooth_path", "lora_model_path", "adapter_lora_path", "controlnet_path")
        given = {name: fields[name] for name in named}
        given["inference_config"] = fields["inference_config"] or self.options["--inference-config"]
        for i, lora in enumerate(fields["motion_module_lora_configs"]):
            given[f"motion_module_lora_configs[{i}].path"] = lora["path"]
        if fields["controlnet_path"]:
            given["controlnet_config"] = fields["controlnet_config"]
            given |= {f"controlnet_images[{i}]": path for i, path in enumerate(fields["controlnet_images"])}
        return {name: str(self._find(name, path)) for name, path in given.items() if path}

    def check(self) -> None:
        """Raises InputError for a file that is missing or whose configuration cannot be."""
        self._inference  # noqa: B018 - reads what is refused
        if self.fields["controlnet_path"]:
            self._sparse_config()

    def load(self, dtype: Any, *, allow_pickle: bool = False) -> AnimateDiffPipeline:
        """The pipeline that it describes, with LoRAs merged into its weights, in a number format, on the CPU.

        Raises: InputError, CheckpointError, which name the file.
        """
        from .pipeline import AnimateDiffPipeline
        from .weights import load_sparse_controlnet

        self.check()
        files = self.files
        pipe = AnimateDiffPipeline.from_published(
            self._base(),
            files["motion_module"],
            dreambooth=files.get("dreambooth_path"),
            version="v3",  # only a start: what the configuration says replaces all of it
            motion_config=self._motion_config(),
            allow_pickle=allow_pickle,
        )
        self._merge_loras(pipe, allow_pickle)
        parts = {**pipe.components, "scheduler": self.scheduler}
        if "controlnet_path" in files:
            parts["sparse_controlnet"] = load_sparse_controlnet(
                files["controlnet_path"], pipe.unet, config=self._sparse_config(), allow_pickle=allow_pickle
            )
        return AnimateDiffPipeline(**parts, config=self.sampling).to(dtype)

    # ---- how

    @property
    def _places(self) -> list[Path]:
        """The folder that relative paths start from: as in the original the working directory; else the file's
        folder or one around it."""
        return [Path(), *self.source.absolute().parents]

    def _find(self, name: str, path: str) -> Path:
        found = find_from(self.source, path)
        if found is None:
            raise InputError(
                f"{self}: {name} is {path}, but there is no such file in the working directory, nor from "
                f"{self._places[1]} upwards; give it with --set {self.number}.{name.partition('[')[0]}=FILE."
            )
        return found

    def _base(self) -> Path:
        given = self.options["--pretrained-model-path"]
        for place in self._places:
            for path in [given] if given else _BASES:
                if (place / path / "unet").is_dir() or (place / path).is_file():
                    return place / path
        name = given or _BASE_ID
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise InputError(f"there is no base model {name}; name its folder with --pretrained-model-path.")
        from ...weights.files import fetch

        parts = ("unet", "vae", "text_encoder", "tokenizer")
        # One file a part, in float32.
        wanted = [f"{part}/{file}" for part in parts for file in ("*.json", "*model.safetensors", "merges.txt")]
        advice = "; name its folder with --pretrained-model-path"
        return fetch(name, f"the base model {name} is not here", advice, allow_patterns=wanted)

    @cached_property
    def _inference(self) -> dict[str, dict[str, Any]]:
        return check_sections(read_file(file := self.files["inference_config"]), INFERENCE, file)

    def _motion_config(self) -> dict[str, Any]:
        from ...weights.motion_module import motion_config

        flags = dict(self._inference["unet_additional_kwargs"])
        return motion_config(None, flags.pop("motion_module_kwargs"), flags)

    def _sparse_config(self) -> dict[str, Any]:
        sections = check_sections(read_file(file := self.files["controlnet_config"]), CONTROLNET, file)
        return sections["controlnet_additional_kwargs"]

    def _merge_loras(self, pipe: AnimateDiffPipeline, allow_pickle: bool) -> None:
        from ...weights.lora_files import read_lora_file

        files, fields = self.files, self.fields
        if path := files.get("lora_model_path"):
            tensors, _ = read_lora_file(Path(path), allow_pickle)
            tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}
            try:
                pipe.load_lora_weights(tensors, "lora")
            except AnimagicError as error:  # which cannot know the file
                raise CheckpointError(f"{path}: {error}") from error
            pipe.set_adapters("lora", fields["lora_alpha"])
        if path := files.get("adapter_lora_path"):
            scale = fields["adapter_lora_scale"]
            pipe.load_domain_adapter(path, scale, allow_pickle=allow_pickle)
        for i, lora in enumerate(fields["motion_module_lora_configs"]):
            path = files[f"motion_module_lora_configs[{i}].path"]
            pipe.load_motion_lora(path, f"motion_{i}", lora["alpha"], allow_pickle=allow_pickle)
        if pipe.get_active_adapters():
            pipe.fuse_lora()
            pipe.unload_lora_weights()


def recognises(content: Any) -> bool:
    """Whether what a file holds is most likely an inference file of AnimateDiff, right or wrong."""
    return any(entry.keys() & {"prompt", "n_prompt"} for entry in _listed(content))


def read_entries(file: str | Path, settings: Iterable[str] = ()) -> list[Entry]:
    """The entries of a published inference file, checked, but for the files that they name (`Entry.check`).

    settings: "FIELD=VALUE" in place of what every entry says, "N.FIELD=VALUE" of entry N (from 0), "--OPTION=VALUE" for
        an option of the command.
    Raises: InputError that names the entry and the field, what is allowed and what to do.
    """
    source, given = Path(file), []
    options: dict[str, Any] = {}
    for entry in _listed(read_file(file)):
        modules = entry.get("motion_module")
        for module in modules if isinstance(modules, list) and modules else [modules]:
            given.append({**entry, "motion_module": module})
    if not given:
        raise InputError(f"{source} must list entries, each with its fields: motion_module, prompt, ...")
    # What is said of one entry holds before what is said of all.
    for setting in sorted(settings, key=lambda setting: setting.lstrip()[:1].isdigit()):
        place, name, text = split_setting(setting, r"\d*", "FIELD=VALUE, or N.FIELD=VALUE for entry N alone")
        value = value_of(setting, name, text, Options if name.startswith("--") else EntryFields)
        if place and int(place) >= len(given):
            raise InputError(f"{setting!r} names entry {place}; {source} has {len(given)}, from 0.")
        changed = [options] if name.startswith("--") else [given[int(place)]] if place else given
        for fields in changed:
            fields[name] = value
    options = Options.check(options, "")
    return [_entry(source, number, fields, options) for number, fields in enumerate(given)]


def read_entry(file: str | Path, settings: Iterable[str] = (), number: int = 0) -> Entry:
    """One of the entries. Raises InputError."""
    entries = read_entries(file, settings)
    if number >= len(entries):
        raise InputError(f"{file} has no entry {number}: it has {len(entries)}, counted from 0.")
    return entries[number]


def normalised(picture: np.ndarray) -> np.ndarray:
    """A picture as `normalize_condition_images` makes it, uint8 (height, width, 3): grey, from black to white."""
    import numpy as np

    grey = picture.mean(axis=2, keepdims=True)
    grey = (grey - grey.min()) / max(np.ptp(grey), 1e-6)
    return np.repeat((grey * 255).round().astype(np.uint8), 3, axis=2)


def _listed(content: Any) -> list[dict[str, Any]]:
    """The entries of a file; none if it holds something else."""
    listed = list(content.values()) if isinstance(content, dict) else content
    return listed if isinstance(listed, list) and all(isinstance(entry, dict) for entry in listed) else []


def _entry(source: Path, number: int, given: dict[str, Any], options: dict[str, Any]) -> Entry:
    where = f"entry {number} of {source}"
    fields = EntryFields.check(given, f"{where}: ")
    fields["motion_module_lora_configs"] = [
        MotionLora.check(lora, f"{where}: motion_module_lora_configs[{i}].")
        for i, lora in enumerate(fields["motion_module_lora_configs"])
    ]
    entry = Entry(source, number, fields, options)
    frames, indexes = entry.size[0], fields["controlnet_image_indexs"] if fields["controlnet_path"] else []
    for index in indexes:
        if not -frames <= index < frames:
            raise InputError(f"{where}: controlnet_image_indexs has {index}; the video has {frames} frames, from 0.")
    if len({index % frames for index in indexes}) < len(indexes):
        raise InputError(f"{where}: controlnet_image_indexs names a frame twice; give each of its own.")
    return entry


def _one_each(values: list[Any], count: int) -> list[Any]:
    return values * count if len(values) == 1 else values
