"""What pictures say beside the text: ControlNets, a picture for every frame, and IP-Adapters, the look of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import ControlNetModel, MultiControlNetModel
from diffusers.loaders import IPAdapterMixin
from PIL import Image

from ...errors import InputError
from ...layers.inflation import by_frame
from ...media import resize
from ...pipelines.base import frames_of
from .prompts import travel

Residuals = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, list[int], tuple[float, float]], dict[str, Any]]
"""(latents, timestep, text, frames, which part of the steps it is) -> what is added inside the UNet, as arguments of
AnimateDiffUNet.forward."""


def added_up(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The residuals of several networks as those of one."""
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return parts[0] if parts else {}
    down, middle = "down_block_additional_residuals", "mid_block_additional_residual"
    return {
        down: [sum(residuals) for residuals in zip(*(part[down] for part in parts), strict=True)],
        middle: sum(part[middle] for part in parts),
    }


def _each(value: Any, count: int, name: str) -> list[float]:
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise InputError(f"there are {count} ControlNets but {len(values)} values of {name}; give one, or one each.")
    return values


@dataclass(frozen=True)
class FrameControl:
    """ControlNets of pictures, and for each a picture of every frame: (frames, 3, height, width) in 0..1.

    scales, starts, ends: of each, how strongly it counts, and within which share of the steps. guess: it is not told
    the prompt's opposite.
    """

    network: MultiControlNetModel
    pictures: tuple[torch.Tensor, ...]
    scales: tuple[float, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    guess: bool

    @classmethod
    def of(
        cls,
        network: ControlNetModel | MultiControlNetModel,
        pictures: Any,
        *,
        num_frames: int,
        size: tuple[int, int],
        scale: float | Sequence[float] = 1.0,
        start: float | Sequence[float] = 0.0,
        end: float | Sequence[float] = 1.0,
        guess: bool = False,
        fit: Any = "crop",
    ) -> FrameControl:
        """Prepare the pictures of a call. pictures: a clip in any form, of several networks a list of clips. Raises
        InputError."""
        nets = list(network.nets) if isinstance(network, MultiControlNetModel) else [network]
        clips = [pictures] if len(nets) == 1 and not _is_list_of_clips(pictures) else list(pictures)
        if len(clips) != len(nets):
            raise InputError(f"there are {len(nets)} ControlNets but {len(clips)} clips for them; give one each.")
        made = []
        for clip in clips:
            frames = frames_of(None, clip)
            if frames is None or len(frames) != num_frames:
                count = 0 if frames is None else len(frames)
                raise InputError(f"a ControlNet needs a picture for each of the {num_frames} frames, not {count}.")
            made.append(torch.tensor(resize(frames, *size, fit)).permute(0, 3, 1, 2).float() / 255)
        bounds = [tuple(_each(v, len(nets), f"control_guidance_{n}")) for v, n in ((start, "start"), (end, "end"))]
        if any(not 0 <= a < b <= 1 for a, b in zip(*bounds, strict=True)):
            raise InputError("a ControlNet works from control_guidance_start to _end: 0 <= start < end <= 1.")
        scales = tuple(_each(scale, len(nets), "controlnet_conditioning_scale"))
        guess = guess or any(net.config.global_pool_conditions for net in nets)
        return cls(MultiControlNetModel(nets), tuple(made), scales, bounds[0], bounds[1], guess)

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        frames: Sequence[int],
        steps: tuple[float, float],
    ) -> dict[str, Any]:
        bounds = zip(self.scales, self.starts, self.ends, strict=True)
        scales = [0.0 if steps[0] < start or steps[1] > end else scale for scale, start, end in bounds]
        if not any(scales):
            return {}
        hidden = self.guess and len(sample) > 1 and len(sample) % 2 == 0
        if hidden:
            sample, text = sample.chunk(2)[1], text.chunk(2)[1]
        rows = len(sample) * len(frames)
        down, middle = self.network(
            by_frame(sample),
            timestep,
            text.repeat_interleave(rows // len(text), dim=0),
            [clip[list(frames)].to(sample).repeat(len(sample), 1, 1, 1) for clip in self.pictures],
            scales,
            guess_mode=self.guess,
            return_dict=False,
        )
        if hidden:
            down = [torch.cat([torch.zeros_like(one), one]) for one in down]
            middle = torch.cat([torch.zeros_like(middle), middle])
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _is_list_of_clips(pictures: Any) -> bool:
    if not isinstance(pictures, list | tuple) or not pictures:
        return False
    first = pictures[0]
    return isinstance(first, list | tuple) or (isinstance(first, np.ndarray | torch.Tensor) and first.ndim == 4)


def motion_scales(
    scale: float | Sequence[float] | Mapping[int, float], mask: Any, num_frames: int, size: tuple[int, int], fit: Any
) -> torch.Tensor | None:
    """How strongly each frame moves, and where: (frames, 1, height, width), or with height and width 1; None: as
    trained. Raises InputError.

    scale: one for all, one for each frame, or frame -> scale. mask: a picture, or one of each frame.
    """
    if isinstance(scale, Mapping):
        keys = {frame: torch.tensor([[float(value)]]) for frame, value in scale.items()}
        values = travel(keys, num_frames).flatten()
    else:
        values = (
            torch.tensor(scale, dtype=torch.float32).expand(num_frames)
            if isinstance(scale, int | float)
            else (torch.tensor(list(scale), dtype=torch.float32))
        )
    if len(values) != num_frames:
        raise InputError(f"motion_scale has {len(values)} values for {num_frames} frames; give one, or one each.")
    scales = values[:, None, None, None]
    if mask is None:
        return None if bool((scales == 1).all()) else scales
    pictures = frames_of(None, mask)
    if pictures is None or len(pictures) not in (1, num_frames):
        raise InputError(f"motion_mask is one picture, or one for each of the {num_frames} frames.")
    where = torch.tensor(resize(pictures, *size, fit)).float().mean(-1)[:, None] / 255
    return scales * where


class IPAdapterVideoMixin(IPAdapterMixin):
    """IP-Adapters in AnimateDiff's pipelines: diffusers' methods, and pictures that change along the clip."""

    unet: Any
    image_encoder: Any
    feature_extractor: Any
    encode_image = diffusers.AnimateDiffPipeline.encode_image

    def _pictures(
        self, images: Any, embeds: Any, videos: int, num_frames: int, guided: bool, closed_loop: bool
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]] | tuple[None, None]:
        """The looks to follow and their opposites, of each IP-Adapter (videos, 1 or frames, images, ...); None: there
        is no adapter. Raises InputError.

        images: of each adapter one picture, a list of them, or frame -> picture. embeds: in their place, as in
        diffusers: the opposites before the rest, if the call is guided.
        """
        layers = getattr(self.unet.encoder_hid_proj, "image_projection_layers", [])
        if images is None and embeds is None:
            if layers:
                raise InputError("an IP-Adapter is loaded: give ip_adapter_image, or call unload_ip_adapter().")
            return None, None
        if not layers:
            raise InputError("there is no IP-Adapter that could follow a picture: call load_ip_adapter() first.")
        if embeds is None and self.image_encoder is None:
            raise InputError("the IP-Adapter came without its image encoder; give ip_adapter_image_embeds instead.")
        given = embeds if embeds is not None else images if isinstance(images, list | tuple) else [images]
        if len(given) != len(layers):
            raise InputError(f"there are {len(layers)} IP-Adapters but {len(given)} pictures; give one each.")
        follow: list[torch.Tensor] = []
        leave: list[torch.Tensor] = []
        for place, one in enumerate(given):
            keys = one if isinstance(one, Mapping) else {0: one}
            made = {frame: self._looks(place, key, videos, guided, embeds is not None) for frame, key in keys.items()}
            for halves, half in ((leave, 0), (follow, 1)):
                ends = {frame: looks[half] for frame, looks in made.items()}
                halves.append(
                    travel(ends, num_frames, closed_loop) if len(ends) > 1 else next(iter(ends.values()))[:, None]
                )
        return follow, leave

    def _looks(
        self, place: int, one: Any, videos: int, guided: bool, embedded: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The opposite of a picture, and the picture, as the adapter at that place reads them."""
        layers = self.unet.encoder_hid_proj.image_projection_layers
        if embedded:
            if guided and len(one) % 2:
                raise InputError("ip_adapter_image_embeds need the opposites before the rest in a guided call.")
            leave, follow = one.chunk(2) if guided else (torch.zeros_like(one), one)
        else:
            one = list(one) if isinstance(one, list | tuple) else one
            if isinstance(one, np.ndarray | torch.Tensor):
                one = [Image.fromarray(frame) for frame in frames_of(None, one)]  # type: ignore[union-attr]
            hidden = not isinstance(layers[place], diffusers.models.embeddings.ImageProjection)
            follow, leave = (x[None] for x in self.encode_image(one, self._execution_device, 1, hidden))
        count = videos // len(follow)
        return leave.repeat(count, *[1] * (leave.ndim - 1)), follow.repeat(count, *[1] * (follow.ndim - 1))
