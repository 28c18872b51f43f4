"""The options of MagicAnimate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import field_validator, model_validator

from ...errors import InputError
from ...pipelines.options import LEAST_FPS, MOST_FRAMES, MemoryOptions, Option, WindowOptions


class MagicAnimateOptions(WindowOptions, MemoryOptions):
    """A request for a video in which a person moves as in another video."""

    image: Annotated[
        str | None, Option("A picture of the person.", argument=None, file="image", positional=True, basic=True)
    ] = None
    video: Annotated[
        str | None,
        Option(
            "How they are to move: any video, a video of poses, or poses as JSON.",
            argument=None,
            file="video",
            positional=True,
            basic=True,
        ),
    ] = None
    prompt: Annotated[
        str, Option("For models that read one; the published one has only known none.", argument=None)
    ] = ""
    prompts_at: dict[int, str] = {}
    frames: Annotated[
        int | None,
        Ge(1),
        Le(MOST_FRAMES),
        Option(
            "Frames of the video; default: as many as the driving one has.",
            argument="num_frames",
            plan=True,
            basic=True,
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Ge(0),
        Le(100),
        Option("How strongly the picture is followed.", argument="guidance_scale", metavar="SCALE"),
    ] = None
    fps: Annotated[
        float | None, Ge(LEAST_FPS), Le(240), Option("Frames per second; default: the driving video's.", argument=None)
    ] = None
    windows: Annotated[
        Literal["published", "moving"] | None,
        Option("How the windows of a long video are laid: published or moving.", plan=True),
    ] = None
    offset: Annotated[
        int,
        Ge(0),
        Le(MOST_FRAMES),
        Option("Frames of the driving video that are left out at its beginning.", argument=None),
    ] = 0
    people: Annotated[
        int | None, Ge(1), Le(10), Option("People who are followed, the largest ones; default: 1.", argument=None)
    ] = None
    retarget: Annotated[
        bool | None,
        Option(
            "Bring the motion to the proportions and the place of the person in the picture; default: yes.",
            argument=None,
        ),
    ] = None
    around_person: Annotated[
        bool, Option("Animate only the part around the person, and put it back into the picture.", argument=None)
    ] = False
    keep_background: Annotated[
        bool, Option("Keep the background of the picture; only the person is new.", argument=None)
    ] = False
    sound: Annotated[bool | None, Option("Keep the sound of the driving video; default: yes.", argument=None)] = None
    show_pose: Annotated[bool, Option("Write picture, pose and result side by side.", argument=None)] = False

    @field_validator("prompt")
    @classmethod
    def _prompt_says_something(cls, prompt: str) -> str:
        return prompt

    @model_validator(mode="after")
    def _begins_from_one_thing(self) -> MagicAnimateOptions:
        if self.prompts_at:
            raise InputError("there is no later prompt here: what happens is in the driving video.")
        if self.endless:
            raise InputError("the video is as long as the driving one; give the number of --frames, or leave it out.")
        return self

    @property
    def title(self) -> str:
        return f"{Path(self.image or '').stem} as {Path(self.video or '').stem}"
