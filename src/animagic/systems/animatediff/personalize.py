"""A text-to-image model learns a thing or a look from a few pictures: DreamBooth, LoRA or textual inversion.

Only spatial layers and words learn, on the plain 2-D network, so that the result drops into the animated pipeline: no
motion module takes part. Sources: DreamBooth, arXiv 2208.12242; LoRA, arXiv 2106.09685; textual inversion,
arXiv 2208.01618.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import CLIPTextModel, CLIPTokenizer

from ...errors import CheckpointError, InputError
from ...media import contact_sheet, read_image, resize, write_image
from ...media.files import atomic_path, check_writable
from ...training import Trainer, TrainingConfig
from ...training.data import to_unit
from .unet import AnimateDiffUNet

# What a field is if nothing is said; a field that stands in none of the method's rows does not go with it.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "dreambooth": {"steps": 800, "learning_rate": 5e-6, "prior_preservation": 0, "train_text_encoder": False},
    "lora": {"steps": 800, "learning_rate": 1e-4, "prior_preservation": 0, "rank": 8, "alpha": None},
    "textual-inversion": {"steps": 3000, "learning_rate": 5e-3, "token": None, "initial_word": None, "vectors": 1},
}
METHODS = tuple(_DEFAULTS)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_SHOWN = 4  # columns of the contact sheet
_SAMPLING = {"num_inference_steps": 25, "guidance_scale": 7.5}

OnProgress = Callable[[str, int, int, dict[str, float]], None]
"""Called with what is being done, how much of it is done, of how much, and figures such as the loss."""


@dataclass(frozen=True)
class Personalisation:
    """What is to be learnt, and how. None: what suits the method.

    Args:
        pictures: a folder of pictures (3 to 20), PNG, JPEG or WebP.
        method: "dreambooth" (the whole UNet), "lora" (its attention), "textual-inversion" (a new word).
        prompt: what a picture shows, where no NAME.txt beside NAME.png says so. For textual inversion it has the token
            in it, and is "a picture of TOKEN" if nothing is said.
        prior_preservation: so many pictures of the class, made by the model itself, keep it from forgetting; 0: none.
        class_prompt: the words for these: the prompt without what is new.
        prior_weight: how much they count.
        train_text_encoder: of DreamBooth: the text encoder learns, too.
        rank, alpha: of the LoRA; its change counts alpha / rank times. alpha None: as large as the rank.
        token: the new word, such as "<look>".
        initial_word: a word of one token with which it begins; None: the mean of all words.
        vectors: how many it stands for.
        steps, learning_rate, batch_size: of the training (the rate is constant).
        most_weight: errors of noisy levels count more, SNR^-1/2 up to this; 1: all alike, as published. A look is
            decided where noise prevails, and a small model learns it sooner so.
        half: the result is stored in float16.
        seed: of everything that is random.
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
    most_weight: float = 1.0
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
        for name in ("steps", "batch_size", "save_every", "rank", "vectors"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name.replace('_', ' ')} must be at least 1, not {value}.")
        for name in ("learning_rate", "alpha", "prior_weight"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name.replace('_', ' ')} must be greater than 0, not {value}.")
        if not 1 <= self.most_weight < math.inf:
            raise InputError(f"most weight must be at least 1, not {self.most_weight}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must lie between 0 and 2^32 - 1, not {self.seed}.")
        for name in ("prompt", "class_prompt", "token", "initial_word"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise InputError(f"the {name.replace('_', ' ')} is empty; give words, or leave it out.")
        if (self.prior_preservation or 0) < 0:
            raise InputError(f"prior preservation must be at least 0 pictures, not {self.prior_preservation}.")
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


def read_pictures(settings: Personalisation) -> list[Picture]:
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
        try:
            prompt = beside.read_text("utf-8").strip() if beside.is_file() else settings.prompt
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the caption {beside} cannot be read: {error}.") from error
        if not prompt:
            raise InputError(f"{path} has no caption; give a prompt for all pictures, or write {beside.name}.")
        if settings.token is not None and settings.token not in prompt.split():
            raise InputError(f"the words for {path}, {prompt!r}, lack the token {settings.token}; put it in.")
        pictures.append(Picture(path, read_image(path), prompt))
    return pictures


def load_base(source: str | Path) -> StableDiffusionPipeline:
    """The picture model of a folder or hub id in diffusers layout, in float32; of an animated model the 2-D part.

    Raises: CheckpointError if it cannot be loaded, InputError if it is of a kind that cannot be personalised here.
    """
    source = str(source)
    try:
        config = UNet2DConditionModel.load_config(source, subfolder="unet")
        if config.get("_class_name") == AnimateDiffUNet.__name__:
            animated = AnimateDiffUNet.from_pretrained(source, subfolder="unet")
            known = inspect.signature(UNet2DConditionModel.__init__).parameters
            unet = UNet2DConditionModel.from_config({k: v for k, v in animated.config.items() if k in known})
            unet.load_state_dict(animated.base_state_dict())
        else:
            unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet")
        if unet.config.addition_embed_type is not None or unet.config.in_channels != unet.config.out_channels:
            raise InputError(f"the model {source} is not a Stable Diffusion 1 or 2 for text alone; give one that is.")
        pipe = StableDiffusionPipeline(
            vae=AutoencoderKL.from_pretrained(source, subfolder="vae"),
            text_encoder=CLIPTextModel.from_pretrained(source, subfolder="text_encoder", dtype=torch.float32),
            tokenizer=CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"),
            unet=unet,
            scheduler=DDIMScheduler.from_pretrained(source, subfolder="scheduler"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except InputError:
        raise
    except Exception as error:  # on a damaged folder, diffusers, transformers and safetensors raise almost anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"the model {source} cannot be loaded: {reason}") from error
    if pipe.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(f"the model {source} predicts the {pipe.scheduler.config.prediction_type}, not noise.")
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class NewWords(nn.Module):
    """A text encoder's table of words with new ones behind them, which alone learn.

    vectors: (new, channels); first: the id of the first of them (a table may have rows that no word uses).
    """

    def __init__(self, table: nn.Embedding, vectors: torch.Tensor, first: int):
        super().__init__()
        self.table, self.vectors, self.first = table, nn.Parameter(vectors), first

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (...) to (..., channels)."""
        new = ids - self.first
        return torch.where((new < 0)[..., None], self.table(ids.clamp(max=self.first - 1)), self.vectors[new.clamp(0)])


def start_learning(pipe: StableDiffusionPipeline, settings: Personalisation) -> nn.ParameterDict:
    """Prepare the networks for the method; what is to learn, by name (with / for the dots). Raises InputError."""
    torch.manual_seed(settings.seed)
    if settings.method == "dreambooth":
        pipe.unet.requires_grad_(True)
        pipe.text_encoder.requires_grad_(bool(settings.train_text_encoder))
    elif settings.method == "lora":
        from peft import LoraConfig

        alpha = settings.alpha or settings.rank
        pipe.unet.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=_ATTENTION)
        )
    else:
        words, start = new_words(pipe, settings)
        first, table = len(pipe.tokenizer), pipe.text_encoder.get_input_embeddings()
        pipe.tokenizer.add_tokens(words)
        pipe.text_encoder.set_input_embeddings(NewWords(table, start.repeat(len(words), 1), first))
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    named = ((f"{part}.{name}", p) for part, module in parts.items() for name, p in module.named_parameters())
    return nn.ParameterDict({name.replace(".", "/"): p for name, p in named if p.requires_grad})


def new_words(pipe: StableDiffusionPipeline, settings: Personalisation) -> tuple[list[str], torch.Tensor]:
    """The tokens that a new word is made of, as diffusers names them, and the vector (channels,) that all begin with.

    Raises: InputError for a token that is there already, or an initial word that is not one token.
    """
    assert settings.token is not None
    assert settings.vectors is not None
    tokenizer, table = pipe.tokenizer, pipe.text_encoder.get_input_embeddings()
    if len(tokenizer.tokenize(settings.token)) == 1:
        raise InputError(f"the tokenizer knows {settings.token} already; choose another token, such as <my-look>.")
    words = [settings.token, *(f"{settings.token}_{i}" for i in range(1, settings.vectors))]
    if settings.initial_word is None:
        return words, table.weight.detach().mean(0)
    ids = tokenizer(settings.initial_word, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise InputError(f"the initial word {settings.initial_word!r} is {len(ids)} tokens; choose a simpler one.")
    return words, table.weight.detach()[ids[0]]


@dataclass(frozen=True)
class PictureBatches(Dataset):
    """Which pictures a step learns from: item `step` is {"pictures": numbers (size,), "class": numbers or empty}."""

    seed: int
    steps: int
    size: int
    pictures: int
    class_pictures: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        counts = {"pictures": self.pictures, "class": self.class_pictures}
        return {
            name: torch.from_numpy(rng.integers(count, size=self.size)) if count else torch.empty(0, dtype=torch.long)
            for name, count in counts.items()
        }


class Encoded:
    """Pictures as the autoencoder sees them, made once: means and standard deviations (n, channels, h, w); prompts."""

    @torch.no_grad()
    def __init__(self, pipe: StableDiffusionPipeline, pixels: list[np.ndarray], prompts: list[str]):
        self.prompts, self.scale = prompts, pipe.vae.config.scaling_factor
        pictures = [to_unit(torch.from_numpy(p)[None].permute(0, 3, 1, 2).to(pipe.device)) for p in pixels]
        posteriors = [pipe.vae.encode(picture).latent_dist for picture in pictures]
        self.mean = torch.cat([posterior.mean for posterior in posteriors])
        self.std = torch.cat([posterior.std for posterior in posteriors])

    def draw(self, which: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
        """Latents (size, channels, h, w) of some pictures, and their prompts."""
        mean, std = self.mean[which.to(self.mean.device)], self.std[which.to(self.std.device)]
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return (mean + std * noise) * self.scale, [self.prompts[i] for i in which.tolist()]


@dataclass
class DenoisingObjective:
    """The error of the predicted noise (or velocity), of the pictures and, as far as there are any, of the class.

    What learns are parameters of `pipe` itself, so the model of the trainer is only their list.
    """

    pipe: StableDiffusionPipeline
    pictures: Encoded
    class_pictures: Encoded | None = None
    prior_weight: float = 1.0
    most_weight: float = 1.0

    def __post_init__(self):
        self.schedule = DDPMScheduler.from_config(self.pipe.scheduler.config)

    def __call__(self, model: Any, batch: dict, generator: torch.Generator):
        latents, prompts = self.pictures.draw(batch["pictures"], generator)
        given = len(latents)
        if self.class_pictures is not None:
            more, class_prompts = self.class_pictures.draw(batch["class"], generator)
            latents, prompts = torch.cat([latents, more]), prompts + class_prompts
        device, size = latents.device, len(latents)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        times = torch.randint(self.schedule.config.num_train_timesteps, (size,), generator=generator, device=device)
        text, _ = self.pipe.encode_prompt(prompts, device, 1, do_classifier_free_guidance=False)
        predicted = self.pipe.unet(self.schedule.add_noise(latents, noise, times), times, text).sample
        velocity = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, times) if velocity else noise
        kept = self.schedule.alphas_cumprod.to(device)[times]
        weight = ((1 - kept) / kept).sqrt().clamp(1 / self.most_weight, self.most_weight)
        error = weight * F.mse_loss(predicted.float(), target, reduction="none").mean(dim=(1, 2, 3))
        loss, figures = error[:given].mean(), {"picture_loss": float(error[:given].detach().mean())}
        if size > given:
            loss = loss + self.prior_weight * error[given:].mean()
            figures["class_loss"] = float(error[given:].detach().mean())
        return loss, figures


def work_folder(output: str | Path) -> Path:
    """Where an unfinished run lives, beside its output."""
    return Path(output).with_name(f"{Path(output).name}.unfinished")


def sheet_file(output: str | Path) -> Path:
    """The contact sheet beside an output: a row of pictures, one of the model before, one of it after."""
    return Path(output).with_name(f"{Path(output).stem}-samples.png")


def personalize(
    settings: Personalisation,
    source: str | Path,
    output: str | Path,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Let a model learn from pictures.

    Args:
        settings: what, and how.
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
    pictures = read_pictures(settings)
    report("loading", 0, 1, {})
    pipe = load_base(source).to(PartialState().device)
    report("loading", 1, 1, {})
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels = [picture.fitted(size) for picture in pictures]
    work = work_folder(output)
    shown = [pictures[i % len(pictures)].prompt for i in range(_SHOWN)]
    _check_words(pipe, settings, [*(picture.prompt for picture in pictures), settings.class_prompt or ""])
    _begin(work, settings, str(source), pictures, resume)

    before = _made(pipe, shown, work / "before", settings.seed, "pictures before", report)
    class_pictures = None
    if settings.prior_preservation:
        class_prompts = [str(settings.class_prompt)] * settings.prior_preservation
        made = _made(pipe, class_prompts, work / "class", settings.seed + _SHOWN, "class pictures", report)
        class_pictures = Encoded(pipe, made, class_prompts)
    encoded = Encoded(pipe, pixels, [picture.prompt for picture in pictures])
    _train(pipe, settings, work, encoded, class_pictures, report)
    after = _made(pipe, shown, work / "after", settings.seed, "pictures after", report)

    rows = [pixels[i % len(pixels)] for i in range(_SHOWN)] + before + after
    write_image(sheet_file(output), contact_sheet(np.stack(rows), columns=_SHOWN, rows=3))
    with atomic_path(output, folder=whole) as path:
        _save(pipe, settings, path)
    shutil.rmtree(work)
    return output


def _check_words(pipe: StableDiffusionPipeline, settings: Personalisation, prompts: list[str]) -> None:
    words = new_words(pipe, settings)[0] if settings.token else []
    for prompt in prompts:
        # The tokenizer does not know new words yet; each of them is one token, as "a" is.
        text = prompt.replace(settings.token, "a " * len(words)) if settings.token else prompt
        count, most = len(pipe.tokenizer(text).input_ids), pipe.tokenizer.model_max_length
        if count > most:
            raise InputError(f"the words {prompt!r} are {count} tokens, but the model reads {most}: shorten them.")


def _begin(work: Path, settings: Personalisation, source: str, pictures: list[Picture], resume: bool) -> None:
    """Make the folder of a new run, or see that the one there is of the same run. Raises InputError."""
    run = {"model": source, **asdict(settings), "pictures": str(settings.pictures)}
    run["contents of the pictures"] = [
        [p.path.name, p.prompt, hashlib.sha256(p.pixels.tobytes()).hexdigest()] for p in pictures
    ]
    del run["save_every"]
    note = work / "run.json"
    if note.exists():
        if not resume:
            raise InputError(f"{work} holds an unfinished run: resume it, or remove that folder.")
        old = json.loads(note.read_text("utf-8"))
        changed = [name for name, value in run.items() if old.get(name) != value]
        if changed:
            name = changed[0].replace("_", " ")
            raise InputError(f"the run in {work} has other settings ({name}): give the same, or remove that folder.")
        return
    work.mkdir(exist_ok=True)
    with atomic_path(note) as path:
        path.write_text(json.dumps(run), "utf-8")


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
    settings: Personalisation,
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
        DenoisingObjective(pipe, pictures, class_pictures, settings.prior_weight, settings.most_weight),
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


def _save(pipe: StableDiffusionPipeline, settings: Personalisation, path: Path) -> None:
    if settings.method == "dreambooth":
        for part in (pipe.unet, pipe.vae, pipe.text_encoder) if settings.half else ():
            part.half()
        pipe.save_pretrained(path)
        return
    if settings.method == "lora":
        from peft import get_peft_model_state_dict

        assert settings.rank is not None
        # Its strength goes into the second factor: not every reader knows of alpha.
        scale = (settings.alpha or settings.rank) / settings.rank
        tensors = {
            f"unet.{name}": tensor * scale if "lora_B" in name else tensor
            for name, tensor in get_peft_model_state_dict(pipe.unet).items()
        }
    else:
        tensors = {str(settings.token): pipe.text_encoder.get_input_embeddings().vectors}
    note = json.dumps({"method": settings.method, "prompt": settings.prompt, "steps": settings.steps})
    dtype = torch.float16 if settings.half else torch.float32
    stored = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    # One entry: safetensors writes several in any order, and the same run is to give the same file.
    save_file(stored, path, metadata={"animagic": note})
