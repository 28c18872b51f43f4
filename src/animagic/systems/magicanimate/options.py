"""The options of MagicAnimate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from ...pipelines.options import MemoryOptions, Option, WindowOptions


class MagicAnimateOptions(WindowOptions, MemoryOptions):
    """A request for a video in which a person moves as in another video."""

    image: Annotated[str | None, Option("A picture of the person.", argument=None, file="image", positional=True)] = (
        None
    )
    video: Annotated[
        str | None,
        Option("The video whose motion the person takes on.", argument=None, file="video", positional=True),
    ] = None
    windows: Annotated[
        Literal["published", "moving"] | None,
        Option("How the windows of a long video are laid: published or moving.", plan=True),
    ] = None

    @model_validator(mode="after")
    def _begins_from_one_thing(self) -> MagicAnimateOptions:
        return self
