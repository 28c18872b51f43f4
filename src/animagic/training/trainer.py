"""The one trainer: any model, any objective, any number of processes; resumes exactly, keeps a moving average, logs."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import gather_object, set_seed
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..errors import CheckpointError, InputError, first_line
from .optimisers import optimisers
from .throughput import Throughput

LOCK = "training.lock"
"""In the folder of a training: held while a process trains there."""
STATES = ("state.pt", "state.previous.pt")
"""In the folder of a training: its state, and that of the save before."""

FILES = (LOCK, *STATES, "average.safetensors", "log.jsonl", "loss.png", "*.new")
"""All that a training leaves there."""


class Objective(Protocol):
    """The loss of a batch, which training makes small, and named values for the log: numbers, or tensors of one."""

    def __call__(
        self, model: nn.Module, batch: dict, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, Any]]: ...


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The learning rate warms up, stays, and falls linearly to zero over the last `decay` steps."""

    steps: int
    learning_rate: float = 5e-4
    warmup: int = 200
    decay: int = 1000
    weight_decay: float = 0.01
    optimiser: str = "adamw"
    """"adamw", or "muon" (orthogonalised momentum, arXiv 2502.16982) for the matrices of the repeated blocks."""
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    workers: int = 1
    log_every: int = 20
    save_every: int = 250
    precision: str = "auto"
    """"auto": bfloat16 on a GPU that has it, else float32; or "fp32", "bf16"."""

    def __post_init__(self):
        if self.steps < 1 or self.log_every < 1 or self.save_every < 1:
            raise InputError("steps, log_every and save_every must be at least 1.")
        for name, known in (("optimiser", ("adamw", "muon")), ("precision", ("auto", "fp32", "bf16"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(known)}.")

    def rate(self, step: int) -> float:
        """The learning rate as a share of its peak."""
        return min(1.0, (step + 1) / max(1, self.warmup), (self.steps - step) / max(1, self.decay))


def processes() -> PartialState:
    """The processes that train together, started by torchrun or `accelerate launch`; most often one."""
    # Without a GPU, accelerate makes them one only if it is told at the first call.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=several and not torch.cuda.is_available())


def _mixed_precision(precision: str) -> str:
    # bfloat16 only where the device really has it: some CPUs die of it ("Illegal instruction").
    good = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if precision == "bf16" and not good:
        raise InputError("this device has no bfloat16; choose precision fp32 or auto.")
    return "bf16" if good and precision != "fp32" else "no"


class _Loss(nn.Module):
    """A model and its objective as one network whose output is the loss: what several processes share is its gradient,
    whichever parts and methods of the model the objective calls."""

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.objective(self.model, batch, generator)


class Trainer:
    """Trains `model` in `folder`, which holds state.pt (all that is needed to go on; state.previous.pt is that of the
    save before), average.safetensors, log.jsonl and loss.png.

    Args:
        batches: item i is the i-th batch, a function of i alone. Of N processes (started by `accelerate launch` or
            torchrun), number r takes item step * N + r; together they make the step of one process with all N batches.
        folder: if it holds a checkpoint, training goes on from there. Only the main process writes.
        on_log: called with every log line, in the main process.

    Interrupted at any time, a run that is started again gives the same weights as one that was never interrupted,
    up to the steps since the last save. Only one process, or group of processes, trains in a folder at a time.

    Raises: InputError where another one trains in the folder; CheckpointError if what is there cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Dataset,
        config: TrainingConfig,
        folder: str | Path,
        on_log: Callable[[dict], None] | None = None,
    ):
        self.config, self.model, self.batches, self.on_log = config, model, batches, on_log
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / LOCK, timeout=0)  # the system frees it when the process dies
        processes()
        self.accelerator = Accelerator(
            mixed_precision=_mixed_precision(config.precision),
            # A batch may leave a part out, such as the null caption.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        set_seed(config.seed, device_specific=True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False).to(self.accelerator.device)
        loss = _Loss(model, objective)
        settings = (config.optimiser, config.learning_rate, config.weight_decay, config.betas)
        self._loss, *self.optimisers = self.accelerator.prepare(loss, *optimisers(model, *settings))
        self.step, self.samples, self.pflop = 0, 0, 0.0
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32
        self._throughput = Throughput(self.accelerator.device, dtype)
        with self._alone():
            self._load()

    @property
    def finished(self) -> bool:
        """Whether every step has been made."""
        return self.step >= self.config.steps

    def run(self, on_save: Callable[[int], None] | None = None, stop: Callable[[], bool] | None = None) -> nn.Module:
        """Train to the end; returns the moving average of the model.

        Args:
            on_save: called in the main process after every save, with the step that is now on disk.
            stop: asked after every step, such as `threading.Event().is_set`; if it says yes (to any process), the run
                is logged and saved there, and ends early: see `finished`.
        """
        with self._alone():
            return self._run(on_save, stop)

    def _run(self, on_save: Callable[[int], None] | None, stop: Callable[[], bool] | None) -> nn.Module:
        config, device = self.config, self.accelerator.device
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        items = range(self.step * processes + rank, config.steps * processes, processes)
        ahead = 2 if config.workers else None
        loader = DataLoader(
            Subset(self.batches, items), batch_size=None, num_workers=config.workers, prefetch_factor=ahead
        )
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.model.train()
        sums: dict[str, list[Any]] = {}
        count, began = 0, time.monotonic()
        for item, batch in zip(items, loader, strict=True):
            # Each batch has its own randomness, so that a resumed run repeats it.
            generator = torch.Generator(device).manual_seed(config.seed * 1_000_003 + item)
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * config.rate(self.step)
            with contextlib.nullcontext() if sums else self._throughput.count():  # the first step of every line
                loss, values = self._loss(batch, generator)
                self.accelerator.backward(loss)
            norm = self.accelerator.clip_grad_norm_(parameters, config.gradient_clip)
            mean_loss = self.accelerator.reduce(loss.detach(), "mean")  # the same everywhere: all go on, or none
            # Before the weights are touched: what is saved must always be usable.
            if not math.isfinite(mean_loss + norm):
                raise FloatingPointError(
                    f"step {self.step + 1}: loss or gradient is not finite; lower the learning rate"
                )
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad()
            self._update_average()
            self.step += 1
            self.samples += processes * _size(batch)
            self.pflop += processes * self._throughput.flop / 1e15

            for name, value in {"loss": mean_loss, "gradient_norm": norm, **values}.items():
                sums.setdefault(name, []).append(value)
            count += 1
            last = self.finished or (stop is not None and self._any(stop()))
            if self.step % config.log_every == 0 or last:
                self._log(sums, (time.monotonic() - began) / count)
                sums, count, began = {}, 0, time.monotonic()
            if self.step % config.save_every == 0 or last:
                saving = time.monotonic()
                self.save()
                if on_save is not None and self.accelerator.is_main_process:
                    on_save(self.step)
                began += time.monotonic() - saving
            if last:
                break
        return self.average

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process trains in the folder."""
        if not self.accelerator.is_main_process:
            yield
            return
        try:
            self._lock.acquire()
        except Timeout as error:
            raise InputError(
                f"{self.folder} is being trained in by another process; wait, or stop that one."
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    def _any(self, here: bool) -> bool:
        """Whether it is so in any process: all go on, or none."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.accelerator.device), "sum") > 0)

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, so that the average is useful early.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        averages, currents = zip(*((average, now) for average, now in pairs if now.requires_grad), strict=True)
        torch._foreach_lerp_(averages, currents, 1 - decay)

    def _log(self, sums: dict[str, list[Any]], seconds: float) -> None:
        # What is no number had no sample in that step.
        here = {name: [x for x in map(float, values) if not math.isnan(x)] for name, values in sums.items()}
        everyone: list[dict[str, list[float]]] = gather_object([here])
        if not self.accelerator.is_main_process:
            return
        line: dict[str, float] = {"step": self.step}
        for name in here | {name: [] for one in everyone for name in one}:
            if values := [value for one in everyone for value in one.get(name, ())]:
                line[name] = round(sum(values) / len(values), 6)
        figures = {"seconds_per_step": seconds, "samples": self.samples, "pflop": self.pflop}
        for name, value in (figures | self._throughput.figures(seconds)).items():
            line[name] = value if isinstance(value, int) else float(f"{value:.4g}")
        with open(self.folder / "log.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        if self.on_log is not None:
            self.on_log(line)

    def save(self) -> None:
        """Write what is needed to go on; whatever happens in between, one whole checkpoint is on the disk."""
        if self.accelerator.is_main_process:
            average = {k: v.contiguous().cpu() for k, v in self.average.state_dict().items()}
            state = {
                "step": self.step,
                "samples": self.samples,
                "pflop": self.pflop,
                "config": asdict(self.config),
                "model": self.model.state_dict(),
                "average": average,  # again: the two files are not replaced in one instant
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            }
            _replace(self.folder / "average.safetensors", lambda new: save_file(average, new))
            _replace(self._states[0], lambda new: torch.save(state, new), keep=self._states[1])
            with contextlib.suppress(ImportError):  # a courtesy: training must not end for want of matplotlib
                plot_log(self.folder / "log.jsonl", self.folder / "loss.png")
        self.accelerator.wait_for_everyone()

    @property
    def _states(self) -> tuple[Path, Path]:
        """Where the state is saved, and the one before it."""
        return self.folder / STATES[0], self.folder / STATES[1]

    def _load(self) -> None:
        """Go on from what is saved, if anything is."""
        if self.accelerator.is_main_process:
            for left in self.folder.glob("*.new"):  # by a process that died while it wrote
                left.unlink()
        state = self._read_state()
        if state is not None:
            try:
                self.model.load_state_dict(state["model"])
                self.average.load_state_dict(state["average"])
                if state["optimisers"] is not None:  # else it was restored from what was kept
                    for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                        optimiser.load_state_dict(saved)
                self.step = state["step"]
            except (RuntimeError, KeyError, ValueError) as error:
                path = self._states[0]
                raise CheckpointError(f"{path} does not fit this recipe ({error}); give another folder.") from error
            self.samples, self.pflop = state.get("samples", 0), state.get("pflop", 0.0)
        log = self.folder / "log.jsonl"
        if log.exists() and self.accelerator.is_main_process:  # lines after the save will be written again
            lines = [json.dumps(line) + "\n" for line in read_log(log) if line["step"] <= self.step]
            _replace(log, lambda new: new.write_text("".join(lines)))

    def _read_state(self) -> dict[str, Any] | None:
        """The newest state that is whole; None: nothing was saved."""
        found = [path for path in self._states if path.exists()]
        for path in found:
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
                warnings.warn(f"{path} is damaged ({first_line(error)}).", stacklevel=4)
        if found:
            raise CheckpointError(f"{found[0]} is damaged, and there is no other; remove it to start anew.")
        return None


def keep(folder: Path, file: Path) -> None:
    """Write what a training has reached into a file: its moving average in float16, and how far it is."""
    state = torch.load(folder / STATES[0], map_location="cpu", weights_only=True, mmap=True)
    figures = {name: state[name] for name in ("step", "samples", "pflop")}
    average = {name: x.half() if x.is_floating_point() else x.clone() for name, x in state["average"].items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    _replace(file, lambda new: save_file(average, new, {"training": json.dumps(figures)}))


def restore(file: Path, folder: Path) -> None:
    """Let a training go on from a file of `keep`, if there is one and its folder holds nothing."""
    if not file.exists() or any((folder / name).exists() for name in STATES):
        return
    with safe_open(file, "pt") as kept:
        figures = json.loads(kept.metadata()["training"])
        average = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - not a dict
    average = {name: x.float() if x.is_floating_point() else x for name, x in average.items()}
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "average.safetensors", lambda new: save_file(average, new))
    state = figures | {"model": average, "average": average, "optimisers": None}
    _replace(folder / STATES[0], lambda new: torch.save(state, new))


def _replace(path: Path, write: Callable[[Path], object], keep: Path | None = None) -> None:
    """Write a file anew: a crash of the process or the machine leaves the old one or the new one, whole. The old one is
    kept under the name `keep`."""
    new = path.with_suffix(".new")
    write(new)
    with open(new, "rb+") as file:
        os.fsync(file.fileno())
    if keep is not None and path.exists():
        path.replace(keep)
    new.replace(path)


def _size(batch: dict) -> int:
    """The samples of a batch: the length of the first tensor or list in it."""
    return next((len(value) for value in batch.values() if isinstance(value, (torch.Tensor, list))), 0)


def read_log(log: Path) -> list[dict]:
    """The lines of a log; a last one that was torn by a crash is left out."""
    lines = []
    for text in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def plot_log(log: Path, picture: Path) -> None:
    """Draw the loss over the steps. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = read_log(log) if log.exists() else []
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot([x["step"] for x in lines], [x["loss"] for x in lines])
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
