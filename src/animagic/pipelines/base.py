"""The base of every system's pipeline: a call becomes a `Run`, and one flow executes any run.

A system's pipeline is a subclass of `VideoPipeline` with

- `sampling`: its settings, a `Sampling` or an object with the same names;
- `denoiser(prompt, plan, sampling, ...)`: its network as the engine calls it;
- `to_latents`, `to_video`, `latent_channels`, `pixels_per_latent`, where latents are not the pixels themselves;
- `prepare`, where a call is more than that: it turns a `Call` and the system's own arguments into a `Run`.

All that this module defines in public works with every system; an unknown argument of a call is a TypeError.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..errors import InputError
from ..media.frames import resize
from ..media.outputs import Chunk, VideoOutput, check_output_type, in_form, joined, to_bytes
from ..timeline import ChunkNoise, Denoiser, FlowEuler, Plan, Progress, Sampler, Solver, Timeline, WholeClip
from ..timeline.engine import Clean, Map, one_by_one
from ..timeline.noise import Generators, as_list, fresh_generator
from ..timeline.resume import RunFolder
from .pixels import frames_of

S = TypeVar("S", bound="Sampling")


@dataclass(frozen=True)
class Sampling:
    """The defaults of a call; a model keeps its own in its configuration, systems add fields and change defaults."""

    num_frames: int = 16
    height: int = 512
    width: int = 512
    fps: float = 8
    num_inference_steps: int = 25
    guidance_scale: float = 7.5

    frames_per_latent: ClassVar[int] = 1
    """Video frames of a latent frame."""

    @classmethod
    def from_config(cls: type[S], config: Mapping[str, Any] | None) -> S:
        """Raises InputError for a field that is not known."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(config or {}) - known)
        if unknown:
            raise InputError(f"the sampling setting {unknown[0]!r} is unknown; known are {', '.join(sorted(known))}.")
        return cls(**(config or {}))

    def changed(self: S, **values: Any) -> S:
        """A copy with every value that is not None. Raises InputError."""
        changed = replace(self, **{name: value for name, value in values.items() if value is not None})
        for name in ("num_frames", "num_inference_steps"):
            if getattr(changed, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(changed, name)}.")
        if not 0 <= changed.guidance_scale <= 100:
            raise InputError(f"the guidance scale must lie between 0 and 100, not {changed.guidance_scale}.")
        return changed

    def plan_for(self, num_frames: int | None = None, num_inference_steps: int | None = None) -> Plan:
        """The plan of a call, without a network."""
        settings = self.changed(num_frames=num_frames, num_inference_steps=num_inference_steps)
        return WholeClip(math.ceil(settings.num_frames / self.frames_per_latent), settings.num_inference_steps)


@dataclass(frozen=True)
class Call:
    """The arguments of `stream` that every system takes; None: the model's default.

    prompt: a list makes one video each. image, video: given frames in any form that `frames_of` takes, resized as
    `fit` says ("crop", "pad" or "stretch"). latents: (videos, channels, latent frames, h, w)
    in place of noise from the generator, which is one, or one for each video.
    """

    prompt: Any = None
    image: Any = None
    video: Any = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    num_videos_per_prompt: int = 1
    generator: Generators = None
    latents: torch.Tensor | None = None
    fit: Any = "crop"

    def __post_init__(self) -> None:
        for name in ("height", "width", "num_frames", "num_inference_steps", "num_videos_per_prompt"):
            value = getattr(self, name)
            if value is not None and value != int(value):
                raise InputError(f"{name} must be a whole number, not {value}.")
            object.__setattr__(self, name, None if value is None else int(value))

    def settings(self, **others: Any) -> dict[str, Any]:
        """Values for `Sampling.changed`."""
        names = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale")
        return {name: getattr(self, name) for name in names} | others


@dataclass
class Run:
    """A prepared call."""

    plan: Plan
    denoiser: Denoiser
    solver: Solver
    timeline: Timeline
    videos: int = 1
    num_frames: int | None = None
    """The most frames to output; None: all that the plan makes."""
    shown: np.ndarray | None = None
    """A given clip, uint8 (frames, height, width, 3), output before the new frames and counted in `num_frames`."""


class Interrupted(Exception):
    """Someone has set `pipe.interrupt`."""


def _showing(method: Callable, parameters: Mapping[str, inspect.Parameter]) -> Callable:
    """A method whose signature names these keyword arguments in place of `**arguments`."""
    own = inspect.signature(method)
    shown = {name: p for name, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
    rest = [p for name, p in parameters.items() if name not in shown]

    @functools.wraps(method)
    def call(self: Any, *given: Any, **named: Any) -> Any:
        known = inspect.signature(getattr(type(self), method.__name__)).parameters
        for name in named.keys() - known.keys():
            near = difflib.get_close_matches(name, known, 3, 0.5)
            meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join([*known][1:])}."
            raise TypeError(f"{type(self).__name__} has no argument {name!r}; {meant}")
        return method(self, *given, **named)

    call.__signature__ = own.replace(parameters=[*shown.values(), *rest])  # type: ignore[attr-defined]
    return call


class VideoPipeline(DiffusionPipeline):
    """A pipeline whose `stream` yields pieces of the video as they become clean. See the module's docstring."""

    sampling: Any
    vae: Any = None
    latent_channels: int = 3
    pixels_per_latent: int = 1
    """Height and width of a latent in pixels."""
    frames_decoded_together: int | None = None
    """Latent frames that are decoded at once; None: all that become clean together."""
    parallel_map: Map = staticmethod(one_by_one)
    """Calls the denoiser on the independent windows of a step, in threads or on devices of your choice."""
    _callback_tensor_inputs = ["latents"]

    def __init_subclass__(cls, **arguments: Any) -> None:
        """`stream` and `__call__` show the arguments of all that they pass them on to."""
        super().__init_subclass__(**arguments)
        keyword = inspect.Parameter.KEYWORD_ONLY
        shown = {f.name: inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in fields(Call)}
        for name in ("prepare", "denoiser", "embed_prompts", "encode_prompt", "stream"):
            for method in (vars(kind)[name] for kind in cls.__mro__ if name in vars(kind)):
                parameters = inspect.signature(method).parameters.values()
                for parameter in parameters:
                    if parameter.kind is keyword and parameter.default is not parameter.empty:
                        shown.setdefault(parameter.name, parameter)
                if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                    break  # what its base class takes besides, it does not
        for name in ("stream", "__call__"):
            setattr(cls, name, _showing(getattr(cls, name), shown))

    def __init__(self) -> None:
        super().__init__()
        self.register_to_config()
        self._interrupt, self._guidance_scale, self._num_timesteps = False, 1.0, 0

    @property
    def interrupt(self) -> bool:
        """Set to True (in a callback, or another thread) to end the run after the present step."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of the present or last call; a callback may set `_guidance_scale`, which holds from the
        next step on."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the next step is guided."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Steps of the present or last call; 0: endless."""
        return self._num_timesteps

    def callback_tensors(self, run: Run) -> dict[str, torch.Tensor]:
        """What `callback_on_step_end` can be given, by name; the latents are added."""
        return {}

    def take_back(self, run: Run, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on with what a callback has changed of `callback_tensors`."""

    def _register_parts(self, config: dict[str, Any] | None, **parts: Any) -> None:
        """Take the components of a model, and its configuration, which has the settings of its own."""
        self.register_modules(**parts)
        self.register_to_config(config=config)
        self.sampling = self.sampling_of(config)

    # ---------------------------------------------------------------- what a system makes its own

    def denoiser(self, prompt: Any, plan: Plan, sampling: Any, **own: Any) -> Denoiser:
        """The guided network for the shared `prepare`; own: the system's own arguments."""
        raise NotImplementedError

    @classmethod
    def sampling_of(cls, config: Mapping[str, Any] | None) -> Any:
        """The settings of a model with this configuration. Raises InputError."""
        return cls.sampling if config is None else type(cls.sampling).from_config(config)

    def solver(self, plan: Plan) -> Solver:
        """The solver of the shared `prepare`: flow matching in even steps."""
        return FlowEuler(torch.linspace(0, 1, plan.num_steps + 1))

    def to_latents(self, video: torch.Tensor) -> torch.Tensor:
        """Video (1, 3, frames, height, width) in [-1, 1] to latents (1, channels, latent frames, h, w)."""
        return video

    def to_video(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (videos, channels, latent frames, h, w) to video (videos, 3, frames, height, width) in [-1, 1]."""
        return latents

    def decodable(self, clean: Clean, run: Run) -> tuple[torch.Tensor, int]:
        """The latents to decode for final frames, and how many frames to drop from their front."""
        return run.timeline.with_prefix(clean.frames, clean.latents), 0

    def pieces(self, clean: Clean, run: Run) -> Iterator[tuple[torch.Tensor, int]]:
        """Final frames in pieces that are decoded one after the other, each as `decodable` has it."""
        latents, skip = self.decodable(clean, run)
        for part in latents.split(self.frames_decoded_together or latents.shape[2], dim=2):
            yield part, skip
            skip = 0

    @property
    def size_unit(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return self.pixels_per_latent

    def plan(self, num_frames: int | None = None, num_inference_steps: int | None = None, **own: Any) -> Plan:
        """The plan of a call with these arguments."""
        return self.sampling.plan_for(num_frames=num_frames, num_inference_steps=num_inference_steps, **own)

    def prepare(self, call: Call, **own: Any) -> Run:
        """The run of a call: given frames stay at the front, `own` goes to `denoiser`. Raises InputError."""
        size = self.size_of(call)
        sampling = self.sampling.changed(**call.settings(height=size[0], width=size[1]))
        prompts = 1 if call.prompt is None or isinstance(call.prompt, str) else len(call.prompt)
        videos = prompts * call.num_videos_per_prompt
        plan = self.plan(sampling.num_frames, sampling.num_inference_steps)
        given, prefix = frames_of(call.image, call.video), None
        if given is not None:
            prefix = self.encode_frames(resize(given, *size, call.fit)).expand(videos, -1, -1, -1, -1)
        noise = self.noise(call, videos, size)
        denoiser = self.denoiser(call.prompt, plan, sampling, **own)
        return Run(plan, denoiser, self.solver(plan), Timeline(noise, prefix), videos, sampling.num_frames)

    # ---------------------------------------------------------------- what goes in

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError if the model cannot make this size."""
        unit = self.size_unit
        if height < unit or width < unit or height % unit or width % unit:
            near = tuple(max(unit, round(x / unit) * unit) for x in (width, height))
            raise InputError(
                f"{width}x{height} is not possible: width and height must be multiples of {unit}; "
                f"the nearest size is {near[0]}x{near[1]}."
            )

    def size_of(self, call: Call) -> tuple[int, int]:
        """(height, width) in pixels: of given latents, else of the call or the model. Raises InputError."""
        height = self.sampling.height if call.height is None else call.height
        width = self.sampling.width if call.width is None else call.width
        if call.latents is not None:
            height, width = (side * self.pixels_per_latent for side in call.latents.shape[-2:])
            if (call.height or height, call.width or width) != (height, width):
                raise InputError(f"the latents make {width}x{height}; leave out height and width, or give these.")
        self.check_size(height, width)
        return height, width

    def noise(self, call: Call, videos: int, size: tuple[int, int], chunk_width: int = 1) -> Any:
        """The noise of a timeline: what is given, or fresh noise, chunk after chunk. Raises InputError."""
        device = self._execution_device
        if call.latents is not None:
            if len(call.latents) != videos:
                raise InputError(f"there are latents of {len(call.latents)} videos, but {videos} are asked for.")
            return call.latents.to(device, torch.float32)
        shape = (videos, self.latent_channels, *(side // self.pixels_per_latent for side in size))
        return ChunkNoise(shape, self.generator_of(call, videos), device, chunk_width)

    def generator_of(self, call: Call, videos: int) -> Generators:
        """The generator of a call, or a fresh one. Raises InputError unless there is one, or one a video."""
        count = len(as_list(call.generator))
        if count not in (0, 1, videos):
            raise InputError(f"there are {count} generators, but {videos} videos; give one, or one each.")
        return fresh_generator() if call.generator is None else call.generator

    def encode_frames(self, frames: np.ndarray) -> torch.Tensor:
        """Pixels uint8 (frames, height, width, 3) to latents (1, channels, latent frames, h, w). Raises InputError."""
        if self._without_autoencoder:
            raise InputError("this pipeline has no autoencoder; it cannot read pictures, but it can be given latents.")
        video = torch.tensor(frames).permute(3, 0, 1, 2)[None].to(self._execution_device, self._pixel_dtype)
        return self.to_latents(video / 127.5 - 1)

    def decode_frames(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (videos, channels, latent frames, h, w) to pixels (videos, frames, 3, height, width) in [0, 1]."""
        return (self.to_video(latents).float() / 2 + 0.5).clamp(0, 1).transpose(1, 2)

    @property
    def _without_autoencoder(self) -> bool:
        return "vae" in self.config and self.vae is None

    @property
    def _pixel_dtype(self) -> torch.dtype:
        return torch.float32 if self.vae is None else self.vae.dtype

    def enable_vae_tiling(self, **tile: Any) -> None:
        """Encode and decode in tiles, for less memory and slightly different pixels; the arguments are those of the
        autoencoder's `enable_tiling`. Raises InputError."""
        if self.vae is None:
            raise InputError("this pipeline has no autoencoder that could work in tiles.")
        self.vae.enable_tiling(**tile)

    def disable_vae_tiling(self) -> None:
        """Encode and decode without tiles again."""
        if self.vae is not None:
            self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Encode and decode one picture (one video) at a time. Raises InputError."""
        if self.vae is None:
            raise InputError("this pipeline has no autoencoder that could work in slices.")
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Encode and decode all at once again."""
        if self.vae is not None:
            self.vae.disable_slicing()

    @contextlib.contextmanager
    def using_loras(self, *loras: Any, **named: Any) -> Iterator[None]:
        """Inside, these LoRAs (name or file -> weight) are in place. Raises InputError: this system takes none."""
        if any(loras) or named.get("loras"):
            raise InputError("this model takes no LoRA; leave it out.")
        yield

    # ---------------------------------------------------------------- the work

    @torch.no_grad()
    def stream(
        self,
        prompt: Any = None,
        *,
        output_type: str = "pil",
        on_progress: Callable[[Progress], None] | None = None,
        on_preview: Callable[[Callable[[], np.ndarray]], None] | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        resume: RunFolder | None = None,
        **arguments: Any,
    ) -> Iterator[Chunk]:
        """Yield pieces of the video as they become clean. The arguments are also those of `Call` and `prepare`.

        Args:
            output_type: "pil", "np", "pt" or "latent".
            on_progress: called after every step.
            on_preview: called after every step with a function that decodes the frames in work, uint8 (frames, height,
                width, 3).
            callback_on_step_end: as in diffusers, a function or an object of `diffusers.callbacks`: (pipe, step,
                timestep, tensors by name) -> those that are changed. It may set `_guidance_scale` and `interrupt`.
            callback_on_step_end_tensor_inputs: which tensors it is given.
            resume: where the run is saved, and continued from if it was begun.

        Raises: InputError.
        """
        check_output_type(output_type)
        wanted = getattr(callback_on_step_end, "tensor_inputs", callback_on_step_end_tensor_inputs)
        if unknown := sorted(set(wanted) - set(self._callback_tensor_inputs)):
            known = ", ".join(self._callback_tensor_inputs)
            raise InputError(f"callback_on_step_end_tensor_inputs can only be {known}, not {unknown[0]}.")
        if self._without_autoencoder and output_type != "latent":
            raise InputError("this pipeline has no autoencoder; ask for output_type='latent'.")
        shared = {field.name: arguments.pop(field.name) for field in fields(Call) if field.name in arguments}
        run = self.prepare(Call(prompt, **shared), **arguments)
        self._num_timesteps = run.plan.total_steps or 0
        self._guidance_scale = getattr(run.denoiser, "scale", 1.0)

        def on_step(progress: Progress) -> None:
            frames = progress.plan_step.span
            if callback_on_step_end is not None:
                level = min(level for window in progress.plan_step.windows for level in window.levels)
                inputs = {"latents": run.timeline.state(frames)} | self.callback_tensors(run)
                inputs = {name: inputs[name] for name in wanted}
                answer = callback_on_step_end(self, progress.step - 1, run.solver.timesteps[level], dict(inputs)) or {}
                changed = {name: answer[name] for name in answer if answer[name] is not inputs.get(name)}
                if "latents" in changed:
                    run.timeline.write(frames, changed.pop("latents"))
                elif "latents" in answer:  # which may have been changed in place
                    run.timeline.write(frames, answer["latents"])
                self.take_back(run, changed)
                if hasattr(run.denoiser, "scale"):
                    run.denoiser.scale = max(self._guidance_scale, 1.0)  # below: not guided, as in diffusers
            final = len(progress.plan_step.clean) > 0
            if resume is not None and not final:
                resume.save_if_due(sampler.state_dict)
            if on_preview is not None:
                on_preview(lambda: to_bytes(self.decode_frames(run.timeline.read(frames)[:1])[0]))
            if on_progress is not None:
                on_progress(progress)
            if self.interrupt and not final:  # final frames are output first
                raise Interrupted

        parts = (run.plan, run.denoiser, run.solver, run.timeline)
        sampler = Sampler(*parts, parallel_map=self.parallel_map, on_step=on_step)
        self.interrupt = False
        with contextlib.suppress(Interrupted):
            yield from self._output(run, self._clean(sampler, resume), output_type)
        self.maybe_free_model_hooks()

    def _clean(self, sampler: Sampler, resume: RunFolder | None) -> Iterator[Clean]:
        """Final latents, those of an interrupted run first; each is saved before it is output."""
        if resume is None:
            yield from sampler.run()
            return
        state, done = resume.load(self._execution_device)
        if state is not None:
            self.restore(sampler, state)
        yield from done
        for clean in sampler.run():
            resume.save_clean(clean, sampler.state_dict())
            yield clean

    def restore(self, sampler: Sampler, state: dict[str, torch.Tensor]) -> None:
        """Continue from a saved state."""
        sampler.load_state_dict(state)

    def _output(self, run: Run, cleans: Iterator[Clean], output_type: str) -> Iterator[Chunk]:
        """Final latents as pixels, after the given clip, cut to the number of frames."""
        start, fps = 0, self.sampling.fps
        if run.shown is not None and output_type != "latent":
            given = torch.from_numpy(run.shown[None, : run.num_frames]).permute(0, 1, 4, 2, 3).float() / 255
            yield Chunk(in_form(given.repeat(run.videos, 1, 1, 1, 1), output_type), 0, fps, run.timeline.prefix)
            start = len(run.shown)
        for clean in cleans:
            if output_type == "latent":
                yield Chunk(clean.latents, clean.frames.start, fps)
            else:
                for part, skip in self.pieces(clean, run):
                    left = None if run.num_frames is None else run.num_frames - start
                    pixels = self.decode_frames(part)[:, skip:][:, :left]
                    yield Chunk(in_form(pixels, output_type), start, fps, part, skip)
                    start += pixels.shape[1]
                    if start == run.num_frames:
                        return
            if self.interrupt:
                return

    def __call__(self, prompt: Any = None, *, return_dict: bool = True, **arguments: Any) -> Any:
        """The whole video, a `VideoOutput`; the arguments are those of `stream`. Raises InputError."""
        if arguments.get("endless"):
            raise InputError("an endless video cannot be returned as a whole; use stream().")
        report = arguments.pop("on_progress", None)
        bar = None

        def on_progress(progress: Progress) -> None:
            nonlocal bar
            bar = bar or self.progress_bar(total=progress.total_steps)
            bar.update(progress.step - bar.n)
            if report is not None:
                report(progress)

        try:
            # Without their latents, which would fill the device as the video grows.
            chunks = [replace(one, latents=None) for one in self.stream(prompt, on_progress=on_progress, **arguments)]
        finally:
            if bar is not None:
                bar.close()
        frames = joined(chunks, arguments.get("output_type", "pil"))
        return VideoOutput(frames=frames, fps=self.sampling.fps) if return_dict else (frames,)
