"""The options of AnimateDiff."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import model_validator

from ...errors import InputError
from ...pipelines import flags
from ...pipelines.options import MOST_FRAMES, MemoryOptions, Option, WindowOptions


class AnimateDiffOptions(WindowOptions, MemoryOptions):
    """A request for a video of AnimateDiff."""

    motion_prompt: Annotated[
        str | None, Option("How it moves, for motion modules that read a prompt of their own.")
    ] = None
    motion_module: Annotated[
        str | None,
        Option(
            "A motion module's file, in place of the model's; the model may then be a plain Stable Diffusion.",
            argument=None,
            file="motion_module",
            weights=True,
        ),
    ] = None
    motion_loras: Annotated[
        dict[str, float],
        Option(
            "A camera move, from the model or a file; may be repeated.",
            flag="--motion-lora",
            argument=None,
            read=flags.read_weights,
            metavar="NAME[:WEIGHT]",
            file="motion LoRA {}",
            basic=True,
            weights=True,
        ),
    ] = {}
    dreambooth: Annotated[
        str | None,
        Option(
            "A personalised text-to-image model (file or folder) to animate.",
            argument=None,
            file="dreambooth",
            weights=True,
        ),
    ] = None
    embeddings: Annotated[
        tuple[str, ...],
        Option(
            "A file of textual inversion, whose token the prompt may use; may be repeated.",
            flag="--embedding",
            argument=None,
            metavar="FILE",
            file="embedding {}",
            weights=True,
        ),
    ] = ()
    sampler: Annotated[
        str | None,
        Option("ddim, euler, euler_a, dpm++_2m, dpm++_2m_karras, lcm, pndm or unipc.", argument=None),
    ] = None
    free_noise: Annotated[
        bool, Option("The noise of later windows is the first one's, shuffled.", argument="shared_noise")
    ] = False
    free_init: Annotated[
        int,
        Ge(0),
        Le(100),
        Option(
            "Sample that often in all, each time from the low frequencies of the last: less flicker.", argument=None
        ),
    ] = 0
    controls: Annotated[
        dict[int, str],
        Option(
            "A picture that a frame is to look like; may be repeated.",
            flag="--control",
            argument=None,
            read=flags.read_controls,
            metavar="FILE@FRAME",
            file="picture of frame {}",
        ),
    ] = {}
    controlnet: Annotated[
        str | None,
        Option("The network that reads --control: a folder or file.", argument=None, file="controlnet", weights=True),
    ] = None
    control_scale: Annotated[
        float | None, Ge(0), Le(100), Option("How strongly --control is followed; default: 1.", argument=None)
    ] = None
    strength: Annotated[
        float | None,
        Gt(0),
        Le(1),
        Option("How far --image or --video is left behind, above 0 and at most 1 (anew); default: 0.8.", plan=True),
    ] = None
    clip_skip: Annotated[
        int | None, Ge(0), Le(MOST_FRAMES), Option("Last layers of the text encoder to leave out.")
    ] = None
    entry: Annotated[int, Ge(0), Le(MOST_FRAMES)] = 0
    """Of an original inference file that is the model: which of its entries, from 0."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> AnimateDiffOptions:
        if self.controlnet is not None and not self.controls:
            raise InputError("a controlnet has nothing to read; give pictures with their frames (--control).")
        if self.strength is not None and self.image is None and self.video is None:
            raise InputError("strength says how far an image or a video is left behind; give one, or leave it out.")
        return self
