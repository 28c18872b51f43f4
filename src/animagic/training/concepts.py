"""How a text-to-image model takes in a new thing or style: what learns of it, the loss, and the file it is kept in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset

from ..errors import InputError
from ..weights.lora import add_lora
from .data import to_unit
from .objectives import DenoisingError
from .text_to_image import ATTENTION

if TYPE_CHECKING:
    from .personalization import Personalization


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


def start_learning(pipe: StableDiffusionPipeline, settings: Personalization) -> nn.ParameterDict:
    """Prepare the networks for the method; what is to learn, by name (with / for the dots). Raises InputError."""
    torch.manual_seed(settings.seed)
    if settings.method == "dreambooth":
        pipe.unet.requires_grad_(True)
        pipe.text_encoder.requires_grad_(bool(settings.train_text_encoder))
    elif settings.method == "lora":
        assert settings.rank is not None
        add_lora(pipe.unet, ATTENTION, settings.rank, alpha=settings.alpha, start="gaussian")
    else:
        words, start = new_words(pipe, settings)
        first, table = len(pipe.tokenizer), pipe.text_encoder.get_input_embeddings()
        pipe.tokenizer.add_tokens(words)
        pipe.text_encoder.set_input_embeddings(NewWords(table, start.repeat(len(words), 1), first))
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    named = ((f"{part}.{name}", p) for part, module in parts.items() for name, p in module.named_parameters())
    return nn.ParameterDict({name.replace(".", "/"): p for name, p in named if p.requires_grad})


def new_words(pipe: StableDiffusionPipeline, settings: Personalization) -> tuple[list[str], torch.Tensor]:
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
class ConceptObjective:
    """The error of the predicted noise (or velocity), of the pictures and, as far as there are any, of the class.

    What learns are parameters of `pipe` itself, so the model of the trainer is only their list.
    """

    pipe: StableDiffusionPipeline
    pictures: Encoded
    class_pictures: Encoded | None = None
    prior_weight: float = 1.0
    max_snr_weight: float = 1.0

    def __post_init__(self):
        config, most = dict(self.pipe.scheduler.config), self.max_snr_weight
        self.error = DenoisingError(config, max_snr_weight=most, min_snr_weight=1 / most)

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        latents, prompts = self.pictures.draw(batch["pictures"], generator)
        given = len(latents)
        if self.class_pictures is not None:
            more, class_prompts = self.class_pictures.draw(batch["class"], generator)
            latents, prompts = torch.cat([latents, more]), prompts + class_prompts
        device, size = latents.device, len(latents)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        timesteps = torch.randint(self.error.levels, (size,), generator=generator, device=device)
        text, _ = self.pipe.encode_prompt(prompts, device, 1, do_classifier_free_guidance=False)
        error, weight = self.error(lambda x, t: self.pipe.unet(x, t, text).sample, latents, noise, timesteps)
        error = weight * error
        loss, values = error[:given].mean(), {"picture_loss": float(error[:given].detach().mean())}
        if size > given:
            loss = loss + self.prior_weight * error[given:].mean()
            values["class_loss"] = float(error[given:].detach().mean())
        return loss, values


def save(pipe: StableDiffusionPipeline, settings: Personalization, path: Path) -> None:
    """Write what was learnt: for DreamBooth the whole model, a folder; else a .safetensors file."""
    if settings.method == "dreambooth":
        for part in (pipe.unet, pipe.vae, pipe.text_encoder) if settings.half else ():
            part.half()
        pipe.save_pretrained(path)
        return
    if settings.method == "lora":
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
