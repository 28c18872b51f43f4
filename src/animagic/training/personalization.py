"""A text-to-image model learns a thing or a style from a few images: DreamBooth, LoRA or textual inversion.

Only spatial layers and words learn, on the plain 2-D network, so that the result drops into the animated pipeline: no
motion module takes part. Sources: DreamBooth, arXiv 2208.12242; LoRA, arXiv 2106.09685; textual inversion,
arXiv 2208.01618.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from ..errors import InputError
from ..media import contact_sheet, read_image, read_metadata, resize, write_image
from ..media.files import atomic_path, check_writable
from ..media.keeping import RunPlace, check_apart, check_ours
from ..wording import spell
from .concepts import ConceptObjective, Encoded, PictureBatches, new_words, save, start_learning
from .recipes import RENAMED
from .text_to_image import load_text_to_image
from .trainer import FILES, Trainer, TrainingConfig, processes
from .videos import read_caption

# What a field is if nothing is said; a field that stands in none of the method's rows does not go with it.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "dreambooth": {"steps": 800, "learning_rate": 5e-6, "prior_preservation": 0, "train_text_encoder": False},
    "lora": {"steps": 800, "learning_rate": 1e-4, "prior_preservation": 0, "rank": 8, "alpha": None},
    "textual-inversion": {"steps": 3000, "learning_rate": 5e-3, "token": None, "initial_word": None, "vectors": 1},
}
_AT_LEAST = {
    **dict.fromkeys(("steps", "batch_size", "save_every", "rank", "vectors", "max_snr_weight"), 1),
    **dict.fromkeys(("prior_preservation", "seed"), 0),
}
_AT_MOST = {
    "steps": 1_000_000, "save_every": 1_000_000, "batch_size": 1024, "rank": 1024, "vectors": 64,
    "max_snr_weight": 1e6, "prior_preservation": 100_000, "learning_rate": 100.0, "alpha": 1e6, "prior_weight": 1e6,
}  # fmt: skip
METHODS = tuple(_DEFAULTS)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_COLUMNS = 4  # of the contact sheet
_SHEET = "samples of"  # in its metadata
_NOTE = "run.json"
# Of an unfinished run: its pictures, and what the trainer leaves.
_FILES = (*(f"{folder}/*.png" for folder in ("before", "class", "after")), *FILES)
_SAMPLING = {"num_inference_steps": 25, "guidance_scale": 7.5}

OnProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with the stage, how much of it is done, of how much, and metrics such as the loss."""


@dataclass(frozen=True)
class Personalization:
    """The settings of a personalization. None: the default of the method.

    Args:
        pictures: a folder of 3 to 20 images, PNG, JPEG or WebP.
        method: "dreambooth" (the whole UNet), "lora" (its attention), "textual-inversion" (a new word).
        prompt: of an image without a NAME.txt beside NAME.png. Of textual inversion it has the token in it; default:
            "a picture of TOKEN".
        prior_preservation: so many images of the class, made by the model itself, keep it from forgetting; 0: none.
        class_prompt: of these: the prompt without what is new. prior_weight: how much they count.
        train_text_encoder: DreamBooth changes the text encoder, too.
        rank, alpha: of the LoRA; its change counts alpha / rank times. alpha None: as large as the rank.
        token: the new word, such as "<look>", made of `vectors` tokens, which begin as the `initial_word`, one token;
            None: as the mean of all words.
        steps, learning_rate, batch_size: of the training (the rate is constant).
        max_snr_weight: errors of noisy levels count more, SNR^-1/2 up to this; 1: all alike, as published. A style is
            decided where noise prevails, and a small model learns it sooner so.
        half: the result is stored in float16.
        save_every: steps between checkpoints.

    Raises: InputError for values that cannot be used.
    """

    pictures: str | Path
    method: str = "lora"
    prompt: str | None = None
    prior_preservation: int | None = None
    class_prompt: str | None = None
    prior_weight: float = 1.0
    train_text_encoder: bool | None = None
    rank: int | None = None
    alpha: float | None = None
    token: str | None = None
    initial_word: str | None = None
    vectors: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 1
    max_snr_weight: float = 1.0
    half: bool = False
    seed: int = 0
    save_every: int = 100

    def __post_init__(self):
        if self.method not in METHODS:
            raise InputError(f"the method {self.method!r} is unknown; choose from {', '.join(METHODS)}.")
        for method, fields in _DEFAULTS.items():
            for name in fields.keys() - _DEFAULTS[self.method].keys():
                if getattr(self, name):
                    raise InputError(f"{name.replace('_', '-')} goes with the method {method}, not with {self.method}.")
        for name, value in _DEFAULTS[self.method].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise InputError(f"{name.replace('_', ' ')} must be at least {least}, not {value}.")
        for name in ("learning_rate", "alpha", "prior_weight"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name.replace('_', ' ')} must be greater than 0, not {value}.")
        for name, most in _AT_MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise InputError(f"{name.replace('_', ' ')} must be at most {most:g}, not {spell(value)}.")
        if self.seed >= 2**32:
            raise InputError(f"seed must be less than 2^32, not {self.seed}.")
        for name in ("prompt", "class_prompt", "token", "initial_word"):
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise InputError(f"the {name.replace('_', ' ')} is empty; give words, or leave it out.")
        if bool(self.prior_preservation) != (self.class_prompt is not None):
            raise InputError("prior preservation and a class prompt go together; give both, or neither.")
        if self.method == "textual-inversion":
            if self.token is None or len(self.token.split()) != 1:
                raise InputError("textual inversion needs a token, the new word, without spaces: for example <look>.")
            if self.prompt is None:
                object.__setattr__(self, "prompt", f"a picture of {self.token}")


@dataclass(frozen=True)
class Picture:
    """A picture to learn from. pixels: uint8 (height, width, 3)."""

    path: Path
    pixels: np.ndarray
    prompt: str

    def fitted(self, size: int) -> np.ndarray:
        """Its middle, uint8 (size, size, 3). Raises InputError if it is smaller."""
        height, width = self.pixels.shape[:2]
        if min(height, width) < size:
            raise InputError(
                f"{self.path} has {width}x{height} pixels, but the model makes {size}x{size}: give a larger picture."
            )
        return resize(self.pixels, size, size)


def read_pictures(settings: Personalization) -> list[Picture]:
    """The pictures of the folder with their prompts, by name. Raises InputError, MediaError."""
    folder = Path(settings.pictures)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one with 3 to 20 pictures.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"{folder} holds no pictures; known are {', '.join(SUFFIXES)}.")
    pictures = []
    for path in paths:
        beside = path.with_suffix(".txt")
        prompt = read_caption(beside) if beside.is_file() else settings.prompt
        if not prompt:
            raise InputError(f"{path} has no caption; give a prompt for all pictures, or write {beside.name}.")
        if settings.token is not None and settings.token not in prompt.split():
            raise InputError(f"the words for {path}, {prompt!r}, lack the token {settings.token}; put it in.")
        pictures.append(Picture(path, read_image(path), prompt))
    return pictures


def work_folder(output: str | Path) -> Path:
    """Where an unfinished run lives, beside its output."""
    return Path(output).with_name(f"{Path(output).name}.unfinished")


def sheet_file(output: str | Path) -> Path:
    """The contact sheet beside an output: a row of pictures, one of the model before, one of it after."""
    return Path(output).with_name(f"{Path(output).stem}-samples.png")


def personalize(
    settings: Personalization,
    source: str | Path,
    output: str | Path,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Let a model learn from pictures.

    Args:
        source: the folder or hub id of the model, in diffusers layout; of an animated one, the 2-D part learns.
        output: what to write: for DreamBooth the folder of a whole `StableDiffusionPipeline`, else a .safetensors
            file that `load_lora_weights` or `load_textual_inversion` takes. `sheet_file(output)` shows what was learnt.
        resume: go on with the run that was interrupted, in `work_folder(output)`, if there is one; the result is then
            that of a run which never was.

    Returns: `output`. Raises: InputError, CheckpointError, MediaError.
    """
    output, report = Path(output), on_progress or (lambda *_: None)
    whole = settings.method == "dreambooth"
    if not whole and output.suffix != ".safetensors":
        raise InputError(f"{output} must end in .safetensors, for that is what {settings.method} gives.")
    check_writable(output, folder=whole)
    check_writable(sheet_file(output))
    check_apart({"folder of pictures": settings.pictures, "model": source}, {"output": output})
    check_ours(sheet_file(output), _is_sheet)
    pictures = read_pictures(settings)
    report("loading", 0, 1, {})
    state = processes()
    pipe = load_text_to_image(source).to(state.device)
    report("loading", 1, 1, {})
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels = [picture.fitted(size) for picture in pictures]
    work = work_folder(output)
    prompts = [pictures[i % len(pictures)].prompt for i in range(_COLUMNS)]
    _check_words(pipe, settings, [*(picture.prompt for picture in pictures), settings.class_prompt or ""])
    place = RunPlace(work, _FILES, _NOTE)
    with place.held() if state.is_main_process else nullcontext():
        with state.main_process_first():  # the others find its files
            _begin(place, settings, str(source), pictures, resume or not state.is_main_process)
            before = _made(pipe, prompts, work / "before", settings.seed, "pictures before", report)
            class_pictures = None
            if settings.prior_preservation:
                class_prompts = [str(settings.class_prompt)] * settings.prior_preservation
                made = _made(pipe, class_prompts, work / "class", settings.seed + _COLUMNS, "class pictures", report)
                class_pictures = Encoded(pipe, made, class_prompts)
        encoded = Encoded(pipe, pixels, [picture.prompt for picture in pictures])
        _train(pipe, settings, work, encoded, class_pictures, report)
        if state.is_main_process:
            after = _made(pipe, prompts, work / "after", settings.seed, "pictures after", report)
            rows = [pixels[i % len(pixels)] for i in range(_COLUMNS)] + before + after
            sheet = contact_sheet(np.stack(rows), columns=_COLUMNS, rows=3)
            write_image(sheet_file(output), sheet, {_SHEET: str(output)})
            with atomic_path(output, folder=whole) as path:
                save(pipe, settings, path)
    if state.is_main_process:
        place.remove()
    state.wait_for_everyone()
    return output


def _is_sheet(picture: Path) -> bool:
    return _SHEET in read_metadata(picture)


def _check_words(pipe: StableDiffusionPipeline, settings: Personalization, prompts: list[str]) -> None:
    words = new_words(pipe, settings)[0] if settings.token else []
    for prompt in prompts:
        # The tokenizer does not know new words yet; each of them is one token, as "a" is.
        text = prompt.replace(settings.token, "a " * len(words)) if settings.token else prompt
        count, most = len(pipe.tokenizer(text).input_ids), pipe.tokenizer.model_max_length
        if count > most:
            raise InputError(f"the words {prompt!r} are {count} tokens, but the model reads {most}: shorten them.")


def _begin(place: RunPlace, settings: Personalization, source: str, pictures: list[Picture], resume: bool) -> None:
    """Note what is learned in the folder of a new run, or see that it is that of the same run. Raises InputError."""
    work = place.folder
    run = {"model": source, **asdict(settings), "pictures": str(settings.pictures)}
    run["contents of the pictures"] = [
        [p.path.name, p.prompt, hashlib.sha256(p.pixels.tobytes()).hexdigest()] for p in pictures
    ]
    del run["save_every"]
    note = work / _NOTE
    if note.exists():
        if not resume:
            raise InputError(f"{work} holds an unfinished run: resume it, or remove that folder.")
        old = {RENAMED.get(name, name): value for name, value in json.loads(note.read_text("utf-8")).items()}
        changed = [name for name, value in run.items() if old.get(name) != value]
        if changed:
            name = changed[0].replace("_", " ")
            raise InputError(f"the run in {work} has other settings ({name}): give the same, or remove that folder.")
        return
    place.write(_NOTE, lambda new: new.write_text(json.dumps(run), "utf-8"))


def _made(
    pipe: StableDiffusionPipeline, prompts: list[str], folder: Path, seed: int, stage: str, report: OnProgress
) -> list[np.ndarray]:
    """A picture for each prompt, uint8 (height, width, 3); those that lie in the folder already are not made again."""
    folder.mkdir(exist_ok=True)
    pictures = []
    for i, prompt in enumerate(prompts):
        report(stage, i, len(prompts), {})
        path = folder / f"{i:05d}.png"
        if not path.exists():
            generator = torch.Generator().manual_seed(seed + i)
            image = pipe(prompt, generator=generator, output_type="np", **_SAMPLING).images[0]
            write_image(path, (image * 255).round().astype(np.uint8))
        pictures.append(read_image(path))
    report(stage, len(prompts), len(prompts), {})
    return pictures


def _train(
    pipe: StableDiffusionPipeline,
    settings: Personalization,
    work: Path,
    pictures: Encoded,
    class_pictures: Encoded | None,
    report: OnProgress,
) -> None:
    """Train, and leave the average of the weights in the networks."""
    assert settings.steps is not None
    assert settings.learning_rate is not None
    steps, learned = settings.steps, start_learning(pipe, settings)
    config = TrainingConfig(
        steps=steps,
        learning_rate=settings.learning_rate,
        warmup=0,
        decay=0,
        # A word's vector is not to be pulled to zero.
        weight_decay=0.0 if settings.method == "textual-inversion" else 0.01,
        seed=settings.seed,
        workers=0,
        log_every=min(10, steps),
        save_every=settings.save_every,
    )
    trainer = Trainer(
        learned,
        ConceptObjective(pipe, pictures, class_pictures, settings.prior_weight, settings.max_snr_weight),
        PictureBatches(
            settings.seed, steps, settings.batch_size, len(pictures.prompts), settings.prior_preservation or 0
        ),
        config,
        work,
        lambda line: report("training", line["step"], steps, line),
    )
    report("training", trainer.step, steps, {})
    average = trainer.run().state_dict()
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(average[name])
