"""The switches of diffusers' AnimateDiff pipelines, and how a pipeline is kept in a folder that diffusers opens too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...timeline import FreeInit
from .adapter import apart
from .prompts import Blend

NOISES = ("shuffle_context", "repeat_context", "random")


class HabitsMixin:
    """FreeInit and FreeNoise as switches; `save_pretrained`."""

    unet: Any
    _free_init: FreeInit | None = None
    _free_noise: dict[str, Any] | None = None
    _blend: Blend | None

    def enable_free_init(
        self,
        num_iters: int = 3,
        use_fast_sampling: bool = False,
        method: str = "butterworth",
        order: int = 4,
        spatial_stop_frequency: float = 0.25,
        temporal_stop_frequency: float = 0.25,
    ) -> None:
        """Sample several times from now on; see FreeInit, whose arguments these are. Raises InputError."""
        stops = {"spatial_stop": spatial_stop_frequency, "temporal_stop": temporal_stop_frequency}
        self._free_init = FreeInit(num_iters, method, order, fast=use_fast_sampling, **stops)  # type: ignore[arg-type]

    def disable_free_init(self) -> None:
        """Sample once again."""
        self._free_init = None

    @property
    def free_init_enabled(self) -> bool:
        return self._free_init is not None

    def enable_free_noise(
        self,
        context_length: int | None = 16,
        context_stride: int = 4,
        weighting_scheme: str = "pyramid",
        noise_type: str = "shuffle_context",
        prompt_interpolation_callback: Blend | None = None,
    ) -> None:
        """Long videos from now on, in windows whose noise belongs together (FreeNoise, arXiv 2310.15169). A call that
        says something else about windows has its way.

        The whole UNet works window by window, so that a longer video takes no more memory; in diffusers only the motion
        modules do. Raises InputError.

        Args:
            context_length: frames of a window; None: as many as the motion module sees.
            context_stride: frames from one window to the next.
            weighting_scheme: "pyramid", "flat" or "delayed_reverse_sawtooth".
            noise_type: "shuffle_context" and "repeat_context" take the noise of the first window again, "random" does
                not.
            prompt_interpolation_callback: see `Blend`.
        """
        length = context_length or self.unet.config.motion_max_length
        most = self.unet.config.motion_max_length
        if most and length > most:
            raise InputError(f"context_length may be at most {most}, the frames that this motion module sees together.")
        if noise_type not in NOISES:
            raise InputError(f"noise_type {noise_type!r} is unknown; choose {', '.join(NOISES)}.")
        if not 1 <= context_stride <= length:
            raise InputError(f"context_stride must be 1 to {length}, the frames of a window, not {context_stride}.")
        self._free_noise = {
            "context_frames": length,
            "context_overlap": length - context_stride,
            "context_weights": weighting_scheme,
            "shared_noise": noise_type,
        }
        self._blend = prompt_interpolation_callback

    def disable_free_noise(self) -> None:
        self._free_noise = self._blend = None

    @property
    def free_noise_enabled(self) -> bool:
        return self._free_noise is not None

    def enable_free_noise_split_inference(self, *sizes: int, **named: int) -> None:
        """Nothing more to be saved: the UNet sees one window at a time anyway."""

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, and where a MotionAdapter can hold the motion modules, in its layout: the text-to-image UNet
        and the adapter apart, which diffusers opens as its own AnimateDiffPipeline with this motion."""
        parts = apart(self.unet)
        if parts is None:
            super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
            return
        shown = copy.copy(self)
        shown.register_modules(unet=parts[0], motion_adapter=parts[1])  # type: ignore[attr-defined]
        super(HabitsMixin, shown).save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
