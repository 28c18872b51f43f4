"""The models that a server has."""

from __future__ import annotations

from dataclasses import dataclass

from .. import zoo
from ..pipelines.options import VideoOptions
from ..systems import SYSTEMS


@dataclass(frozen=True)
class Model:
    """A model of the zoo. command: the one that makes its videos. bytes: on disk."""

    name: str
    system: str
    title: str
    summary: str
    command: str
    options_class: type[VideoOptions]
    bytes: int


def models() -> list[Model]:
    """The models of the zoo that make videos."""
    entries = [zoo.entry(name) for name in zoo.names() if not zoo.is_base(name)]
    return [
        Model(
            name=entry.name,
            system=entry.system,
            title=(system := SYSTEMS[entry.system]).title,
            summary=entry.summary,
            command=system.command,
            options_class=system.options_class,
            bytes=entry.bytes,
        )
        for entry in entries
    ]
