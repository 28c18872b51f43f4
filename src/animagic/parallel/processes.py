"""The processes that make one video together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Group:
    """Processes that run the same plan. rank: of this one; size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def map(self, function: Callable[[Any], torch.Tensor], items: list[Any]) -> list[torch.Tensor]:
        """A `parallel_map` for pipelines: every process computes a part of the windows, neighbours together, and all of
        them get all results."""
        if self.size == 1 or len(items) == 1:
            return [function(item) for item in items]
        borders = [rank * len(items) // self.size for rank in range(self.size + 1)]
        mine = [function(item) for item in items[borders[self.rank] : borders[self.rank + 1]]]
        everyone: list[Any] = [None] * self.size
        dist.all_gather_object(everyone, [result.cpu() for result in mine])
        return [result for part in everyone for result in part]

    def agree(self, value: Any) -> Any:
        """The main process's value, for all of them: what JSON and dataclasses hold."""
        if self.size == 1:
            return value
        shared = [value if self.is_main else None]
        dist.broadcast_object_list(shared)
        return shared[0]


@contextmanager
def joined() -> Iterator[Group]:
    """The group of processes that torchrun has started; a group of one without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Group()
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
