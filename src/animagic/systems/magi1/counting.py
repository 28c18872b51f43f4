"""What running MAGI-1's networks costs: bytes, operations and calls, counted without any numbers.

Their own code runs on PyTorch's meta device, which has shapes and no numbers, while every tensor that comes and goes
is counted; so no formula can be wrong when a network changes. The plan and the guidance run as they are, with a
stand-in for the transformer that notes how it is called.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ...errors import CheckpointError
from ...layers import fp8
from ...layers.cache import KeyValueCache
from .autoencoder import AutoencoderKLMagi1
from .denoiser import Magi1Denoiser, Magi1Sampling
from .prompts import ChunkPrompts, TextEmbedding
from .transformer import Magi1Transformer3DModel
from .weights import autoencoder_from_config, transformer_from_config

T5_XXL_PARAMETERS = 4_762_310_656
"""Of the encoder of T5 v1.1 XXL, which the published models read text with."""
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


def like(network: Any, **changes: Any) -> Any:
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


class Sized:
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
            _cast(like(networks.transformer, num_layers=depth), networks.dtype)
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
