"""The original inference files of AnimateDiff: every field, what is done with it, and what is refused.

Such a file lists entries; each names weights, and prompts of which every one becomes a video. Files of the first
release map names to entries, of which each may list several motion modules.
Source of the names and defaults: guoyww/AnimateDiff, `scripts/animate.py` and its `configs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ...errors import AnimagicError, CheckpointError, InputError
from ...fields import Field, nearest

if TYPE_CHECKING:
    import numpy as np

    from .pipeline import AnimateDiffPipeline

FIELDS = {
    "motion_module": Field(str, "file of the motion module; a list of them: the entry once for each"),
    "inference_config": Field(str, "file that describes the UNet and the noise; `--inference-config`", default=""),
    "dreambooth_path": Field(
        str, "file whose UNet, autoencoder and text encoder replace the base's; empty: none", default=""
    ),
    "lora_model_path": Field(str, "file of a LoRA of the picture model; empty: none", default=""),
    "lora_alpha": Field(float, "its weight; alphas inside the file have no effect, as in the original", default=0.8),
    "adapter_lora_path": Field(str, "file of the domain adapter of v3; empty: none", default=""),
    "adapter_lora_scale": Field(float, "its weight", default=1.0),
    "domain_lora_scale": Field(float, "an older name of `adapter_lora_scale`", default=1.0),
    "motion_module_lora_configs": Field(list[dict], "MotionLoRAs, each with its `path` and its `alpha`", default=[]),
    "controlnet_path": Field(str, "file of a SparseCtrl network; empty: none", default=""),
    "controlnet_config": Field(str, "file that describes it", default=""),
    "controlnet_images": Field((str, list[str]), "pictures that frames are kept to", default=[]),
    "controlnet_image_indexs": Field(
        list[int], "the frame of each of them; negative ones count from the end", default=[0]
    ),
    "normalize_condition_images": Field(bool, "true: pictures become grey, from black to white", default=False),
    "prompt": Field(list[str], "what to show; a video each"),
    "n_prompt": Field(list[str], "what not to show: one for all prompts or one each"),
    "seed": Field((int, list[int]), "one for all prompts or one each; -1: a new one", default=-1, least=-1),
    "steps": Field(int, "denoising steps", least=1),
    "guidance_scale": Field(float, "how strongly prompts are followed", least=0),
    "L": Field(int, "frames; `--L`", default=None, least=1),
    "W": Field(int, "width in pixels; `--W`", default=None, least=1),
    "H": Field(int, "height in pixels; `--H`", default=None, least=1),
    "random_seed": Field((int, list[int]), "no effect: the original notes here which seeds it used", default=[]),
}
"""Of an entry."""

OPTIONS = {
    "--pretrained-model-path": Field(str, "folder or hub id of the picture model", default=""),
    "--inference-config": Field(
        str, "for entries without `inference_config`", default="configs/inference/inference-v1.yaml"
    ),
    "--L": Field(int, "for entries without `L`", default=16, least=1),
    "--W": Field(int, "for entries without `W`", default=512, least=1),
    "--H": Field(int, "for entries without `H`", default=512, least=1),
    "--fp32": Field(bool, "weights are float32 on a GPU, too", default=False),
}
"""Of the original command; `--fp32` of ours."""

_MODULE = {
    "num_attention_heads": Field(int, "heads of each attention", default=8, least=1),
    "num_transformer_block": Field(int, "transformer blocks of a motion module", default=2, least=1),
    "attention_block_types": Field(
        list[str], "attentions of a block: `Temporal_Self`, `Temporal_Cross`", default=["Temporal_Self"] * 2
    ),
    "cross_frame_attention_mode": Field(str, "must be left out", default=None),
    "temporal_position_encoding": Field(bool, "whether frames know their place", default=False),
    "temporal_position_encoding_max_len": Field(int, "the most frames that a window may have", default=32, least=1),
    "temporal_attention_dim_div": Field(int, "how much narrower it is than the UNet", default=1, least=1),
    "zero_initialize": Field(bool, "no effect: that is how training begins", default=True),
}
_NETWORK = {
    "use_motion_module": Field(bool, "must be true", default=False),
    "motion_module_resolutions": Field(
        list[int], "levels with motion modules, by how much smaller they are than the latents", default=[1, 2, 4, 8]
    ),
    "motion_module_mid_block": Field(bool, "one more in the middle (v2)", default=False),
    "motion_module_type": Field(str, "must be `Vanilla`", default="Vanilla"),
    "motion_module_kwargs": Field(dict, "the next table", default={}),
}
_SPARSE_MODULE = {
    "num_transformer_block": 1,
    "attention_block_types": ["Temporal_Self"],
    "temporal_position_encoding": True,
}
SECTIONS: dict[str, dict[str, Field]] = {
    "unet_additional_kwargs": {
        **_NETWORK,
        "motion_module_decoder_only": Field(bool, "none on the way down", default=False),
        "use_inflated_groupnorm": Field(
            bool, "true: norms of single frames; false: of all frames together (v1)", default=False
        ),
        "unet_use_cross_frame_attention": Field(bool, "must be false", default=False),
        "unet_use_temporal_attention": Field(bool, "must be false", default=False),
    },
    "motion_module_kwargs": _MODULE,
    "noise_scheduler_kwargs": {
        "num_train_timesteps": Field(int, "levels of noise in training", default=1000, least=1),
        "beta_start": Field(float, "noise of the first", default=0.0001, least=0),
        "beta_end": Field(float, "noise of the last", default=0.02, least=0),
        "beta_schedule": Field(
            str,
            "how it grows between",
            default="linear",
            only=("linear", "scaled_linear", "squaredcos_cap_v2"),
            instead="DDIM has no such schedule",
        ),
        "steps_offset": Field(int, "added to every timestep", default=0, least=0),
        "clip_sample": Field(bool, "whether clean latents are clipped to -1..1", default=True),
        "set_alpha_to_one": Field(bool, "whether the last step ends without any noise", default=True),
        "prediction_type": Field(
            str,
            "what the UNet predicts",
            default="epsilon",
            only=("epsilon", "sample", "v_prediction"),
            instead="DDIM knows no other prediction",
        ),
    },
    "controlnet_additional_kwargs": {
        **_NETWORK,
        "use_motion_module": Field(bool, "must be true", default=True),
        "motion_module_kwargs": Field(dict, "as above, with one `Temporal_Self`", default=_SPARSE_MODULE),
        "set_noisy_sample_input_to_zero": Field(bool, "true: it does not see the noisy latents", default=False),
        "use_simplified_condition_embedding": Field(
            bool, "true: it reads latents of pictures (RGB); false: pixels (scribble)", default=False
        ),
        "conditioning_channels": Field(int, "of those: 4 or 3", default=3, least=1),
        "concate_conditioning_mask": Field(bool, "whether it is shown which frames have a picture", default=True),
    },
}
"""Of the files `inference_config` (the first three) and `controlnet_config`."""

_LORA = {"path": Field(str, "its file"), "alpha": Field(float, "its weight")}
# Where the original's instructions put it, and where it lies on the hub today.
_BASES = ("models/StableDiffusion/stable-diffusion-v1-5", "models/StableDiffusion")
_BASE_ID = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@dataclass(frozen=True)
class Video:
    """What one prompt of an entry asks for. seed: None: a new one."""

    prompt: str
    negative_prompt: str
    seed: int | None


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
    def videos(self) -> list[Video]:
        prompts, seeds = self.fields["prompt"], self.fields["seed"]
        negatives = _one_each(self.fields["n_prompt"], len(prompts))
        seeds = _one_each(seeds if isinstance(seeds, list) else [seeds], len(prompts))
        return [Video(p, n, None if s < 0 else s) for p, n, s in zip(prompts, negatives, seeds, strict=True)]

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
        """What its pipeline is made from: entries with equal ones can share it."""
        named = {name: value for name, value in self.fields.items() if "lora" in name or "scale" in name}
        named.pop("guidance_scale")
        files = {name: path for name, path in self.files.items() if not name.startswith("controlnet_images")}
        return {**named, **files, "options": self.options}

    @cached_property
    def files(self) -> dict[str, str]:
        """The files that it names, by field, where they are. Raises InputError for one that is missing."""
        fields = self.fields
        given = {name: fields[name] for name in ("motion_module", "dreambooth_path", "lora_model_path")}
        given |= {name: fields[name] for name in ("adapter_lora_path", "controlnet_path")}
        given["inference_config"] = fields["inference_config"] or self.options["--inference-config"]
        for i, lora in enumerate(fields["motion_module_lora_configs"]):
            given[f"motion_module_lora_configs[{i}].path"] = lora["path"]
        if fields["controlnet_path"]:
            given["controlnet_config"] = fields["controlnet_config"]
            images = fields["controlnet_images"]
            given |= {f"controlnet_images[{i}]": path for i, path in enumerate(images)}
        return {name: str(self._find(name, path)) for name, path in given.items() if path}

    def check(self) -> None:
        """Raises InputError for a file that is missing or whose configuration cannot be."""
        self.scheduler  # noqa: B018 - reads what is refused
        self._motion_config()
        if self.fields["controlnet_path"]:
            self._sparse_config()

    def load(self, dtype: Any, *, allow_pickle: bool = False) -> AnimateDiffPipeline:
        """The pipeline that it describes, with LoRAs merged into its weights, in a number format, on the processor.

        Raises: InputError, CheckpointError, which name the file.
        """
        from .pipeline import AnimateDiffPipeline

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
            parts["sparse_controlnet"] = self._load_sparse(pipe.unet, allow_pickle)
        return AnimateDiffPipeline(**parts, config=self.sampling).to(dtype)

    # ---- how

    def _find(self, name: str, path: str) -> Path:
        """As the original, from the working directory on; else from the file's folder or one around it."""
        places = [Path(), *self.source.absolute().parents]
        for place in places:
            if (place / path).exists():
                return place / path
        raise InputError(
            f"{self}: {name} is {path}, but there is no such file in the working directory, nor from {places[1]} "
            f"upwards; give it with --set {self.number}.{name.partition('[')[0]}=FILE."
        )

    def _base(self) -> Path:
        given = self.options["--pretrained-model-path"]
        for place in [Path(), *self.source.absolute().parents]:
            for path in [given] if given else _BASES:
                if (place / path / "unet").is_dir() or (place / path).is_file():
                    return place / path
        name = given or _BASE_ID
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise InputError(f"there is no picture model {name}; name its folder with --pretrained-model-path.")
        from huggingface_hub import snapshot_download

        parts = ("unet", "vae", "text_encoder", "tokenizer")
        # One file a part, in float32.
        wanted = [f"{part}/{file}" for part in parts for file in ("*.json", "*model.safetensors", "merges.txt")]
        try:
            return Path(snapshot_download(name, allow_patterns=wanted))
        except (OSError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise InputError(
                f"the picture model {name} is not here, and it cannot be fetched: {reason}; name its folder with "
                "--pretrained-model-path."
            ) from error

    @cached_property
    def _inference(self) -> dict[str, dict[str, Any]]:
        return _read_sections(self.files["inference_config"], ("unet_additional_kwargs", "noise_scheduler_kwargs"))

    def _motion_config(self) -> dict[str, Any]:
        from .published import motion_config

        flags = dict(self._inference["unet_additional_kwargs"])
        return _explained(self.files["inference_config"], motion_config, None, flags.pop("motion_module_kwargs"), flags)

    def _sparse_config(self) -> dict[str, Any]:
        section = "controlnet_additional_kwargs"
        return _read_sections(self.files["controlnet_config"], (section,))[section]

    def _load_sparse(self, unet: Any, allow_pickle: bool) -> Any:
        import inspect

        from accelerate import init_empty_weights
        from diffusers import UNet2DConditionModel

        from ...weights.files import read_tensors
        from ...weights.fit import check, fill
        from .published import original_names
        from .weights import sparse_controlnet_from_config

        path = Path(self.files["controlnet_path"])
        tensors = original_names(read_tensors(path, allow_pickle))
        known = inspect.signature(UNet2DConditionModel).parameters
        base = {name: value for name, value in unet.config.items() if name in known}
        with init_empty_weights(include_buffers=False):
            config = base | self._sparse_config()
            network = _explained(self.files["controlnet_config"], sparse_controlnet_from_config, config)
        check(network.state_dict(), tensors, path)
        return fill(network, tensors, unet.dtype)

    def _merge_loras(self, pipe: AnimateDiffPipeline, allow_pickle: bool) -> None:
        from ...weights.lora import read_lora_file

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


def read_entries(file: str | Path, settings: Iterable[str] = ()) -> list[Entry]:
    """The entries of an original inference file, checked, but for the files that they name (`Entry.check`).

    Args:
        settings: "FIELD=VALUE" in place of what every entry says, "N.FIELD=VALUE" of entry N (from 0), "--OPTION=VALUE"
            for an option of the command.
    Raises: InputError that names the entry and the field, what is allowed and what to do.
    """
    source = Path(file)
    given = _raw_entries(source)
    everywhere, single, options = _parse(settings, len(given), source)
    entries = []
    for number, raw in enumerate(given):
        raw = raw | everywhere | single.get(number, {})
        entry = Entry(source, number, _values(raw, FIELDS, f"entry {number} of {source}"), options)
        _check_entry(entry, raw)
        entries.append(entry)
    return entries


def normalised(picture: np.ndarray) -> np.ndarray:
    """What `normalize_condition_images` makes of a picture, uint8 (height, width, 3): grey, from black to white."""
    import numpy as np

    grey = picture.mean(axis=2, keepdims=True)
    grey = (grey - grey.min()) / max(np.ptp(grey), 1e-6)
    return np.repeat((grey * 255).round().astype(np.uint8), 3, axis=2)


def _raw_entries(source: Path) -> list[dict[str, Any]]:
    content = _read_yaml(source)
    listed = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"{source} must list entries, each with its fields: motion_module, prompt, ...")
    raw = []
    for entry in listed:
        modules = entry.get("motion_module")
        for module in modules if isinstance(modules, list) and modules else [modules]:
            raw.append({**entry, "motion_module": module})
    return raw


def _read_yaml(file: str | Path) -> Any:
    try:
        return yaml.safe_load(Path(file).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{file} is no YAML file: {reason}.") from error


def _values(given: Mapping[str, Any], known: Mapping[str, Field], where: str) -> dict[str, Any]:
    """All known fields, checked; null is as if a field were left out."""
    for name in given:
        if name not in known:
            raise InputError(f"{where} has an unknown field {name!r}{nearest(str(name), known)}")
    values = {}
    for name, about in known.items():
        value = given.get(name)
        if value is None:
            if about.needed:
                raise InputError(f"{where} lacks {name}; add it to the file.")
            value = about.default
        else:
            value = _number(value) if about.kind is float else value
            about.check(value, f"{where}: {name}", settable=False)
        values[name] = value
    return values


def _number(value: Any) -> Any:
    """1e-4 is a number in the original, but not in YAML."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _one_each(values: list[Any], count: int) -> list[Any]:
    return values * count if len(values) == 1 else values


def _check_entry(entry: Entry, raw: Mapping[str, Any]) -> None:
    fields, count = entry.fields, len(entry.fields["prompt"])
    if not fields["motion_module"]:
        raise InputError(f"{entry}: motion_module is empty; name its file.")
    if not count:
        raise InputError(f"{entry}: prompt has none; give one at least.")
    for i, prompt in enumerate(fields["prompt"]):
        if not prompt.strip():
            raise InputError(f"{entry}: prompt {i} is empty; say what the video should show.")
    for name in ("n_prompt", "seed"):
        given = len(fields[name]) if isinstance(fields[name], list) else 1
        if given not in (1, count):
            raise InputError(f"{entry}: {name} has {given} values, prompt has {count}; give one for all, or one each.")
    loras = fields["motion_module_lora_configs"]
    fields["motion_module_lora_configs"] = [
        _values(lora, _LORA, f"{entry}: motion_module_lora_configs[{i}]") for i, lora in enumerate(loras)
    ]
    older = fields.pop("domain_lora_scale")
    if raw.get("adapter_lora_scale") is None and raw.get("domain_lora_scale") is not None:
        fields["adapter_lora_scale"] = older
    if isinstance(fields["controlnet_images"], str):
        fields["controlnet_images"] = [fields["controlnet_images"]]
    if fields["controlnet_path"]:
        _check_controls(entry)


def _check_controls(entry: Entry) -> None:
    fields, frames = entry.fields, entry.size[0]
    for name in ("controlnet_config", "controlnet_images"):
        if not fields[name]:
            raise InputError(f"{entry}: controlnet_path needs {name}, too.")
    images, indexes = len(fields["controlnet_images"]), fields["controlnet_image_indexs"]
    if images != len(indexes):
        raise InputError(
            f"{entry}: controlnet_images has {images}, controlnet_image_indexs {len(indexes)}; give one each."
        )
    for index in indexes:
        if not -frames <= index < frames:
            raise InputError(f"{entry}: controlnet_image_indexs has {index}; the video has {frames} frames, from 0.")
    if len({index % frames for index in indexes}) < images:
        raise InputError(f"{entry}: controlnet_image_indexs names a frame twice; give each of its own.")


def _parse(
    settings: Iterable[str], count: int, source: Path
) -> tuple[dict[str, Any], dict[int, dict[str, Any]], dict[str, Any]]:
    """For every entry, for single ones, and options of the command."""
    everywhere: dict[str, Any] = {}
    single: dict[int, dict[str, Any]] = {}
    options: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        number, dot, name = path.strip().rpartition(".")
        known = OPTIONS if path.startswith("--") else FIELDS
        if not equals or (dot and not number.isdecimal()):
            raise InputError(f"{setting!r} is not understood; write FIELD=VALUE, or N.FIELD=VALUE for entry N alone.")
        if name not in known:
            raise InputError(f"{setting!r} names an unknown field{nearest(name, known)}")
        if dot and int(number) >= count:
            raise InputError(f"{setting!r} names entry {number}; {source} has {count}, from 0.")
        value = text.strip()
        if known[name].kind is not str:
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                raise InputError(f"{setting!r} is not understood; {known[name].needs} is needed.") from None
        target = options if known is OPTIONS else single.setdefault(int(number), {}) if dot else everywhere
        target[name] = value
    return everywhere, single, _values(options, OPTIONS, "the command")


def _read_sections(file: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The sections of an `inference_config` or `controlnet_config`, checked, with the original's defaults."""
    content, names = _read_yaml(file), list(names)
    if not isinstance(content, dict) or not all(isinstance(section, dict) for section in content.values()):
        raise InputError(f"{file} must hold {' and '.join(names)}, each with its fields.")
    for name in content:
        if name not in names:
            raise InputError(f"{file} has an unknown section {name!r}{nearest(str(name), names)}")
    sections = {name: _values(content.get(name, {}), SECTIONS[name], f"{file}, {name}") for name in names}
    for name, section in sections.items():
        if "motion_module_kwargs" not in section:
            continue
        module = _values(section["motion_module_kwargs"], _MODULE, f"{file}, motion_module_kwargs")
        sections[name] = section | {"motion_module_kwargs": module}
    return sections


def _explained(file: str, make: Any, *arguments: Any) -> Any:
    """make(*arguments); what it refuses is said of the file."""
    try:
        return make(*arguments)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def describe() -> Iterator[tuple[str, str, str]]:
    """(table, field, what is done with it) for the documentation."""
    for table, known in {"entry": FIELDS, **SECTIONS}.items():
        for name, about in known.items():
            yield table, name, about.does
