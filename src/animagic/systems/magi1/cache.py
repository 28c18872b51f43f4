"""The keys and values of clean chunks, which later chunks look back at."""

from __future__ import annotations

import torch


class KeyValueCache:
    """Keys and values of the clean frames that later chunks still look back at.

    Holds the latent frames [start, stop) of the timeline, a (keys, values) pair a layer, each
    (batch, groups, tokens, head_dim). `append` is called by the transformer, `forget` by the sampler, so that the
    memory stays that of the longest look-back, however long the video.
    """

    def __init__(self, start: int = 0):
        self.start = self.stop = start
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def append(self, frames: range, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Add the keys and values of `frames`, which must follow those already held."""
        if frames.start != self.stop:
            raise ValueError(f"the cache ends at frame {self.stop}, frames {frames.start}.. do not follow it")
        if self.layers and self.stop > self.start:
            layers = [
                (torch.cat([k, new_k], dim=2), torch.cat([v, new_v], dim=2))
                for (k, v), (new_k, new_v) in zip(self.layers, layers, strict=True)
            ]
        self.layers, self.stop = layers, frames.stop

    def forget(self, before: int) -> None:
        """Drop the frames before `before`."""
        drop = min(before, self.stop) - self.start
        if drop <= 0:
            return
        if self.layers:
            tokens = self.layers[0][0].shape[2] // (self.stop - self.start) * drop
            # A copy: a view would keep the dropped part in memory.
            self.layers = [(k[:, :, tokens:].clone(), v[:, :, tokens:].clone()) for k, v in self.layers]
        self.start += drop
