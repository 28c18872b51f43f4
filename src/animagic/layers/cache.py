"""Key/value caches: what clean frames leave behind for the later ones that attend to them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a layer, each (batch, groups, tokens, head_dim)."""


class KeyValueCache:
    """Keys and values of the clean frames that later chunks still look back at.

    Holds the latent frames [start, stop) of the timeline. The transformer calls `read` and `write`, layer after layer;
    before and after it, the denoiser calls `forget` and `commit`. `read` and `write` touch nothing but tensors: a
    number in them would be compiled into the graph of a compiled transformer.
    """

    def __init__(self, start: int = 0):
        self.start = self.stop = start
        self.layers: list[Pair] = []
        self.written: list[Pair] = []

    def read(self, layer: int) -> Pair | None:
        """The keys and values that a layer looks back at; None: nothing is held."""
        return self.layers[layer] if self.layers else None

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep a copy of what a layer (they come in order) made of the frames that are committed next."""
        one_layout = torch.contiguous_format  # or strides would differ from one window to the next
        self.written.append((keys.clone(memory_format=one_layout), values.clone(memory_format=one_layout)))

    def commit(self, frames: range) -> None:
        """Append what was written, the keys and values of `frames`."""
        self.append(frames, self.written)
        self.written = []

    def append(self, frames: range, layers: list[Pair]) -> None:
        """Add the keys and values of `frames`, which must follow those already held."""
        if frames.start != self.stop:
            raise ValueError(f"the cache ends at frame {self.stop}, frames {frames.start}.. do not follow it")
        if not self.layers:  # copies: what comes out of a CUDA graph is overwritten when it is run again
            self.layers = [(k.clone(), v.clone()) for k, v in layers]
        else:  # one by one: all old and all new layers together would be twice the cache
            for i, ((k, v), (new_k, new_v)) in enumerate(zip(self.layers, layers, strict=True)):
                self.layers[i] = torch.cat([k, new_k], dim=2), torch.cat([v, new_v], dim=2)
        self.stop = frames.stop

    def forget(self, before: int) -> None:
        """Drop the frames before `before`."""
        drop = min(before, self.stop) - self.start
        if drop <= 0:
            return
        if drop == self.stop - self.start:
            self.layers = []
        elif self.layers:
            tokens = self.layers[0][0].shape[2] // (self.stop - self.start) * drop
            for i, (k, v) in enumerate(self.layers):
                # A copy: a view would keep the dropped part in memory.
                self.layers[i] = k[:, :, tokens:].clone(), v[:, :, tokens:].clone()
        self.start += drop

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = {"span": torch.tensor([self.start, self.stop])}
        for i, (keys, values) in enumerate(self.layers):
            state |= {f"{i}.keys": keys, f"{i}.values": values}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take what `state_dict` gave into an empty cache."""
        span, count = range(*state["span"].tolist()), sum(name.endswith(".keys") for name in state)
        self.start = self.stop = span.start
        self.append(span, [(state[f"{i}.keys"], state[f"{i}.values"]) for i in range(count)])


@dataclass
class _Slot:
    """Memory on the device of the network for one layer, reused for others."""

    layer: int | None = None
    pair: Pair | None = None
    ready: torch.cuda.Event | None = None


class OffloadedKeyValueCache(KeyValueCache):
    """A cache in CPU memory, pinned where the network runs on CUDA; the same numbers.

    The device has memory for two layers. `read` fetches a layer and starts the next, on CUDA in a stream of its own; a
    result holds until the read after the next. `fetched` and `stowed` count the bytes to and from the device.
    """

    def __init__(self, start: int = 0):
        super().__init__(start)
        self._pieces: list[tuple[range, list[Pair]]] = []  # frames, a pair a layer
        self.layers: Sequence[Pair] = _Joined(self)  # type: ignore[assignment]
        self._slots = (_Slot(), _Slot())
        self._device = torch.device("cpu")
        self._stream: torch.cuda.Stream | None = None
        self.fetched = self.stowed = 0

    def read(self, layer: int) -> Pair | None:
        if not self._pieces:
            return None
        slot = self._fetch(layer)
        if slot.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.ready)
        if layer + 1 < len(self.layers):
            self._fetch(layer + 1)
        return slot.pair

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.written.append((self._stow(keys), self._stow(values)))

    def append(self, frames: range, layers: list[Pair]) -> None:
        if frames.start != self.stop:
            raise ValueError(f"the cache ends at frame {self.stop}, frames {frames.start}.. do not follow it")
        if not layers:
            return
        if layers[0][0].device.type != "cpu":  # of a resumed run; `write` has stowed its own
            layers = [(self._stow(keys), self._stow(values)) for keys, values in layers]
        self._pieces.append((frames, layers))
        self.stop = frames.stop
        self._empty_slots()

    def forget(self, before: int) -> None:
        if min(before, self.stop) <= self.start:
            return
        kept = []
        for frames, layers in self._pieces:
            if frames.start < before < frames.stop:
                self._settle()
                tokens = layers[0][0].shape[2] // len(frames) * (before - frames.start)
                layers = [(_copy(keys[:, :, tokens:]), _copy(values[:, :, tokens:])) for keys, values in layers]
                frames = range(before, frames.stop)
            if frames.stop > before:
                kept.append((frames, layers))
        self._pieces, self.start = kept, min(before, self.stop)
        self._empty_slots()

    def _stow(self, x: torch.Tensor) -> torch.Tensor:
        self._device = x.device
        self.stowed += x.nbytes
        return _copy(x)

    def _fetch(self, layer: int) -> _Slot:
        """The slot of a layer, filled."""
        slot = self._slots[layer % 2]
        if slot.layer == layer:
            return slot
        pieces = [layers[layer] for _, layers in self._pieces]
        batch, groups, _, dim = pieces[0][0].shape
        shape = (batch, groups, sum(keys.shape[2] for keys, _ in pieces), dim)
        if slot.pair is None or slot.pair[0].shape != shape:
            slot.pair = None  # first the old room goes
            keys = torch.empty(shape, dtype=pieces[0][0].dtype, device=self._device)
            slot.pair = (keys, torch.empty_like(keys))
        with self._beside():
            for room, parts in zip(slot.pair, zip(*pieces, strict=True), strict=True):
                first = 0
                for part in parts:
                    room[:, :, first : first + part.shape[2]].copy_(part, non_blocking=True)
                    first += part.shape[2]
                self.fetched += room.nbytes
            slot.ready = None if self._stream is None else self._stream.record_event()
        slot.layer = layer
        return slot

    def _beside(self) -> contextlib.AbstractContextManager:
        """A stream of its own, on CUDA. It waits for the work given so far: what was read from a slot before must have
        been used before the slot is filled again, and what was stowed must have arrived."""
        if self._device.type != "cuda":
            return contextlib.nullcontext()
        self._stream = self._stream or torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._stream)

    def _settle(self) -> None:
        """Wait until what was stowed has arrived."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def _empty_slots(self) -> None:
        for slot in self._slots:
            slot.layer = None


class _Joined(Sequence[Pair]):
    """The layers of an offloaded cache, each joined when it is asked for; in CPU memory."""

    def __init__(self, cache: OffloadedKeyValueCache):
        self.cache = cache

    def __len__(self) -> int:
        pieces = self.cache._pieces
        return len(pieces[0][1]) if pieces else 0

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        self.cache._settle()
        keys, values = zip(*(layers[index] for _, layers in self.cache._pieces), strict=True)
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _copy(x: torch.Tensor) -> torch.Tensor:
    """A copy in CPU memory, pinned if it comes from a GPU or from such memory."""
    copy = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda or x.is_pinned())
    return copy.copy_(x, non_blocking=x.is_cuda)
