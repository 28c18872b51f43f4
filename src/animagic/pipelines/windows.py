"""Videos that are made as a whole where they fit into one window of the network, else in windows that overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InputError
from ..timeline import OverlappingWindows, Plan, WholeClip
from .base import Sampling

S = TypeVar("S", bound="WindowedSampling")


@dataclass(frozen=True)
class WindowedSampling(Sampling):
    """context_frames: frames of a window; context_overlap: frames that neighbouring windows share."""

    context_frames: int = 16
    context_overlap: int = 4

    def changed(self: S, **values: Any) -> S:
        changed = super().changed(**values)
        if changed.context_frames < 1:
            raise InputError(f"context_frames must be at least 1, not {changed.context_frames}.")
        if values.get("context_overlap") is not None and changed.context_overlap >= changed.context_frames:
            raise InputError(f"the overlap must be less than the window's {changed.context_frames} frames.")
        return changed

    def plan_for(
        self,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        *,
        context_frames: int | None = None,
        context_overlap: int | None = None,
        strength: float = 1.0,
        **windows: Any,
    ) -> Plan:
        """The plan of a call. windows: those of `plan`. strength is of no matter without a scheduler."""
        settings = self.changed(
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            context_frames=context_frames,
            context_overlap=context_overlap,
        )
        return settings.plan(settings.num_inference_steps, **windows)

    def plan(
        self, num_steps: int, *, closed_loop: bool = False, context_stride: int = 1, context_weights: str = "pyramid"
    ) -> Plan:
        """Whole where the clip fits into one window and is no loop, else as `OverlappingWindows` says."""
        if self.num_frames <= self.context_frames and not closed_loop:
            return WholeClip(self.num_frames, num_steps)
        return OverlappingWindows(
            self.num_frames,
            num_steps,
            size=self.context_frames,
            overlap=self.context_overlap,
            stride=context_stride,
            closed_loop=closed_loop,
            weights=context_weights,  # type: ignore[arg-type]  # it refuses what it does not know
        )
