"""The systems: one row each says all that the rest of the library knows of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Place = Any
"""A class or function, or where it lies: "module:name" inside the system's package, imported when it is asked for."""


@dataclass(frozen=True)
class System:
    """A system of the library.

    Args:
        name: of its package, and in files. title: for people.
        classes: its public classes -> where they lie.
        pipelines: task ("text", "image", "video": what a video is made from) -> public class.
        options: the options class, of which a request is an instance (`pipelines.options`).
        job: how a request is carried out (`pipelines.job`).
        prefixes: what the class names of its pipelines begin with, in the index of a model folder.
        bases: beginnings of class names of models that it builds on -> what such a model needs to make videos.
        original_job: as `job`, for original configuration files.
        recognises: function of what a file holds -> whether it most likely is such a configuration, right or wrong.
        rooms: modules of its package that have what some commands need: "weights" (COMPONENTS, for
            `checkpoints.from_original`), "conversion" (`convert`), "quantize", "training" (STAGES), "memory".
        command: the command that makes its videos.
    """

    name: str
    title: str
    options: Place
    job: Place
    classes: Mapping[str, Place] = field(default_factory=dict)
    pipelines: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    original_job: Place = None
    recognises: Place = None
    rooms: frozenset[str] = frozenset()
    command: str = "generate"

    def get(self, place: Place) -> Any:
        """The object at a place of this row."""
        if not isinstance(place, str):
            return place
        module, _, name = place.partition(":")
        return getattr(self.room(module), name)

    def room(self, name: str) -> Any:
        """A module of its package."""
        return importlib.import_module(f"{__name__}.{self.name}.{name}")

    @property
    def options_class(self) -> Any:
        return self.get(self.options)

    def makes(self, class_name: str) -> bool:
        """Whether a pipeline of that class is a model of this system, or one that it builds on."""
        return class_name in self.classes or class_name.startswith((*self.prefixes, *self.bases))


SYSTEMS: dict[str, System] = {}


def register(system: System) -> System:
    """Add a system: commands, requests, the register of models and the public names know it from then on."""
    SYSTEMS[system.name] = system
    return system


def public_classes() -> dict[str, System]:
    """Every public class of a system -> the system."""
    return {name: system for system in SYSTEMS.values() for name in system.classes}


def systems_with(option: str) -> Iterator[System]:
    """The systems that have an option of that field name."""
    return (system for system in SYSTEMS.values() if option in system.options_class.model_fields)


register(
    System(
        name="magi1",
        title="MAGI-1",
        options="options:Magi1Options",
        job="job:Magi1Job",
        classes={
            "AutoencoderKLMagi1": "autoencoder:AutoencoderKLMagi1",
            "Magi1ImageToVideoPipeline": "pipeline:Magi1ImageToVideoPipeline",
            "Magi1LoraLoaderMixin": "pipeline:Magi1LoraLoaderMixin",
            "Magi1Pipeline": "pipeline:Magi1Pipeline",
            "Magi1SpecialTokens": "prompts:Magi1SpecialTokens",
            "Magi1Transformer3DModel": "transformer:Magi1Transformer3DModel",
            "Magi1VideoToVideoPipeline": "pipeline:Magi1VideoToVideoPipeline",
        },
        pipelines={
            "text": "Magi1Pipeline",
            "image": "Magi1ImageToVideoPipeline",
            "video": "Magi1VideoToVideoPipeline",
        },
        prefixes=("Magi1",),
        original_job="job:Magi1OriginalJob",
        recognises="original:recognises",
        rooms=frozenset({"weights", "conversion", "quantize", "training", "memory"}),
    )
)
register(
    System(
        name="animatediff",
        title="AnimateDiff",
        options="options:AnimateDiffOptions",
        job="job:AnimateDiffJob",
        classes={
            "AnimateDiffControlNetPipeline": "variants:AnimateDiffControlNetPipeline",
            "AnimateDiffPipeline": "pipeline:AnimateDiffPipeline",
            "AnimateDiffSDXLPipeline": "variants:AnimateDiffSDXLPipeline",
            "AnimateDiffSparseControlNetPipeline": "variants:AnimateDiffSparseControlNetPipeline",
            "AnimateDiffUNet": "unet:AnimateDiffUNet",
            "AnimateDiffVideoToVideoControlNetPipeline": "variants:AnimateDiffVideoToVideoControlNetPipeline",
            "AnimateDiffVideoToVideoPipeline": "variants:AnimateDiffVideoToVideoPipeline",
            "MotionAdapter": "adapter:MotionAdapter",
            "SparseControlNet": "sparse:SparseControlNet",
        },
        pipelines=dict.fromkeys(("text", "image", "video"), "AnimateDiffPipeline"),
        prefixes=("AnimateDiff",),
        bases={
            "StableDiffusion": "give it a --motion-module to make videos "
            "(in Python: AnimateDiffPipeline.from_published)"
        },
        original_job="original_job:AnimateDiffOriginalJob",
        recognises="original:recognises",
        rooms=frozenset({"weights", "conversion", "training", "memory"}),
    )
)
register(
    System(
        name="magicanimate",
        title="MagicAnimate",
        options="options:MagicAnimateOptions",
        job="job:MagicAnimateJob",
        classes={
            "AppearanceEncoder": "appearance:AppearanceEncoder",
            "MagicAnimatePipeline": "pipeline:MagicAnimatePipeline",
            "MagicAnimateUNet": "unet:MagicAnimateUNet",
        },
        pipelines=dict.fromkeys(("text", "image", "video"), "MagicAnimatePipeline"),
        prefixes=("MagicAnimate",),
        original_job="original_job:MagicAnimateOriginalJob",
        recognises="original:recognises",
        rooms=frozenset({"weights", "conversion", "training", "memory"}),
        command="animate",
    )
)
register(
    System(
        name="magicinfinite",
        title="MagicInfinite",
        options="options:MagicInfiniteOptions",
        job="job:MagicInfiniteJob",
        classes={
            "MagicInfinitePipeline": "pipeline:MagicInfinitePipeline",
            "MagicInfiniteTransformer3DModel": "transformer:MagicInfiniteTransformer3DModel",
        },
        pipelines=dict.fromkeys(("text", "image", "video"), "MagicInfinitePipeline"),
        prefixes=("MagicInfinite",),
        rooms=frozenset({"weights", "conversion", "training", "memory"}),
        command="talk",
    )
)
