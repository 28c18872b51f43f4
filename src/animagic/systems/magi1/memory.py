"""How much memory and time a video takes, predicted before anything is loaded, and what to do where memory is short."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import InputError
from .counting import Call, Cost, Networks, Sized, calls_of, count, like, size_of

GB = 10**9
_CUDA_CONTEXT = 600 * 2**20  # of the driver and cuBLAS: not PyTorch's, but gone all the same
_FRAGMENTS = 0.05  # share of the memory that lies between the blocks of PyTorch's allocator
# The same on a processor, as a share of the activations, whose coming and going makes it: measured with glibc as it is,
# and after `give_back_freed_memory`.
_PROCESS_FRAGMENTS = {False: 0.7, True: 0.1}
_KERNELS = 30 * 2**20  # of the libraries, read in when they first run


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
        sized = Sized(self.networks, self.height // unit, self.width // unit, self.calls, not self.cuda)
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
        vae = like(networks.vae, depth=depth, encoder_depth=0)
        nn.Module.to(vae, networks.vae.dtype)
        if tiling:
            vae.enable_tiling()
        pipe = Magi1Pipeline(networks.transformer, vae, config={})
        return count(lambda: pipe.decode_frames(torch.empty(1, vae.config.z_chans, *shape)), cpu=not self.cuda)

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
