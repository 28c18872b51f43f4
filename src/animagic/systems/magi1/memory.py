"""How much memory and time a video takes, predicted before anything is loaded, and what to do where memory is short.

Nothing is estimated by formulas that a change of the networks would make wrong: their own code runs on PyTorch's meta
device, which has shapes and no numbers, while every tensor that comes and goes is counted. The plan and the guidance
run as they are, with a stand-in for the transformer that notes how it is called.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...errors import CheckpointError, InputError
from ...quantization import fp8
from .autoencoder import AutoencoderKLMagi1
from .cache import KeyValueCache
from .checkpoint import autoencoder_from_config, transformer_from_config
from .prompts import ChunkPrompts, TextEmbedding
from .sampling import Magi1Denoiser, Magi1Sampling
from .transformer import Magi1Transformer3DModel

GB = 10**9
T5_XXL_PARAMETERS = 4_762_310_656
"""Of the encoder of T5 v1.1 XXL, which the published models read text with."""
_CUDA_CONTEXT = 600 * 2**20  # of the driver and cuBLAS: not PyTorch's, but gone all the same
_FRAGMENTS = 0.05  # share of the memory that lies between the blocks of PyTorch's allocator
# The same on a processor, as a share of the activations, whose coming and going makes it: measured with glibc as it is,
# and after `give_back_freed_memory`.
_PROCESS_FRAGMENTS = {False: 0.7, True: 0.1}
_KERNELS = 30 * 2**20  # of the libraries, read in when they first run
_STEADY = 12  # chunks after which every further one costs the same

# ------------------------------------------------------------------------------------------- counting


@dataclass(frozen=True)
class Cost:
    """Of running some code once."""

    peak: int = 0
    """Bytes that its tensors hold at most, weights not counted."""
    flops: float = 0.0
    """Operations of matrix products and convolutions."""
    attention: float = 0.0
    """Operations of attention."""
    touched: float = 0.0
    """Bytes read and written by everything else."""


class _Attention(TorchFunctionMode):
    """Attention as a fused kernel does it: no matrix of scores in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]
            self.flops += 4.0 * query.numel() * key.shape[-2]  # scores, and the values weighted by them
            batch, heads, queries, dim = query.shape
            return query.new_empty(batch, queries, heads, dim).transpose(1, 2)  # as the kernels lay it out
        return func(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):
    """Follows storages from their making to their end, as eager PyTorch does it."""

    def __init__(self, cpu: bool) -> None:
        super().__init__()
        self.cpu = cpu
        self.live = self.peak = 0
        self.flops = self.touched = 0.0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        old = {x.untyped_storage()._cdata for x in given}
        fresh = [x for x in made if x.untyped_storage()._cdata not in old]
        for x in fresh:
            self._follow(x.untyped_storage())
        if self.cpu and func is torch.ops.aten.convolution.default:
            self.peak = max(self.peak, self.live + _convolution_workspace(*args))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        elif fresh or func._schema.is_mutable:
            self.touched += sum(x.nbytes for x in given) + sum(x.nbytes for x in fresh)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _convolution_workspace(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> int:
    """Bytes that PyTorch takes beside a convolution's result on a processor: oneDNN wants channels in sixteens, and the
    kernel that runs small ones makes a column of numbers for every place."""
    like = [None if y is None else torch.empty(y.shape, dtype=y.dtype, device="cpu") for y in (x, weight, rest[0])]
    backend = torch._C._select_conv_backend(*like, *rest[1:])
    if "Mkldnn" in str(backend):
        return x.nbytes // x.shape[1] * -(-x.shape[1] // 16) * 16
    places = torch.nn.functional.conv3d(x[:, :1], weight[:1, :1], None, *rest[1:4]).numel()
    return places * weight[0].numel() * x.element_size()


@contextlib.contextmanager
def _fp8_gemm(there: bool) -> Iterator[None]:
    """Whether FP8 layers find a GEMM of their own."""
    before, fp8._has_fp8_gemm = fp8._has_fp8_gemm, lambda device: there
    try:
        yield
    finally:
        fp8._has_fp8_gemm = before


def count(work: Callable[[], Any], cpu: bool = False) -> Cost:
    """What `work`, on the meta device, would cost. Its inputs count if it makes them itself; cpu: on a processor."""
    with torch.no_grad(), torch.device("meta"), _fp8_gemm(not cpu), _Counter(cpu) as counter, _Attention() as attention:
        result = work()
    cost = Cost(counter.peak, counter.flops, attention.flops, counter.touched)
    del result
    return cost


# ------------------------------------------------------------------------------------------- networks


@dataclass(frozen=True)
class Networks:
    """The parts of a model on the meta device: shapes and dtypes, no numbers.

    text_encoder: bytes of its weights; fp8: whether the transformer's weights are.
    """

    transformer: Magi1Transformer3DModel
    vae: AutoencoderKLMagi1
    sampling: Magi1Sampling
    text_encoder: int
    dtype: torch.dtype

    @classmethod
    def published(cls, config: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> Networks:
        """Of an original configuration: its transformer, the published autoencoder and T5. Raises InputError."""
        with torch.device("meta"):
            transformer, vae = transformer_from_config(config), autoencoder_from_config({})
        sampling = Magi1Sampling.from_config(config)
        text = T5_XXL_PARAMETERS * dtype.itemsize
        return cls(_cast(transformer, dtype), vae, sampling, text, dtype)

    @classmethod
    def of_folder(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, others: str | Path | None = None
    ) -> Networks:
        """Of a model folder, every part in `dtype`; all but the transformer may lie elsewhere (`others`). Raises
        CheckpointError."""
        folder = Path(folder)
        others = Path(others or folder)
        networks: dict[str, Any] = {"transformer": Magi1Transformer3DModel, "vae": AutoencoderKLMagi1}
        try:
            for part, network in networks.items():
                with torch.device("meta"):
                    place = folder if part == "transformer" else others
                    networks[part] = network.from_config(network.load_config(place / part))
            index = json.loads((folder / "model_index.json").read_text("utf-8"))
            sampling = Magi1Sampling.from_config(index.get("config"))
            text = sum(_elements(file) for file in (others / "text_encoder").glob("*.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the model {folder} cannot be read: {str(error).splitlines()[0]}") from error
        transformer, vae = networks["transformer"], nn.Module.to(networks["vae"], dtype)
        return cls(_cast(transformer, dtype), vae, sampling, text * dtype.itemsize, dtype)

    @cached_property
    def weights(self) -> dict[str, int]:
        """Bytes of each part."""
        return {
            "transformer": size_of(self.transformer),
            "autoencoder": size_of(self.vae),
            "text encoder": self.text_encoder,
        }

    @property
    def fp8(self) -> bool:
        return bool(self.transformer.config.fp8)

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError for a size that the model cannot make."""
        from .pipeline import Magi1Pipeline

        Magi1Pipeline(self.transformer, self.vae).check_size(height, width)


def size_of(module: nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(x.nbytes for x in itertools.chain(module.parameters(), module.buffers()))


def _like(network: Any, **changes: Any) -> Any:
    """A network of the same configuration but for some fields, on the meta device."""
    with torch.device("meta"):
        return type(network)(**{name: x for name, x in network.config.items() if name[0] != "_"} | changes)


def _cast(transformer: Magi1Transformer3DModel, dtype: torch.dtype) -> Magi1Transformer3DModel:
    """As diffusers loads it in that dtype: some parts stay in float32."""
    nn.Module.to(transformer, dtype)  # diffusers' own warns that it is not for this
    for name, module in transformer.named_children():
        if name in (transformer._keep_in_fp32_modules or ()):
            module.float()
    return transformer


def _elements(file: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


# ------------------------------------------------------------------------------------------- calls of the transformer


class Call(NamedTuple):
    """How the transformer is called."""

    batch: int
    chunks: int
    text: int
    """Tokens of the text."""
    seen: tuple[tuple[int, int], ...]
    """Per chunk the frames that it sees, counted from the first one in the cache."""
    held: int
    """Latent frames in the cache."""
    commit: int
    """Latent frames that enter the cache."""


class _Recorder:
    """Stands in for the transformer; a frame has one token here, and there is one layer."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, latents, timestep, text, *, key_frames, cache=None, commit=0, **_: Any):
        past = None if cache is None else cache.read(0)
        held = 0 if past is None else past[0].shape[2]
        seen = tuple((int(first), int(stop)) for first, stop in key_frames)
        self.calls.append(Call(len(latents), timestep.shape[1], text.shape[2], seen, held, commit))
        if commit and cache is not None:
            cache.write(0, *(torch.zeros(1, 1, commit, 1) for _ in range(2)))
        return (torch.zeros_like(latents),)


def calls_of(sampling: Magi1Sampling, num_frames: int, text_tokens: int = 128, batch: int = 1) -> tuple[Counter, int]:
    """Every call of the transformer for a video from words (call -> how often), and for how many chunks; of a long
    video the first chunks only, which the later ones are like."""
    chunks = min(sampling.chunks_of(num_frames), _STEADY)
    plan = sampling.plan(chunks)

    def text(tokens: int) -> TextEmbedding:
        return TextEmbedding(torch.zeros(batch, tokens, 1), torch.ones(batch, tokens))

    recorder: Any = _Recorder()
    denoiser = sampling.guide(
        Magi1Denoiser(recorder, ChunkPrompts(((0, text(text_tokens)),), text(50)), plan, sampling)
    )
    for step in plan.steps():
        for window in step.windows:
            denoiser(torch.zeros(batch, 1, len(window.frames), 1, 1), window)
    return Counter(recorder.calls), chunks


def _extended(few: Cost, one_more: Cost, layers: int) -> Cost:
    """The cost with more layers, from that with few and that with one more: each takes the same time, and the same
    memory after the other."""

    def more(a: float, b: float) -> float:
        return b + layers * (b - a)

    attention = more(few.attention, one_more.attention)
    return Cost(one_more.peak, more(few.flops, one_more.flops), attention, more(few.touched, one_more.touched))


class _Sized:
    """The costs of a transformer at a size: traced with few layers, which are all alike.

    Two calls are traced, on the fewest and on the most chunks, with the longest text and the fullest cache: what is not
    attention grows evenly in between.
    """

    def __init__(self, networks: Networks, height: int, width: int, calls: Iterable[Call], cpu: bool):
        self.networks, self.shape, self.cpu = networks, (height, width), cpu
        config = networks.transformer.config
        # The first and the last layer of a quantised model are not.
        depths = (3, 4) if networks.fp8 else (1, 2)
        more = max(config.num_layers - depths[1], 0)
        traced = [
            _cast(_like(networks.transformer, num_layers=depth), networks.dtype)
            for depth in (depths if more else (config.num_layers,))
        ]
        by_chunks = sorted(calls, key=lambda call: (_chunks(call), call.text, call.held))
        fewest = [call for call in by_chunks if _chunks(call) == _chunks(by_chunks[0])][-1]
        self.ends = []
        for call in (fewest, by_chunks[-1]):
            costs = [self._trace(transformer, call) for transformer in traced]
            self.ends.append((_chunks(call), _extended(costs[0], costs[-1], more)))

    def cost(self, call: Call) -> Cost:
        (fewest, low), (most, high) = self.ends
        share = 1.0 if most == fewest else (_chunks(call) - fewest) / (most - fewest)
        flops, touched = (a + share * (b - a) for a, b in ((low.flops, high.flops), (low.touched, high.touched)))
        return Cost(high.peak if share == 1 else low.peak, flops, self._attention(call), touched)

    def _attention(self, call: Call) -> float:
        """Operations of the attention to frames and text, in all layers."""
        config, (height, width) = self.networks.transformer.config, self.shape
        frame = height * width // config.patch_size**2
        queries = call.batch * config.chunk_width * frame
        keys = sum((stop - first) * frame + call.text for first, stop in call.seen)
        return 4.0 * config.num_layers * config.num_attention_heads * config.kv_channels * queries * keys

    def _trace(self, transformer: Magi1Transformer3DModel, call: Call) -> Cost:
        config, (height, width) = transformer.config, self.shape
        frames = call.chunks * config.chunk_width
        tokens = height * width // config.patch_size**2
        dtype = self.networks.dtype
        past: Any = _Held(config, call.batch, call.held * tokens, dtype) if call.held or call.commit else None

        def work() -> Any:
            return transformer(
                torch.empty(call.batch, transformer.latent_channels, frames, height, width),
                torch.empty(call.batch, call.chunks),
                torch.empty(call.batch, call.chunks, call.text, config.caption_channels),
                encoder_attention_mask=torch.empty(call.batch, call.chunks, call.text, dtype=torch.bool),
                key_frames=[range(*seen) for seen in call.seen],
                cache=past,
                commit=call.commit,
                shortcut=torch.empty(call.batch, call.chunks) if self.networks.sampling.distill else None,
                return_dict=False,
            )

        return count(work, self.cpu)


def _chunks(call: Call) -> int:
    """In its whole batch."""
    return call.batch * call.chunks


class _Held(KeyValueCache):
    """A cache of which each layer is the same, and which holds what is committed elsewhere (`_cache_bytes`)."""

    def __init__(self, config: Any, batch: int, tokens: int, dtype: torch.dtype):
        super().__init__()
        shape = (batch, config.num_query_groups, tokens, config.kv_channels)
        self.pair = (torch.empty(shape, dtype=dtype, device="meta"), torch.empty(shape, dtype=dtype, device="meta"))

    def read(self, layer: int) -> Any:
        return self.pair if self.pair[0].shape[2] else None

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        pass


# ------------------------------------------------------------------------------------------- the prediction


@dataclass(frozen=True)
class Speed:
    """Of a device: operations a second in matrix products and in attention, in a model's dtype; bytes a second within
    its memory, and between it and the processor's memory (0: it is the processor)."""

    flops: float
    attention: float
    memory: float
    transfer: float


def measure_speed(device: str | torch.device, dtype: torch.dtype, seconds: float = 0.3) -> Speed:
    """Multiply, copy and move for about a second."""
    device = torch.device(device)
    cuda = device.type == "cuda"
    side, tokens = (8192, 16384) if cuda else (1024, 1024)

    def rate(work: Callable[[], Any], amount: float) -> float:
        best, began = math.inf, time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            work()
            if cuda:
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start)
        return amount / best

    a = torch.ones(side, side, device=device, dtype=dtype)
    numbers, others = (torch.ones(side * side * 4, device=device) for _ in range(2))
    flops = rate(lambda: a @ a, 2.0 * side**3)
    memory = rate(lambda: others.copy_(numbers), 2.0 * numbers.nbytes)
    query = torch.ones(1, 8, tokens, 128, device=device, dtype=dtype)
    attention = rate(lambda: F.scaled_dot_product_attention(query, query, query), 4.0 * query.numel() * tokens)
    if not cuda:
        return Speed(flops, attention, memory, 0.0)
    pinned = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
    return Speed(flops, attention, memory, rate(lambda: pinned.to(device, non_blocking=True), pinned.nbytes))


Text = Literal["keep", "drop", "processor"]
Offload = Literal["model", "block", "leaf"]


@dataclass(frozen=True)
class Techniques:
    """What is done to need less memory."""

    text: Text = "keep"
    """Of the text encoder; "drop": the prompts are encoded before the other parts are loaded, then it goes;
    "processor": so, and it never comes to the device."""
    tiling: bool = False
    """The autoencoder works tile by tile; the only one that changes pixels."""
    offload: Offload | None = None
    """Weights wait in the processor's memory: those of whole parts, blocks or layers come when they are needed."""
    kv_offload: bool = False
    """So do the keys and values of clean chunks."""

    @property
    def rank(self) -> int:
        """The order in which they are tried: each of them after all combinations of those before it."""
        text = {"keep": 0, "drop": 1, "processor": 2}[self.text]
        offload = {None: 0, "model": 8, "block": 32, "leaf": 64}[self.offload]
        return text + 4 * self.tiling + offload + 16 * self.kv_offload

    def __str__(self) -> str:
        names = {
            "text encoder dropped after use": self.text == "drop",
            "text encoder on the processor, dropped after use": self.text == "processor",
            "autoencoder in tiles": self.tiling,
            "model offload": self.offload == "model",
            "keys and values offloaded": self.kv_offload,
            "group offload, block by block": self.offload == "block",
            "group offload, layer by layer": self.offload == "leaf",
        }
        return ", ".join(name for name, used in names.items() if used) or "nothing to be saved"


def combinations(cuda: bool, drop_text: bool = True) -> list[Techniques]:
    """All combinations that make sense on a device, the cheapest first. drop_text: whether the text encoder may go."""
    texts: tuple[Text, ...] = ("keep", "drop", "processor") if drop_text else ("keep",)
    offloads: tuple[Offload | None, ...] = (None, "model", "block", "leaf")
    if cuda:
        every = itertools.product(texts, (False, True), offloads, (False, True))
    else:
        every = itertools.product(texts[:2], (False, True), (None,), (False,))
    return sorted(itertools.starmap(Techniques, every), key=lambda techniques: techniques.rank)


@dataclass(frozen=True)
class Prediction:
    """What a video takes."""

    stages: dict[str, dict[str, int]]
    """encode (text), denoise, decode -> part -> bytes on the device (in the process, where that is the processor)."""
    host: int
    """Bytes of weights, keys and values that wait in the processor's memory."""
    seconds: float
    """Of a chunk, without what the techniques cost."""
    extra: float
    """Seconds that the techniques add to each chunk."""
    chunks: int

    @property
    def peak_stage(self) -> str:
        return max(self.stages, key=lambda stage: sum(self.stages[stage].values()))

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.stages[self.peak_stage].values())

    @property
    def factor(self) -> float:
        """How many times longer a chunk takes because of the techniques."""
        return (self.seconds + self.extra) / self.seconds


class Predictor:
    """Predicts a video from words for any combination of techniques.

    Args:
        networks: of the model.
        height, width: pixels; num_frames, num_steps: None: the model's own.
        device: "cuda" or another kind: everything but CUDA counts as the processor.
        speed: of that device; None: predict memory alone, which is quicker.
        tight: whether `give_back_freed_memory` is called before, which matters on a processor.
        text_tokens: of the prompt.
    Raises: InputError for a size or number that the model cannot make.
    """

    def __init__(
        self,
        networks: Networks,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_steps: int | None = None,
        *,
        device: str,
        speed: Speed | None,
        tight: bool = False,
        text_tokens: int = 128,
    ):
        sampling = networks.sampling.with_steps(num_steps)
        self.networks = replace(networks, sampling=sampling)
        self.height, self.width = height or sampling.video_size_h, width or sampling.video_size_w
        self.num_frames = sampling.num_frames if num_frames is None else num_frames
        networks.check_size(self.height, self.width)
        self.cuda, self.speed, self.tight = device == "cuda", speed, tight
        self.chunks = sampling.chunks_of(self.num_frames)
        self.calls, self.counted_chunks = calls_of(sampling, self.num_frames, text_tokens)
        self._held = max(call.batch * (call.held + call.commit) for call in self.calls)
        if speed is None:
            largest = max(self.calls, key=lambda call: (call.batch * call.chunks, call.held))
            self.calls = Counter({largest: self.calls[largest]})
        unit = networks.vae.config.patch_size
        sized = _Sized(self.networks, self.height // unit, self.width // unit, self.calls, not self.cuda)
        self.costs = {call: sized.cost(call) for call in self.calls}
        self._decoded: dict[bool, Cost] = {}

    def predict(self, techniques: Techniques = Techniques()) -> Prediction:
        """With these techniques."""
        weights, offload = self.networks.weights, techniques.offload
        resident = {name: self._resident(name, offload) for name in weights}
        cache = self._cache_bytes
        text = {"keep": resident, "drop": weights, "processor": {}}[techniques.text]
        encode = {"text encoder": text["text encoder"]} if text else {}
        denoise = {name: resident[name] for name in ("transformer", "autoencoder")}
        if techniques.text == "keep" and offload != "model":  # which has one part on the device at a time
            denoise |= encode
            encode = dict(denoise)
        denoise["keys and values"] = 2 * cache // self._layers if techniques.kv_offload else cache
        decode = denoise | {"activations": self.decode_cost(techniques.tiling).peak}
        denoise["activations"] = max(cost.peak for cost in self.costs.values()) + self._latents
        if offload == "model":  # but nothing sends the autoencoder away
            del decode["transformer"]
        base = {"driver": _CUDA_CONTEXT} if self.cuda else {"libraries": _process_bytes()}
        stages = {"encode": base | encode, "denoise": base | denoise, "decode": base | decode}
        for parts in stages.values():
            if self.cuda:
                parts["between blocks"] = round(_FRAGMENTS * (sum(parts.values()) - _CUDA_CONTEXT))
            else:
                parts["between blocks"] = round(_PROCESS_FRAGMENTS[self.tight] * parts.get("activations", 0))
        seconds = extra = math.nan
        if self.speed is not None:
            seconds = self._seconds(False)
            extra = self._seconds(techniques.tiling) - seconds + self._transfer_seconds(techniques)
        return Prediction(stages, self._waiting(techniques, resident), seconds, extra, self.chunks)

    def _waiting(self, techniques: Techniques, resident: dict[str, int]) -> int:
        """Bytes in the processor's memory, which is not the device's."""
        weights = dict(self.networks.weights)
        text = weights.pop("text encoder") if techniques.text != "keep" else 0
        waiting = 0
        if techniques.offload is not None:
            kept = 0 if techniques.offload == "model" else 1
            waiting = sum(size - kept * resident[name] for name, size in weights.items())
        waiting += self._cache_bytes if techniques.kv_offload else 0
        return max(waiting, text) if techniques.text == "processor" else waiting

    def decode_cost(self, tiling: bool) -> Cost:
        """Of decoding a chunk; as with the transformer, few of its layers stand for all."""
        if tiling not in self._decoded:
            vae, frames = self.networks.vae, self.networks.sampling.chunk_width
            unit = vae.config.patch_size
            shape, times = (frames, self.height // unit, self.width // unit), 1
            cost = self._trace_decoding(tiling, 1, shape)
            if tiling:  # further layers cost as many times what they cost in one tile
                shape, times = (
                    (12 // vae.config.patch_length, min(shape[1], 256 // unit), min(shape[2], 256 // unit)),
                    self._tiles,
                )
            few, more = (self._trace_decoding(False, depth, shape) for depth in (1, 2))
            layers = times * (vae.config.depth - 1)
            cost = Cost(
                cost.peak,
                cost.flops + layers * (more.flops - few.flops),
                cost.attention + layers * (more.attention - few.attention),
                cost.touched + layers * (more.touched - few.touched),
            )
            if not self.cuda:  # the frames on their way to bytes: twice more in float32 (to_bytes)
                frame = self.height * self.width * 3 * 4
                sampling = self.networks.sampling
                pixels = 3 * frame * sampling.chunk_width * sampling.temporal_downsample_factor
                cost = replace(cost, peak=max(cost.peak, pixels))
            self._decoded[tiling] = cost
        return self._decoded[tiling]

    def _trace_decoding(self, tiling: bool, depth: int, shape: tuple[int, ...]) -> Cost:
        """Of latents of that many frames, height and width, with so many layers."""
        from .pipeline import Magi1Pipeline

        networks = self.networks
        vae = _like(networks.vae, depth=depth, encoder_depth=0)
        nn.Module.to(vae, networks.vae.dtype)
        if tiling:
            vae.enable_tiling()
        pipe = Magi1Pipeline(networks.transformer, vae, config={})
        return count(lambda: pipe._decode(torch.empty(1, vae.config.z_chans, *shape), "pt"), cpu=not self.cuda)

    # What lies where

    @property
    def _layers(self) -> int:
        return self.networks.transformer.config.num_layers

    @property
    def _frame_bytes(self) -> int:
        """Keys and values of a latent frame in all layers."""
        config = self.networks.transformer.config
        tokens = self.height * self.width // (self.networks.vae.config.patch_size * config.patch_size) ** 2
        size = 2 * config.num_query_groups * config.kv_channels * self.networks.dtype.itemsize
        return self._layers * tokens * size

    @property
    def _cache_bytes(self) -> int:
        return self._held * self._frame_bytes

    @property
    def _latents(self) -> int:
        """The frames in flight, and what guidance makes of them: about eight of their size, in float32."""
        config, sampling, unit = (
            self.networks.transformer.config,
            self.networks.sampling,
            self.networks.vae.config.patch_size,
        )
        frames = sampling.chunk_width * (sampling.window_size + 1)
        channels = self.networks.transformer.latent_channels
        return 8 * 4 * channels * frames * self.height * self.width // unit**2 if config else 0

    def _most(self, figure: str) -> int:
        return max(getattr(cost, figure) for cost in self.costs.values())

    def _resident(self, part: str, offload: Offload | None) -> int:
        """Bytes of a part's weights on the device while it works."""
        whole = self.networks.weights[part]
        if offload in (None, "model"):
            return whole
        if part == "text encoder":  # layer by layer; how large they are is not known: none of them is a tenth
            return whole // 10
        if part == "autoencoder" and offload == "block":
            return whole
        if offload == "block":  # the block at work and the next one, and what is between the embedders and the output
            transformer = self.networks.transformer
            block = max(size_of(block) for block in transformer.videodit_blocks.layers)
            others = (size_of(m) for name, m in transformer.named_children() if name != "videodit_blocks")
            return max(2 * block + size_of(transformer.videodit_blocks.final_layernorm), max(others))
        module: nn.Module = self.networks.transformer if part == "transformer" else self.networks.vae
        # The layer at work and the next one. Tables that are no layer (positions, the null caption) come with a parent.
        leaves = sorted((size_of(m) for m in module.modules() if not list(m.children())), reverse=True)
        tables = max(sum(p.nbytes for p in m.parameters(recurse=False)) for m in module.modules() if list(m.children()))
        return sum(leaves[:2]) + tables

    # How long it takes

    def _seconds(self, tiling: bool) -> float:
        """Of a chunk."""
        total = sum(self._call_seconds(call) * times for call, times in self.calls.items())
        return total / self.counted_chunks + self._time(self.decode_cost(tiling))

    def _call_seconds(self, call: Call) -> float:
        return self._time(self.costs[call])

    def _time(self, cost: Cost) -> float:
        assert self.speed is not None
        speed = self.speed
        return cost.flops / speed.flops + cost.attention / speed.attention + cost.touched / speed.memory

    def _transfer_seconds(self, techniques: Techniques) -> float:
        """What moving weights, keys and values adds to a chunk. Layers move while the one before is at work."""
        if self.speed is None or not self.speed.transfer:
            return 0.0
        weights = self.networks.weights
        seconds = 0.0
        if techniques.offload == "model":  # the transformer makes room for the autoencoder, and comes back
            seconds += 2 * weights["transformer"] / self.speed.transfer
        if techniques.offload == "leaf":  # once for each tile, and not while another layer is at work
            tiles = self._tiles if techniques.tiling else 1
            seconds += tiles * size_of(self.networks.vae.decoder) / self.speed.transfer
        for call, times in self.calls.items():
            moved = 0.0
            if techniques.offload in ("block", "leaf"):
                moved += weights["transformer"]
            if techniques.kv_offload:
                moved += call.batch * (call.held + call.commit) * self._frame_bytes
            moving, working = moved / self.speed.transfer, self._call_seconds(call)
            late = max(moving - working, 0.0) + moving / self._layers  # the first layer has nothing to hide behind
            seconds += times * late / self.counted_chunks
        return seconds

    @property
    def _tiles(self) -> int:
        """Tiles of a chunk, as `enable_tiling` makes them without arguments."""
        sampling = self.networks.sampling
        sides = [math.ceil(side / 192) if side > 256 else 1 for side in (self.height, self.width)]
        return math.prod(sides) * math.ceil(sampling.chunk_width * sampling.temporal_downsample_factor / 12)


def give_back_freed_memory() -> bool:
    """Have glibc hand memory back as soon as a tensor is freed: by itself it keeps freed blocks of up to 32 MB, which
    can double what activations take. Returns whether there is a glibc; it costs a little time."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).mallopt(-3, 2**20))  # M_MMAP_THRESHOLD: blocks of their own from 1 MiB on
    except (AttributeError, OSError, TypeError):
        return False


def _process_bytes() -> int:
    """Memory of this process: Python and the libraries, as long as no model is loaded."""
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE") + _KERNELS
    except (OSError, ValueError):  # no Linux
        return 500 * 2**20


def plan_memory(
    budget: int, predictor: Predictor, *, drop_text: bool = True, tiling: bool = False
) -> tuple[Techniques, Prediction]:
    """The first combination that fits, in the order of what they cost.

    Args:
        budget: bytes on the device (of the process, where that is the processor).
        drop_text: whether the text encoder may go: not where prompts come while the video is made.
        tiling: whether the autoencoder works in tiles anyway.
    Raises: InputError, which says the least that would do.
    """
    predictions = []
    for techniques in combinations(predictor.cuda, drop_text):
        if tiling and not techniques.tiling:
            continue
        prediction = predictor.predict(techniques)
        if prediction.peak <= budget:
            return techniques, prediction
        predictions.append(prediction)
    least = min(prediction.peak for prediction in predictions)
    other = "" if predictor.networks.fp8 else ", or an FP8 checkpoint (animagic quantize)"
    raise InputError(
        f"{budget / GB:.2f} GB are too little for {predictor.width}x{predictor.height}: with all that saves memory "
        f"{least / GB:.2f} GB are needed; allow that much, or choose a smaller size{other}."
    )
