"""The noise that a timeline begins with: chunk by chunk, or shared between the windows of a long clip (FreeNoise)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator, or one for each video."""


def randn(shape: Sequence[int], generator: Generators = None, device: torch.device | None = None) -> torch.Tensor:
    """Noise in float32, drawn as diffusers draws it: the same on every device for a generator of the CPU."""
    from diffusers.utils.torch_utils import randn_tensor  # here: it takes seconds, and plans do without

    return randn_tensor(tuple(shape), as_list(generator) or None, device, torch.float32)


def as_list(generator: Generators) -> list[torch.Generator]:
    if generator is None or isinstance(generator, torch.Generator):
        return [] if generator is None else [generator]
    return list(generator)


def fresh_generator() -> torch.Generator:
    """A generator of its own, seeded from torch's global one."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


class ChunkNoise:
    """Fresh noise for a timeline, drawn chunk after chunk: a longer video begins like a shorter one.

    shape: (videos, channels, height, width) of a latent frame. Only whole chunks may be asked for.
    """

    def __init__(self, shape: tuple[int, ...], generator: Generators, device: torch.device, chunk_width: int = 1):
        self.shape, self.generator, self.device, self.chunk_width = shape, generator, device, chunk_width

    def __call__(self, frames: range) -> torch.Tensor:
        videos, channels, *size = self.shape
        chunk = (videos, channels, self.chunk_width, *size)
        pieces = [randn(chunk, self.generator, self.device) for _ in range(len(frames) // self.chunk_width)]
        return torch.cat(pieces, dim=2)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {str(i): generator.get_state() for i, generator in enumerate(as_list(self.generator))}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        for i, generator in enumerate(as_list(self.generator)):
            generator.set_state(state[str(i)])


def free_noise(shape: tuple[int, ...], generator: Generators = None, size: int = 16, stride: int = 4) -> torch.Tensor:
    """Noise whose frames come back, locally shuffled, one window later: far windows then show the same scene.

    The first `size` frames are fresh. Every further group of `stride` frames is the group `size` frames before it, in
    another order, which the first generator draws for all videos. shape: (batch, channels, frames, height, width).
    size, stride: frames of a window, and from one window to the next.

    Raises: InputError for a stride that is not 1 to `size`.
    Source: FreeNoise (arXiv 2310.15169), section 3.2, "local noise shuffle".
    """
    if not 1 <= stride <= size:
        raise InputError(f"the stride of the noise must be 1 to {size}, the frames of a window, not {stride}.")
    batch, channels, frames, height, width = shape
    fresh = randn((batch, channels, min(size, frames), height, width), generator)
    first = next(iter(as_list(generator)), None)
    order = list(range(min(size, frames)))
    for start in range(size, frames, stride):
        group = order[start - size : start - size + stride]
        order += [group[i] for i in torch.randperm(len(group), generator=first).tolist()]
    return fresh[:, :, order[:frames]]
