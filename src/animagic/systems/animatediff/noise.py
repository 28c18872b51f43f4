"""Where scripts find FreeInit and FreeNoise; they live in `animagic.timeline`."""

from ...timeline import FreeInit, free_noise

__all__ = ["FreeInit", "free_noise"]
