"""How much memory a video takes, measured before any weights are loaded, and what to do where memory is short."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from ..errors import CheckpointError, InputError, first_line
from ..layers.fp8 import FP8
from ..weights.files import SafetensorsFile
from .meta import bytes_at_work, bytes_of, cast, peak_of

_CUDA_CONTEXT = 600 * 2**20  # of the driver and cuBLAS: not PyTorch's, but gone all the same
_FRAGMENTS = 0.05  # share of the memory that lies between the blocks of PyTorch's allocator
# The same on a CPU, as a share of the activations, whose coming and going makes it: measured with glibc as it is, and
# after `give_back_freed_memory`.
_CPU_FRAGMENTS = {False: 0.7, True: 0.1}
_KERNELS = 30 * 2**20  # of the libraries, read in when they first run

Text = Literal["keep", "drop", "cpu"]
Offload = Literal["model", "block", "leaf"]


@dataclass(frozen=True)
class Techniques:
    """Ways to need less memory.

    Args:
        text: of the text encoder; "drop": the prompts are encoded before the other parts are loaded, then it goes;
            "cpu": so, and it never comes to the device.
        tiling: the autoencoder works tile by tile; the only one that changes pixels.
        offload: weights wait in the CPU's memory: those of whole parts, blocks or layers come when they are needed.
        kv_offload: so do the keys and values of clean chunks.
    """

    text: Text = "keep"
    tiling: bool = False
    offload: Offload | None = None
    kv_offload: bool = False

    def __str__(self) -> str:
        names = {
            "text encoder dropped after use": self.text == "drop",
            "text encoder on the CPU, dropped after use": self.text == "cpu",
            "autoencoder in tiles": self.tiling,
            "model offload": self.offload == "model",
            "keys and values offloaded": self.kv_offload,
            "group offload, block by block": self.offload == "block",
            "group offload, layer by layer": self.offload == "leaf",
        }
        return ", ".join(name for name, used in names.items() if used) or "nothing to be saved"


Call = tuple[Callable[[], Any], int, int]
"""A moment of denoising: what takes memory then, and bytes of keys and values that the device holds, and that wait."""


class Networks(ABC):
    """A model without its weights, and how its parts are called: what a system adds to the prediction.

    Args:
        pipe: the pipeline, its networks on the meta device in the dtypes that they are loaded in; no text encoder.
        text_encoder: bytes of that one's weights.
    """

    denoiser: ClassVar[str]
    """The component of the pipeline that denoises."""
    texts: ClassVar[tuple[Text, ...]] = ("keep",)
    """Ways to treat the text encoder; more needs `encode_ahead` and `drop_text_encoder`."""
    offloads: ClassVar[tuple[tuple[Offload | None, bool], ...]] = ((None, False), ("model", False), ("leaf", False))
    """`offload` and `kv_offload` in the order in which they are tried; the latter needs `enable_kv_offload`."""
    published: ClassVar[dict[str, dict[str, str]]] = {}
    """Of published models: what a person calls them -> dtype -> name."""
    advice: ClassVar[str] = ""
    """The end of a refusal, if no layer is quantised: what else would need less memory."""

    def __init__(self, pipe: Any, text_encoder: int):
        self.pipe, self.text_encoder = pipe, text_encoder

    @classmethod
    def of_folder(cls, folder: Path, index: dict[str, Any], dtype: torch.dtype, others: Path | None = None) -> Networks:
        """Of a model folder with that model_index.json; parts that it lacks lie in `others`. Raises CheckpointError."""
        try:
            parts: dict[str, Any] = {}
            text_encoder = 0
            for name, part in index.items():
                place = (folder if others is None or (folder / name).is_dir() else others) / name
                if isinstance(part, list) and name.startswith("text_encoder"):
                    tensors = [
                        x for file in place.glob("*.safetensors") for x in SafetensorsFile(file).entries.values()
                    ]
                    text_encoder += dtype.itemsize * sum(math.prod(x.shape) for x in tensors)
                elif isinstance(part, list) and str(part[0]).split(".")[0] in ("animagic", "diffusers"):
                    kind = getattr(importlib.import_module(part[0]), part[1])
                    with torch.device("meta" if issubclass(kind, nn.Module) else "cpu"):
                        parts[name] = kind.from_config(kind.load_config(place))
                    if issubclass(kind, nn.Module):
                        cast(parts[name], dtype)
            pipeline = getattr(importlib.import_module("animagic"), index["_class_name"])
            return cls(pipeline(**parts, config=index.get("config")), text_encoder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the model {folder} cannot be read: {first_line(error)}.") from error

    @classmethod
    def of_published(cls, model: str, dtype: torch.dtype) -> Networks | None:
        """Of a model of this system by its published name, or by its original configuration (.json); None: it is of
        another system. Raises InputError, CheckpointError."""
        return None

    @abstractmethod
    def settings(self, height: int | None, width: int | None, frames: int | None, steps: int | None) -> Any:
        """The settings of a video; None: the model's own. Raises InputError for what it cannot make."""

    def latents(self, settings: Any, frames: int) -> torch.Tensor:
        """Latents of a video, (1, channels, frames, height, width); frames: latent ones."""
        ratio = self.pipe.pixels_per_latent
        shape = (1, self.pipe.latent_channels, frames, settings.height // ratio, settings.width // ratio)
        return torch.empty(shape, device="meta")

    @abstractmethod
    def calls(self, settings: Any, kv_offload: bool) -> list[Call]:
        """The moments of denoising among which is the one that takes the most memory."""

    @abstractmethod
    def decode(self, settings: Any, tiling: bool) -> Callable[[], torch.Tensor]:
        """A function that decodes what is decoded at once, and returns its pixels (float32)."""

    @cached_property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by the names that a person reads."""
        networks = {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}
        return {"autoencoder" if name == "vae" else name.replace("_", " "): part for name, part in networks.items()}

    @property
    def fp8(self) -> bool:
        """Whether layers are quantised."""
        return any(p.dtype == FP8 for part in self.parts.values() for p in part.parameters())


@dataclass(frozen=True)
class Prediction:
    """The memory that a video takes."""

    stages: dict[str, dict[str, int]]
    """encode (text), denoise, decode -> part -> bytes on the device (in the process, where that is the CPU)."""
    host: int
    """Bytes of weights, keys and values that wait in the CPU's memory."""

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return max(sum(parts.values()) for parts in self.stages.values())


@dataclass(frozen=True)
class Fit:
    """The techniques with which a video fits, and what that comes to."""

    networks: Networks
    budget: int
    techniques: Techniques
    prediction: Prediction

    def __str__(self) -> str:
        return f"{self.prediction.peak / 1e9:.2f} of {self.budget / 1e9:.2f} GB: {self.techniques}"


class Predictor:
    """Predicts the memory of a video from text for any combination of techniques.

    Args:
        networks: of the model.
        device: "cuda" or another kind: everything but CUDA counts as the CPU.
        height, width: pixels; frames, steps: None: the model's own.
        tight: whether `give_back_freed_memory` is called before, which matters on a CPU.
        process: bytes that the process takes without a model, which counts on a CPU; None: what it takes now.
    Raises: InputError for a size or number that the model cannot make.
    """

    def __init__(
        self,
        networks: Networks,
        device: str,
        height: int | None = None,
        width: int | None = None,
        frames: int | None = None,
        steps: int | None = None,
        *,
        tight: bool = False,
        process: int | None = None,
    ):
        self.networks, self.cuda, self.tight = networks, device == "cuda", tight
        self._process = process
        self.settings = networks.settings(height, width, frames, steps)
        self._denoising, self._decoding = cache(self._measure_denoising), cache(self._measure_decoding)
        self._texts = networks.texts if self.cuda else networks.texts[:2]
        self._offloads = networks.offloads if self.cuda else ((None, False),)

    def combinations(self, drop_text: bool = True, tiling: bool = False) -> list[Techniques]:
        """All that make sense here, the cheapest first: each technique after all combinations of those before it.
        drop_text: whether the text encoder may go; tiling: whether the autoencoder works in tiles anyway."""
        texts, tilings = self._texts if drop_text else ("keep",), (True,) if tiling else (False, True)
        every = itertools.product(self._offloads, tilings, texts)
        return [Techniques(text, tiles, *offload) for offload, tiles, text in every]

    def choices(self) -> list[Techniques]:
        """A few to look at: nothing saved, the text encoder gone, and besides tiles and each way to offload."""
        text = self._texts[-1]
        tiled = [Techniques(text, True, *offload) for offload in self._offloads]
        return list(dict.fromkeys([Techniques(), Techniques(text), *tiled]))

    def fit(self, budget: int, *, drop_text: bool = True, tiling: bool = False) -> Fit:
        """The first combination that takes at most `budget` bytes. Raises InputError, which says the least that would
        do."""
        least = math.inf
        for techniques in self.combinations(drop_text, tiling):
            prediction = self.predict(techniques)
            if prediction.peak <= budget:
                return Fit(self.networks, budget, techniques, prediction)
            least = min(least, prediction.peak)
        raise InputError(
            f"{budget / 1e9:.2f} GB are too little for {self.settings.width}x{self.settings.height}: with all that "
            f"saves memory {least / 1e9:.2f} GB are needed; allow that much, or choose a smaller size"
            f"{'' if self.networks.fp8 else self.networks.advice}."
        )

    def predict(self, techniques: Techniques = Techniques()) -> Prediction:
        """With these techniques."""
        networks, offload, keeps = self.networks, techniques.offload, techniques.text == "keep"
        activations, cache, waiting = self._denoising(techniques.kv_offload)
        # While a part works; where only blocks of the denoiser come and go, the others stay.
        weights = {
            name: bytes_at_work(part, offload if offload != "block" or name == networks.denoiser else None)
            for name, part in networks.parts.items()
        }
        text = networks.text_encoder
        if keeps and offload in ("block", "leaf"):  # layer by layer; how large they are is not known: none is a tenth
            text //= 10
        encode = {} if techniques.text == "cpu" else {"text encoder": text}
        if keeps and offload != "model":  # which has one part on the device at a time
            encode = weights = weights | encode
        denoise = weights | {"keys and values": cache, "activations": activations}
        decode = denoise | {"activations": self._decoding(techniques.tiling)}
        if offload == "model":  # but nothing sends the autoencoder away
            del decode[networks.denoiser]
        base = {"driver": _CUDA_CONTEXT} if self.cuda else {"libraries": self._process or process_bytes()}
        stages = {"encode": base | encode, "denoise": base | denoise, "decode": base | decode}
        for parts in stages.values():
            on_cuda, on_cpu = sum(parts.values()) - _CUDA_CONTEXT, parts.get("activations", 0)
            parts["between blocks"] = round(_FRAGMENTS * on_cuda if self.cuda else _CPU_FRAGMENTS[self.tight] * on_cpu)
        if offload is not None:
            waiting += sum(map(bytes_of, networks.parts.values())) + keeps * networks.text_encoder
            waiting -= 0 if offload == "model" else sum(weights.values())
        return Prediction(stages, max(waiting, networks.text_encoder) if techniques.text == "cpu" else waiting)

    def _measure_denoising(self, kv_offload: bool) -> tuple[int, int, int]:
        """Bytes of (activations, keys and values on the device, and offloaded)."""
        calls = self.networks.calls(self.settings, kv_offload)
        moments = [(peak_of(run, not self.cuda)[0], held) for run, held, _ in calls]
        return *max(moments, key=sum), max(waiting for _, _, waiting in calls)

    def _measure_decoding(self, tiling: bool) -> int:
        """Bytes of activations."""
        peak, pixels = peak_of(self.networks.decode(self.settings, tiling), not self.cuda)
        # The frames on their way to bytes: twice more in float32 (to_bytes), which a GPU does not see. Those that were
        # decoded before are still held.
        return (peak if self.cuda else max(peak, 3 * pixels.nbytes)) + pixels.nbytes


def room_on(device: str) -> int:
    """Bytes of memory of a device, whether they are free or not."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def process_bytes() -> int:
    """Memory of this process: Python and the libraries, as long as no model is loaded."""
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE") + _KERNELS
    except (OSError, ValueError):  # no Linux
        return 500 * 2**20


def give_back_freed_memory() -> None:
    """Have glibc, where there is one, hand memory back as soon as a tensor is freed: by itself it keeps freed blocks of
    up to 32 MB, which can double what activations take. It costs a little time."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD: blocks of their own from 1 MiB on


def load_fitting(fitted: Fit, load: Callable[..., Any], device: str, texts: Sequence[str]) -> Any:
    """The pipeline of a model on a device, made to fit.

    Args:
        load: loads it on the CPU, without the components that it is given as None.
        texts: every prompt that will be asked for.
    """
    techniques, networks, target = fitted.techniques, fitted.networks, torch.device(device)
    if target.type == "cpu":
        give_back_freed_memory()
    if techniques.text == "keep":
        pipe = load()
    else:
        reader = load(**{networks.denoiser: None, "vae": None})
        # Its configuration is read, its weights are not.
        reader.register_modules(**{networks.denoiser: getattr(networks.pipe, networks.denoiser)})
        if techniques.text == "drop":
            reader.text_encoder.to(device)
        reader.encode_ahead(*texts)
        encoded = reader.encoded_texts
        reader.drop_text_encoder()
        pipe = load(text_encoder=None, tokenizer=None)
        pipe.encoded_texts.update(encoded)
    if techniques.tiling:
        pipe.enable_vae_tiling()
    if techniques.kv_offload:
        pipe.enable_kv_offload()
    if techniques.offload is None:
        return pipe.to(device)
    if techniques.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    from diffusers.hooks import apply_group_offloading

    by_layer: dict[str, Any] = {"onload_device": target, "offload_type": "leaf_level"}
    by_block = {"onload_device": target, "offload_type": "block_level", "num_blocks_per_group": 1}
    block = techniques.offload == "block"
    denoiser = getattr(pipe, networks.denoiser)
    apply_group_offloading(denoiser, **(by_block if block else by_layer), use_stream=target.type == "cuda")
    if block:
        pipe.vae.to(device)
    left = {denoiser, pipe.vae if block else None}
    left |= {getattr(pipe, name) for name in pipe._exclude_from_cpu_offload}
    for part in pipe.components.values():
        if isinstance(part, nn.Module) and part not in left:
            apply_group_offloading(part, **by_layer)  # without streams: the autoencoder is called tile by tile
    return pipe
