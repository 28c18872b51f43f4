"""The schedulers of diffusers as solvers, for plans whose frames are all at one level."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CheckpointError, InputError
from .noise import Generators, as_list, fresh_generator
from .solver import Solver

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

_DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++_2m": ("DPMSolverMultistepScheduler", _DPM),
    "dpm++_2m_karras": ("DPMSolverMultistepScheduler", {**_DPM, "use_karras_sigmas": True}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Short name -> class in diffusers, and the settings that make the name."""
_ANIMATEDIFF = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "steps_offset": 1,
    "clip_sample": False,
}


def build_scheduler(name: str, base: SchedulerMixin | None = None, **config: Any) -> SchedulerMixin:
    """A scheduler of diffusers by its short name, a key of `SCHEDULERS`.

    base: where settings of the training (betas, prediction type, ...) come from; None: AnimateDiff's linear betas.
    config: settings of the scheduler that win over all others, such as `timestep_spacing="trailing"` (Lightning).
    Raises: InputError for an unknown name or setting, and for a value that the scheduler refuses.
    """
    if name not in SCHEDULERS:
        raise InputError(f"scheduler {name!r} is unknown; choose one of {', '.join(SCHEDULERS)}.")
    import diffusers  # here: it takes seconds, and plans and our own solvers do without

    class_name, fixed = SCHEDULERS[name]
    cls = getattr(diffusers, class_name)
    known = set(inspect.signature(cls).parameters)
    if unknown := sorted(set(config) - known):
        raise InputError(f"scheduler {name} has no setting {', '.join(unknown)}; it knows {', '.join(sorted(known))}.")
    if base is None:
        config = {key: value for key, value in _ANIMATEDIFF.items() if key in known} | fixed | config
    try:
        return cls(**config) if base is None else cls.from_config(base.config, **(fixed | config))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise InputError(f"scheduler {name} cannot be made so: {error}") from error


class SchedulerSolver(Solver):
    """Any scheduler of diffusers, stepped once a step of the plan, for all frames of the timeline together.

    A level is an index into `timesteps`. Some schedulers remember earlier predictions (DPM++, UniPC, PNDM), some draw
    noise (Euler a, LCM); both belong to `state_dict`, so a resumed run gives the same numbers.

    Args:
        scheduler: it is copied; the caller's stays as it is.
        num_steps: inference steps of the whole schedule. The attribute of this name counts the levels, which are fewer
            below strength 1 and more where a scheduler calls the network several times a step (PNDM, Heun).
        generator: of the noise that ancestral and LCM steps add. None: a fresh one.
        strength: share of the schedule that is run, in (0, 1]: below 1 the first steps are left out and the run begins
            from `add_noise(clean, noise)`, as in image and video to video.
        eta: how much noise DDIM adds in every step, 0 to 1; others have no such argument.

    Raises: InputError for a number of steps that the scheduler refuses, a strength that leaves no step, and, when it is
    run, for a plan whose frames are not all at the same level.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        num_steps: int,
        generator: Generators = None,
        strength: float = 1.0,
        eta: float = 0.0,
    ):
        if num_steps < 1:
            raise InputError(f"the number of steps must be at least 1, not {num_steps}.")
        if not 0 < strength <= 1:
            raise InputError(f"strength must be above 0 and at most 1, not {strength}.")
        if int(num_steps * strength) < 1:
            raise InputError(f"strength {strength} leaves none of {num_steps} steps; raise one of them.")
        self.scheduler, self.generator = copy.deepcopy(scheduler), generator or fresh_generator()
        takes = inspect.signature(self.scheduler.step).parameters
        if eta and "eta" not in takes:
            raise InputError(f"{type(scheduler).__name__} adds no noise by eta; leave it out, or take DDIMScheduler.")
        self._step_arguments: dict[str, Any] = {"eta": eta} if eta else {}
        if "generator" in takes:
            self._step_arguments["generator"] = self.generator
        self._inference_steps = num_steps
        self._begin = (num_steps - int(num_steps * strength)) * getattr(scheduler, "order", 1)
        self._restart()
        self.timesteps = self.scheduler.timesteps[self._begin :]
        self.num_steps = len(self.timesteps)

    def _restart(self) -> None:
        try:
            self.scheduler.set_timesteps(self._inference_steps)
        except (TypeError, ValueError) as error:
            name = type(self.scheduler).__name__
            raise InputError(f"{name} cannot make {self._inference_steps} steps: {error}") from error
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(self._begin)
        self._level = 0  # the one that comes next
        # Lists are filled in place.
        self._fresh = {k: list(v) if isinstance(v, list) else v for k, v in vars(self.scheduler).items()}

    def initial_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise of variance 1 -> latents at level 0 (of a run with strength 1)."""
        return noise * self.scheduler.init_noise_sigma

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, level: int = 0) -> torch.Tensor:
        """Clean latents and noise of variance 1 (batch, channels, frames, h, w) -> latents at `level`."""
        scheduler = copy.copy(self.scheduler)  # the step that this one has reached must stay
        if hasattr(scheduler, "set_begin_index"):
            scheduler._step_index = None
            scheduler.set_begin_index(self._begin + level)
        return scheduler.add_noise(clean, noise, self.timesteps[level].expand(clean.shape[0]))

    def share(self, level: int) -> tuple[float, float]:
        """Which part of the steps a level is: (from, to) in 0..1."""
        return level / self.num_steps, (level + 1) / self.num_steps

    def begin(self, noise: torch.Tensor, clean: torch.Tensor | None = None) -> torch.Tensor:
        """The latents that a run begins with: noise of variance 1, or clean latents under it (see strength)."""
        return self.initial_noise(noise) if clean is None else self.add_noise(clean, noise)

    def model_input(self, latents: torch.Tensor, level: int) -> torch.Tensor:
        """The network's input at the level that is due; its windows may come in any order."""
        return self.scheduler.scale_model_input(latents, self.timesteps[level])

    def step(self, latents: torch.Tensor, prediction: torch.Tensor, levels: Sequence[int]) -> torch.Tensor:
        """One step of all frames of the timeline, from the level that is due to the next."""
        if set(levels) != {self._level}:
            given = ", ".join(str(level) for level in sorted(set(levels)))
            raise InputError(
                f"a scheduler takes all frames through its levels together, and level {self._level} is due, not "
                f"{given}; choose WholeClip or OverlappingWindows."
            )
        timestep = self.timesteps[self._level]
        moved = self.scheduler.step(prediction, timestep, latents, return_dict=False, **self._step_arguments)[0]
        self._level += 1
        return moved

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The scheduler's memory: everything that has changed in it since the first step."""
        tensors: list[torch.Tensor] = []

        def packed(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                tensors.append(value.clone())
                return {"tensor": len(tensors) - 1}
            return [packed(item) for item in value] if isinstance(value, list) else value

        changed = {
            key: packed(value)
            for key, value in vars(self.scheduler).items()
            if isinstance(value, list) or value is not self._fresh.get(key)
        }
        note = json.dumps({"level": self._level, "scheduler": changed}).encode()
        state = {"note": torch.tensor(list(note), dtype=torch.uint8)}
        state |= {f"tensor.{i}": tensor for i, tensor in enumerate(tensors)}
        return state | {f"noise.{i}": generator.get_state() for i, generator in enumerate(as_list(self.generator))}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state`. Raises CheckpointError if it is of another number of generators."""
        generators = as_list(self.generator)
        if (saved := sum(key.startswith("noise.") for key in state)) != len(generators):
            raise CheckpointError(f"the saved run has {saved} generators, this one {len(generators)}.")

        def unpacked(value: Any) -> Any:
            if isinstance(value, dict):
                return state[f"tensor.{value['tensor']}"].clone()
            return [unpacked(item) for item in value] if isinstance(value, list) else value

        note = json.loads(bytes(state["note"].tolist()))
        self._restart()
        for key, value in note["scheduler"].items():
            setattr(self.scheduler, key, unpacked(value))
        self._level = note["level"]
        for i, generator in enumerate(generators):
            generator.set_state(state[f"noise.{i}"])
