"""How much memory a video takes, measured before any weights are loaded, and what to do where memory is short.

The networks' own code runs on PyTorch's meta device, which has shapes and no values, while every tensor that comes and
goes is counted; so no formula can be wrong when a network changes.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import CheckpointError, InputError
from ..layers import fp8

_CUDA_CONTEXT = 600 * 2**20  # of the driver and cuBLAS: not PyTorch's, but gone all the same
_FRAGMENTS = 0.05  # share of the memory that lies between the blocks of PyTorch's allocator
# The same on a CPU, as a share of the activations, whose coming and going makes it: measured with glibc as it is, and
# after `give_back_freed_memory`.
_CPU_FRAGMENTS = {False: 0.7, True: 0.1}
_KERNELS = 30 * 2**20  # of the libraries, read in when they first run


# ------------------------------------------------------------------------------------------- measuring


class _Attention(TorchFunctionMode):
    """Attention as a fused kernel does it: no matrix of scores in memory."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            batch, heads, queries, _ = args[0].shape
            return args[0].new_empty(batch, queries, heads, args[2].shape[-1]).transpose(1, 2)  # as kernels lay it out
        return func(*args, **(kwargs or {}))


class _LiveBytes(TorchDispatchMode):
    """Follows storages on the meta device from their making to their end, as eager PyTorch does it."""

    def __init__(self, cpu: bool):
        super().__init__()
        self.cpu, self.live, self.peak = cpu, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {_storage(x)._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.is_meta and _storage(x)._cdata not in given:
                self._follow(_storage(x))
        if self.cpu and func is torch.ops.aten.convolution.default:
            self.peak = max(self.peak, self.live + _convolution_workspace(*args))
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _storage(x: torch.Tensor) -> torch.UntypedStorage:
    return x.untyped_storage()


def _convolution_workspace(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> int:
    """Bytes that PyTorch takes beside a convolution's result on a CPU: oneDNN wants channels in sixteens, and the
    kernel that runs small ones makes a column of values for every place."""
    like = [None if y is None else torch.empty(y.shape, dtype=y.dtype) for y in (x, weight, rest[0])]
    backend = torch._C._select_conv_backend(*like, *rest[1:])
    if "Mkldnn" in str(backend):
        return x.nbytes // x.shape[1] * -(-x.shape[1] // 16) * 16
    result = torch.ops.aten.convolution.default(x[:, :1], weight[:1, :1], None, *rest[1:-1], 1)
    return result.numel() * weight[0].numel() * x.element_size()


def peak_of(work: Callable[[], Any], cpu: bool = False) -> tuple[int, Any]:
    """Bytes that the tensors made by some code on the meta device hold at most, and its result; its inputs count where
    it makes them itself, weights do not. cpu: as it would run on a CPU."""
    gemm = patch.object(fp8, "_has_fp8_gemm", lambda device: not cpu)
    with torch.no_grad(), gemm, _LiveBytes(cpu) as counter, _Attention():
        result = work()
    return counter.peak, result


def bytes_of(module: nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(x.nbytes for x in itertools.chain(module.parameters(), module.buffers()))


def _bytes_at_work(module: nn.Module, offload: Offload | None) -> int:
    """Bytes of its weights that lie on the device while it works, where diffusers' group offloading brings the rest."""
    if offload in (None, "model"):
        return bytes_of(module)
    if offload == "block":  # the block at work and the next one, and all that lies in no block
        blocks = [bytes_of(block) for block in _blocks(module)]
        return bytes_of(module) - sum(blocks) + sum(sorted(blocks)[-2:])
    # The layer at work and the next one. Tables that are no layer (positions, the null caption) come with a parent.
    leaves = sorted(bytes_of(m) for m in module.modules() if not list(m.children()))
    tables = [sum(p.nbytes for p in m.parameters(recurse=False)) for m in module.modules() if list(m.children())]
    return sum(leaves[-2:]) + max(tables, default=0)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """What moves as one where a network is offloaded block by block."""
    inside = getattr(module, "_group_offload_block_modules", None) or ()
    blocks: list[nn.Module] = []
    for name, child in module.named_children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            blocks += child
        elif name in inside:
            blocks += _blocks(child)
    return blocks


# ------------------------------------------------------------------------------------------- what a system adds


@dataclass(frozen=True)
class Video:
    """What is to be made; `settings` are the system's own, for these steps."""

    height: int
    width: int
    frames: int
    steps: int
    settings: Any


@dataclass(frozen=True)
class Call:
    """A call of the denoiser: `run` makes the state that the video's making holds, and calls it; `cache` are the bytes
    of keys and values on the device, and `waiting` those that are offloaded."""

    run: Callable[[], Any]
    cache: int = 0
    waiting: int = 0


class Networks(ABC):
    """A model without its weights, and how its parts are called: what a system adds to the prediction.

    Args:
        pipe: the pipeline, its networks on the meta device in the dtypes that they are loaded in; no text encoder.
        text_encoder: bytes of that one's weights.
    """

    denoiser: ClassVar[str]
    """Which component of the pipeline denoises."""
    drops_text: ClassVar[bool] = False
    """Whether the pipeline has `encode_ahead` and `drop_text_encoder`."""
    offloads_cache: ClassVar[bool] = False
    """Whether it has keys and values and `enable_kv_offload`."""
    published: ClassVar[dict[str, dict[str, str]]] = {}
    """Of published models: what a person calls them -> dtype -> name."""

    def __init__(self, pipe: Any, text_encoder: int):
        self.pipe, self.text_encoder = pipe, text_encoder

    @classmethod
    def of_folder(cls, folder: Path, dtype: torch.dtype, others: Path | None = None) -> Networks:
        """Of a model folder; all parts but the denoiser may lie elsewhere (`others`). Raises CheckpointError."""
        try:
            index = json.loads((folder / "model_index.json").read_text("utf-8"))
            parts: dict[str, Any] = {}
            text_encoder = 0
            for name, part in index.items():
                place = folder if name == cls.denoiser else others or folder
                if not isinstance(part, list) or part[0] is None:
                    continue
                if name.startswith("text_encoder"):
                    text_encoder += dtype.itemsize * sum(map(_elements, (place / name).glob("*.safetensors")))
                elif part[0].split(".")[0] in ("animagic", "diffusers"):
                    parts[name] = _without_weights(getattr(importlib.import_module(part[0]), part[1]), place, name)
            pipeline = getattr(importlib.import_module("animagic"), index["_class_name"])
            for module in filter(lambda part: isinstance(part, nn.Module), parts.values()):
                cast(module, dtype)
            return cls(pipeline(**parts, config=index.get("config")), text_encoder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the model {folder} cannot be read: {str(error).splitlines()[0]}") from error

    @classmethod
    def of_published(cls, model: str, dtype: torch.dtype) -> Networks | None:
        """Of a model of this system by its published name, or by its original configuration (.json); None: it is of
        another system. Raises InputError, CheckpointError."""
        return None

    @abstractmethod
    def video(self, height: int | None, width: int | None, frames: int | None, steps: int | None) -> Video:
        """What is made where this is asked for; None: the model's own. Raises InputError for what it cannot make."""

    @abstractmethod
    def calls(self, video: Video, kv_offload: bool) -> list[Call]:
        """The calls of the denoiser among which is the one that takes the most memory."""

    @abstractmethod
    def decode(self, video: Video) -> torch.Tensor:
        """The pixels (float32) that are decoded at once."""

    @property
    def advice(self) -> str:
        """What else would need less memory."""
        return ""

    @cached_property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by the names that a person reads."""
        networks = {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}
        return {"autoencoder" if name == "vae" else name.replace("_", " "): part for name, part in networks.items()}

    @property
    def fp8(self) -> bool:
        """Whether layers are quantised."""
        return any(p.dtype == fp8.FP8 for part in self.parts.values() for p in part.parameters())

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of each part."""
        return {name: bytes_of(part) for name, part in self.parts.items()} | {"text encoder": self.text_encoder}


def _without_weights(kind: Any, folder: Path, part: str) -> Any:
    """A component of a model folder; a network on the meta device."""
    with torch.device("meta" if issubclass(kind, nn.Module) else "cpu"):
        return kind.from_config(kind.load_config(folder / part))


def cast(network: Any, dtype: torch.dtype) -> Any:
    """A network as diffusers loads it in that dtype: some parts stay in float32."""
    nn.Module.to(network, dtype)  # diffusers' own warns that it is not for this
    for name, module in network.named_children():
        if name in (getattr(network, "_keep_in_fp32_modules", None) or ()):
            module.float()
    return network


def _elements(file: Path) -> int:
    """Values in a safetensors file, from its header."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


# ------------------------------------------------------------------------------------------- techniques


Text = Literal["keep", "drop", "cpu"]
Offload = Literal["model", "block", "leaf"]


@dataclass(frozen=True)
class Techniques:
    """What is done to need less memory."""

    text: Text = "keep"
    """Of the text encoder; "drop": the prompts are encoded before the other parts are loaded, then it goes;
    "cpu": so, and it never comes to the device."""
    tiling: bool = False
    """The autoencoder works tile by tile; the only one that changes pixels."""
    offload: Offload | None = None
    """Weights wait in the CPU's memory: those of whole parts, blocks or layers come when they are needed."""
    kv_offload: bool = False
    """So do the keys and values of clean chunks."""

    @property
    def rank(self) -> int:
        """The order in which they are tried: each of them after all combinations of those before it."""
        text = {"keep": 0, "drop": 1, "cpu": 2}[self.text]
        offload = {None: 0, "model": 8, "block": 32, "leaf": 64}[self.offload]
        return text + 4 * self.tiling + offload + 16 * self.kv_offload

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


@dataclass(frozen=True)
class Prediction:
    """The memory that a video takes."""

    stages: dict[str, dict[str, int]]
    """encode (text), denoise, decode -> part -> bytes on the device (in the process, where that is the CPU)."""
    host: int
    """Bytes of weights, keys and values that wait in the CPU's memory."""

    @property
    def peak_stage(self) -> str:
        return max(self.stages, key=lambda stage: sum(self.stages[stage].values()))

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.stages[self.peak_stage].values())


@dataclass(frozen=True)
class Fit:
    """What is done so that a video fits, and what that comes to."""

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
    ):
        self.networks, self.cuda, self.tight = networks, device == "cuda", tight
        self.video = networks.video(height, width, frames, steps)

    def combinations(self, drop_text: bool = True, tiling: bool = False) -> list[Techniques]:
        """All that make sense here, the cheapest first. drop_text: whether the text encoder may go; tiling: whether the
        autoencoder works in tiles anyway."""
        texts: tuple[Text, ...] = ("keep", "drop", "cpu") if drop_text and self.networks.drops_text else ("keep",)
        offloads: tuple[Offload | None, ...] = (None, "model", "block", "leaf")
        caches = (False, True) if self.networks.offloads_cache else (False,)
        if not self.cuda:
            texts, offloads, caches = texts[:2], (None,), (False,)
        every = itertools.product(texts, (True,) if tiling else (False, True), offloads, caches)
        return sorted(itertools.starmap(Techniques, every), key=lambda techniques: techniques.rank)

    def fit(self, budget: int, *, drop_text: bool = True, tiling: bool = False) -> Fit:
        """The first combination that takes at most `budget` bytes. Raises InputError, which says the least that would
        do."""
        predictions = []
        for techniques in self.combinations(drop_text, tiling):
            prediction = self.predict(techniques)
            if prediction.peak <= budget:
                return Fit(self.networks, budget, techniques, prediction)
            predictions.append(prediction)
        least = min(prediction.peak for prediction in predictions)
        raise InputError(
            f"{budget / 1e9:.2f} GB are too little for {self.video.width}x{self.video.height}: with all that saves "
            f"memory {least / 1e9:.2f} GB are needed; allow that much, or choose a smaller size{self.networks.advice}."
        )

    def predict(self, techniques: Techniques = Techniques()) -> Prediction:
        """With these techniques."""
        networks, offload, keeps = self.networks, techniques.offload, techniques.text == "keep"
        activations, cache, waiting = self._denoising(techniques.kv_offload)
        # While a part works; where only blocks of the denoiser come and go, the others stay.
        weights = {
            name: _bytes_at_work(part, offload if offload != "block" or name == networks.denoiser else None)
            for name, part in networks.parts.items()
        }
        text = networks.text_encoder
        if keeps and offload in ("block", "leaf"):  # layer by layer; how large they are is not known: none is a tenth
            text //= 10
        encode = {} if techniques.text == "cpu" else {"text encoder": text}
        if keeps and offload != "model":  # which has one part on the device at a time
            encode = weights = weights | encode
        denoise = weights | {"keys and values": cache, "activations": activations}
        decode = weights | {"keys and values": cache, "activations": self._decoding(techniques.tiling)}
        if offload == "model":  # but nothing sends the autoencoder away
            del decode[networks.denoiser]
        base = {"driver": _CUDA_CONTEXT} if self.cuda else {"libraries": _process_bytes()}
        stages = {"encode": base | encode, "denoise": base | denoise, "decode": base | decode}
        for parts in stages.values():
            if self.cuda:
                parts["between blocks"] = round(_FRAGMENTS * (sum(parts.values()) - _CUDA_CONTEXT))
            else:
                parts["between blocks"] = round(_CPU_FRAGMENTS[self.tight] * parts.get("activations", 0))
        if offload is not None:
            waiting += sum(map(bytes_of, networks.parts.values())) + keeps * networks.text_encoder
            waiting -= 0 if offload == "model" else sum(weights.values())
        return Prediction(stages, max(waiting, networks.text_encoder) if techniques.text == "cpu" else waiting)

    @cache
    def _denoising(self, kv_offload: bool) -> tuple[int, int, int]:
        """Bytes of (activations, keys and values on the device, and offloaded)."""
        calls = self.networks.calls(self.video, kv_offload)
        peaks = [(peak_of(call.run, not self.cuda)[0], call) for call in calls]
        peak, fullest = max(peaks, key=lambda pair: pair[0])
        return peak - fullest.cache, fullest.cache, max(call.waiting for call in calls)

    @cache
    def _decoding(self, tiling: bool) -> int:
        """Bytes of activations."""
        vae = self.networks.pipe.vae
        vae.enable_tiling() if tiling else vae.disable_tiling()
        peak, pixels = peak_of(lambda: self.networks.decode(self.video), not self.cuda)
        # The frames on their way to bytes: twice more in float32 (to_bytes), which a GPU does not see.
        return peak if self.cuda else max(peak, 3 * pixels.nbytes)


def _process_bytes() -> int:
    """Memory of this process: Python and the libraries, as long as no model is loaded."""
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE") + _KERNELS
    except (OSError, ValueError):  # no Linux
        return 500 * 2**20


def give_back_freed_memory() -> bool:
    """Have glibc hand memory back as soon as a tensor is freed: by itself it keeps freed blocks of up to 32 MB, which
    can double what activations take. Returns whether there is a glibc; it costs a little time."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).mallopt(-3, 2**20))  # M_MMAP_THRESHOLD: blocks of their own from 1 MiB on
    except (AttributeError, OSError, TypeError):
        return False


def load_fitting(fitted: Fit, load: Callable[..., Any], device: str, texts: Sequence[str]) -> Any:
    """The pipeline of a model on a device, made to fit.

    Args:
        load: loads it on the CPU, without the components that it is given as None.
        texts: every prompt that will be asked for.
    """
    techniques, networks = fitted.techniques, fitted.networks
    if device == "cpu":
        give_back_freed_memory()
    encoded: dict[str, Any] = {}
    without: dict[str, Any] = {}
    if techniques.text != "keep":
        reader = load(**{networks.denoiser: None, "vae": None})
        # Its configuration is read, its weights are not.
        reader.register_modules(**{networks.denoiser: getattr(networks.pipe, networks.denoiser)})
        if techniques.text == "drop":
            reader.text_encoder.to(device)
        reader.encode_ahead(*texts)
        encoded = reader.encoded_texts
        reader.drop_text_encoder()
        without = {"text_encoder": None, "tokenizer": None}
    pipe = load(**without)
    if encoded:
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

    by_layer = {"onload_device": torch.device(device), "offload_type": "leaf_level", "use_stream": True}
    by_block = by_layer | {"offload_type": "block_level", "num_blocks_per_group": 1}
    apply_group_offloading(
        getattr(pipe, networks.denoiser), **(by_block if techniques.offload == "block" else by_layer)
    )
    if techniques.offload == "leaf":  # it is called by parts, tile by tile
        apply_group_offloading(pipe.vae, **by_layer | {"use_stream": False})
    else:
        pipe.vae.to(device)
    if pipe.text_encoder is not None:
        apply_group_offloading(pipe.text_encoder, **by_layer | {"use_stream": False})
    return pipe
