"""The options of MagicInfinite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import field_validator, model_validator

from ...errors import InputError
from ...pipelines.options import MemoryOptions, Option

FILMS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv", ".gif", ".webp")
"""Names of files that are taken for videos."""
Scale = Annotated[float | None, Ge(0), Le(100)]


class MagicInfiniteOptions(MemoryOptions):
    """A request for a video in which a portrait speaks."""

    image: Annotated[
        str | None,
        Option(
            "A portrait; or a video, which keeps all but the mouth.",
            argument=None,
            file="image",
            positional=True,
            basic=True,
        ),
    ] = None
    video: Annotated[
        str | None, Option("A video in which somebody is to speak otherwise.", argument=None, file="video", basic=True)
    ] = None
    prompt: Annotated[
        str, Option("How they look and move while they speak.", flag="--prompt", argument=None, basic=True)
    ] = ""
    audio: Annotated[
        tuple[str, ...],
        Option(
            "A voice: any sound or video file, or silence; once for each speaker.",
            argument=None,
            file="voice {}",
            basic=True,
            words=("silence", "live"),
        ),
    ] = ()
    say: Annotated[
        tuple[str, ...],
        Option("A text that is read aloud as the voice; once for each speaker.", argument=None, basic=True),
    ] = ()
    voice: Annotated[
        tuple[str, ...], Option("Who reads it: en, de, slt, ...; see animagic.speech.VOICES.", argument=None)
    ] = ()
    mask: Annotated[
        tuple[str, ...],
        Option("A speaker's face: a picture or video, white where it is.", argument=None, file="mask {}"),
    ] = ()
    face: Annotated[
        tuple[str, ...], Option("A speaker's face as x,y,width,height in pixels.", argument=None, metavar="X,Y,W,H")
    ] = ()
    people: Annotated[
        int | None,
        Ge(1),
        Le(10),
        Option("People in it; who has no voice is silent. Default: one a voice.", argument=None),
    ] = None
    around_face: Annotated[
        bool, Option("Animate only the part around the face, and put it back into the portrait.", argument=None)
    ] = False
    voice_guidance: Annotated[
        Scale, Option("How strongly voices are followed.", argument="voice_scale", metavar="SCALE")
    ] = None
    portrait_guidance: Annotated[
        Scale, Option("How strongly the portrait is followed.", argument="portrait_scale", metavar="SCALE")
    ] = None
    order: Annotated[
        Literal["windows", "front"] | None,
        Option(
            "windows: all of the video at every step; front: its beginning first, at a steady delay.",
            argument="plan",
            plan=True,
        ),
    ] = None
    real_time: Annotated[
        bool,
        Option("Hear voices as if they were spoken now, and report how long they take to be seen.", argument=None),
    ] = False
    window: Annotated[int | None, Ge(1), Option("Latent frames that are denoised together.", plan=True)] = None
    overlap: Annotated[
        int | None,
        Ge(0),
        Option("Latent frames that neighbouring windows share.", argument="window_overlap", plan=True),
    ] = None
    front: Annotated[int | None, Ge(1), Option("Latent frames in work at a time, with --order front.", plan=True)] = (
        None
    )
    sound: Annotated[bool | None, Option("Put the voices into the video; default: yes.", argument=None)] = None
    show_face: Annotated[bool, Option("Write portrait, faces found and result side by side.", argument=None)] = False

    @model_validator(mode="before")
    @classmethod
    def _a_video_is_dubbed(cls, values: Any) -> Any:
        given = str(values.get("image") or "")
        if given.lower().endswith(FILMS) and values.get("video") is None:
            return {**values, "image": None, "video": given}
        return values

    @field_validator("prompt")
    @classmethod
    def _prompt_says_something(cls, prompt: str) -> str:
        return prompt

    @model_validator(mode="after")
    def _begins_from_one_thing(self) -> MagicInfiniteOptions:
        if self.endless:
            raise InputError("the video is as long as its voice; give the number of --frames, or leave it out.")
        if self.audio and self.say:
            raise InputError("give the voices either as --audio or as texts that are --say'd, not both.")
        if self.voice and len(self.voice) not in (1, len(self.say)):
            raise InputError(
                f"there are {len(self.say)} texts to say and {len(self.voice)} voices; give one each, or one for all."
            )
        return self

    @property
    def title(self) -> str:
        said = self.say or tuple(Path(name).stem for name in self.audio)
        return f"{Path(self.image or '').stem} says {said[0] if said else 'nothing'}"
