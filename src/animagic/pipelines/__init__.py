"""The parts that the pipelines of all systems share: options, jobs, one base class, memory, devices."""

from ..mirror import names_of

__getattr__ = names_of("diffusers.pipelines")
