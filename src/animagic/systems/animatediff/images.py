"""The picture model that AnimateDiff animates, trained from nothing: tokenizer, autoencoder, then UNet and text encoder
together, then a LoRA for every look. All networks are those of diffusers and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...errors import CheckpointError, InputError
from ...synthetic import caption, picture_caption, render
from ...synthetic.looks import apply_look
from ...training import Trainer, TrainingConfig
from ...training.data import Split, draw_scene, to_unit

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
PLAIN = "plain"
_SCENE_FRAMES = 48  # so long a thing stays in view
_REQUIRED = {
    "tokenizer": ("vocab_size", "model_max_length"),
    "vae": ("model", "objective", "data", "training"),
    "text_encoder": ("model",),
    "unet": ("model", "objective", "data", "training"),
}


@dataclass(frozen=True)
class SceneImages(Dataset):
    """Captioned single frames from the drawing studio, each from a scene of its own; item `step` is a whole batch.

    Args:
        seed: of the whole stream.
        batch_size: pictures of a batch.
        height, width: pixels.
        simple_share: as for SceneBatches.
        motion_share: share of the captions that tell what the thing does, too.
        looks: look -> how often it is drawn in, "plain" being none.
        split: which scenes.

    Items: {"image": uint8 (pictures, 3, height, width), "captions": list[str], "index": int}.
    """

    seed: int
    steps: int
    batch_size: int = 32
    height: int = 64
    width: int = 64
    simple_share: float = 0.0
    motion_share: float = 0.5
    looks: Mapping[str, float] = field(default_factory=lambda: {PLAIN: 1.0})
    split: Split = "train"

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        images = np.empty((self.batch_size, self.height, self.width, 3), np.uint8)
        captions = []
        for i in range(self.batch_size):
            scene = draw_scene(rng, self.simple_share, self.split)
            tell = caption if rng.random() < self.motion_share else picture_caption
            captions.append(tell(scene, rng))
            frame = render(scene, 1, self.height, self.width, start=int(rng.integers(_SCENE_FRAMES)))
            look = str(rng.choice(list(self.looks), p=list(self.looks.values())))
            paper = int(rng.integers(2**31))
            images[i] = (frame if look == PLAIN else apply_look(look, frame, paper))[0]
        return {"image": torch.from_numpy(images).permute(0, 3, 1, 2), "captions": captions, "index": step}


@dataclass
class AutoencoderObjective:
    """Reconstruction of pixels and of their differences, plus a small divergence from the unit Gaussian.

    Args:
        colour: weight of the error in the mean over 4 x 4 pixels: a hue that is a little off everywhere is seen.
        edges: weight of the difference of spatial gradients, which keeps outlines sharp.
        kl: weight of the divergence, in the mean over the latents' numbers.
    """

    colour: float = 2.0
    edges: float = 0.5
    kl: float = 3e-5

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        images = to_unit(batch["image"].to(generator.device))
        posterior = model.encode(images).latent_dist
        error = model.decode(posterior.sample(generator)).sample - images
        squared = error.square().mean()
        loss = squared + 0.1 * error.abs().mean()
        loss = loss + 0.1 * self.edges * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        loss = loss + self.colour * nn.functional.avg_pool2d(error, 4).square().mean()
        loss = loss + self.kl * posterior.kl().mean() / posterior.mean[0].numel()
        return loss, {"psnr": float(10 * torch.log10(4 / squared.detach()))}


class TextToImage(nn.Module):
    """UNet and text encoder as one network, because the picture model trains both together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


@dataclass
class PictureObjective:
    """The noise that was added to a picture's latents is predicted (arXiv 2006.11239), captions dropped at random.

    The squared error of a noise level counts SNR^-1/2, at most `most_weight`: as published (1), little is learnt of
    where things stand, which is decided where noise prevails; as the picture's own error (1 / SNR), nothing else.

    Args:
        autoencoder: frozen.
        tokenizer: of the model's text encoder.
        drop_text: share of samples without a caption.
        noises: how often every picture is used in a batch, with other noise at other levels; the picture and its
            caption are encoded once.
        most_weight: see above.
    """

    autoencoder: AutoencoderKL
    tokenizer: Any
    drop_text: float = 0.1
    noises: int = 2
    most_weight: float = 5.0

    def __post_init__(self) -> None:
        self.scheduler = DDIMScheduler(**SCHEDULE)

    def __call__(
        self, model: TextToImage, batch: dict, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        device = generator.device
        with torch.no_grad():
            posterior: Any = self.autoencoder.encode(to_unit(batch["image"].to(device)))
            latents = posterior.latent_dist.sample(generator) * self.autoencoder.config.scaling_factor
        dropped = torch.rand(len(latents), generator=generator, device=device) < self.drop_text
        texts = ["" if d else text for text, d in zip(batch["captions"], dropped.tolist(), strict=True)]
        embeds = model.text_encoder(tokenize(self.tokenizer, texts).to(device))[0]  # (pictures, tokens, channels)

        latents, embeds = latents.repeat(self.noises, 1, 1, 1), embeds.repeat(self.noises, 1, 1)
        size = len(latents)
        # One level from each of `size` equal ranges, so that every batch has seen the whole schedule.
        u = (torch.randperm(size, generator=generator, device=device) + _uniform(size, generator)) / size
        timesteps = (u * self.scheduler.config.num_train_timesteps).long()
        noise = torch.randn(latents.shape, generator=generator, device=device)
        noisy: Any = self.scheduler.add_noise(latents, noise, timesteps)
        error = (model.unet(noisy, timesteps, embeds).sample - noise).square().mean((1, 2, 3))
        kept = self.scheduler.alphas_cumprod.to(device)[timesteps]
        weight = ((1 - kept) / kept).sqrt().clamp(max=self.most_weight)
        return (weight * error).mean(), {"error": float(error.detach().mean())}


def _uniform(size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(size, generator=generator, device=generator.device)


def tokenize(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Token ids (texts, model_max_length), as Stable Diffusion's pipelines make them."""
    return tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def build_tokenizer(texts: Iterable[str], vocab_size: int, model_max_length: int) -> CLIPTokenizer:
    """CLIP's byte-level BPE, learnt from `texts`; every byte is a token, so that any text can be written.

    Returns a tokenizer with at most `vocab_size` tokens, the last two of which begin and end a text.
    """
    from tokenizers import trainers
    from tokenizers.pre_tokenizers import ByteLevel

    # As CLIP numbers them: bytes, bytes that end a word, what was merged, begin, end.
    letters = sorted(ByteLevel.alphabet())
    letters += [f"{letter}</w>" for letter in letters]
    learner = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2, initial_alphabet=ByteLevel.alphabet(), end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: vocab_size - 2 - len(letters)]
    tokens = dict.fromkeys([*letters, *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        model_max_length=model_max_length,
    )


def train_images(recipe: dict[str, Any], folder: str | Path, on_log: Callable[[str, dict], None] | None = None) -> Path:
    """Train the picture model of a recipe and its looks in `folder`; returns `folder/base`, a folder in diffusers'
    layout (float32) with `loras/LOOK.safetensors`.

    Each part goes on from its own checkpoint.

    Raises: InputError for a recipe that cannot be used, CheckpointError for a folder of another recipe.
    """
    folder = Path(folder)
    missing = [f"{a}.{b}" for a, keys in _REQUIRED.items() for b in keys if b not in (recipe.get(a) or {})]
    if missing:
        raise InputError(f"the recipe lacks {missing[0]}.")
    tokenizer = start_tokenizer(recipe["tokenizer"], folder / "base" / "tokenizer")
    vae = start_autoencoder(recipe["vae"])
    _train_part(vae, AutoencoderObjective(**recipe["vae"]["objective"]), recipe["vae"], folder / "vae", on_log)
    vae = trained_autoencoder(recipe["vae"], folder / "vae")
    objective = PictureObjective(vae, tokenizer, **recipe["unet"]["objective"])
    _train_part(start_model(recipe, tokenizer), objective, recipe["unet"], folder / "unet", on_log)
    export_images(recipe, folder)
    for look, section in (recipe.get("looks") or {}).items():
        model = add_lora(trained_model(recipe, tokenizer, folder / "unet"), section["rank"])
        _train_part(model, objective, section, folder / look, on_log)
        export_look(recipe, folder, look)
    return folder / "base"


def _train_part(model: nn.Module, objective: Any, section: dict, folder: Path, on_log) -> None:
    config = TrainingConfig(**section["training"])
    batches = SceneImages(seed=config.seed, steps=config.steps, **section["data"])
    Trainer(
        model, objective, batches, config, folder, None if on_log is None else lambda x: on_log(folder.name, x)
    ).run()


def start_tokenizer(section: dict, folder: Path) -> Any:
    """The tokenizer in `folder`, made now if there is none: from captions, and the words of another one."""
    if not folder.exists():
        rng = np.random.default_rng(section.get("seed", 0))
        tellers = (caption, picture_caption)
        texts = [tell(draw_scene(rng), rng) for tell in tellers for _ in range(section.get("captions", 20_000) // 2)]
        if section.get("words_of"):
            if not Path(section["words_of"]).is_dir():
                raise InputError(f"tokenizer.words_of is {section['words_of']}; give the folder of a tokenizer.")
            texts += [word for word in AutoTokenizer.from_pretrained(section["words_of"]).get_vocab() if word.isalpha()]
        build_tokenizer(texts, section["vocab_size"], section["model_max_length"]).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def start_autoencoder(section: dict) -> AutoencoderKL:
    """The autoencoder before its first step, the same in every run of a recipe."""
    torch.manual_seed(section["training"].get("seed", 0))
    return AutoencoderKL(**section["model"])


def trained_autoencoder(section: dict, folder: Path) -> AutoencoderKL:
    """The trained autoencoder, frozen, its latents standardised."""
    vae = start_autoencoder(section)
    _load_average(vae, folder)
    batches = SceneImages(seed=1234, steps=1, **{**section["data"], "batch_size": 256, "looks": {PLAIN: 1.0}})
    standardise_latents(vae, to_unit(batches[0]["image"]))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Make every latent channel of `images` (size, 3, height, width), -1..1, have mean 0 and the same deviation.

    Done inside the 1x1 convolutions next to the latents; `scaling_factor` becomes 1 / deviation, so that the
    scaled latents have deviation 1, as Stable Diffusion wants it.
    """
    encoded: Any = vae.encode(images)
    mean, std = encoded.latent_dist.mean.mean((0, 2, 3)), encoded.latent_dist.mean.std((0, 2, 3))
    common = std.mean()
    scale = (common / std).repeat(2)  # the second half of the channels are logarithms of variances
    into, out = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    # What goes out again is undone: post(z) = post_old(z * std / common + mean).
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= (std / common)[None, :, None, None]
    into.weight[:channels] *= scale[:channels, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) * scale[:channels]
    into.bias[channels:] += 2 * scale[channels:].log()
    vae.register_to_config(scaling_factor=round(float(1 / common), 5))


def start_model(recipe: dict[str, Any], tokenizer: Any) -> TextToImage:
    """UNet and text encoder before their first step, the same in every run of a recipe."""
    torch.manual_seed(recipe["unet"]["training"].get("seed", 0))
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **recipe["text_encoder"]["model"],
    )
    unet = UNet2DConditionModel(cross_attention_dim=text_config.hidden_size, **recipe["unet"]["model"])
    return TextToImage(unet, CLIPTextModel(text_config))


def trained_model(recipe: dict[str, Any], tokenizer: Any, folder: Path) -> TextToImage:
    """UNet and text encoder as trained so far, frozen."""
    model = start_model(recipe, tokenizer)
    _load_average(model, folder)
    return model.eval().requires_grad_(False)


def _load_average(model: nn.Module, folder: Path) -> None:
    average = folder / "average.safetensors"
    if not average.exists():
        raise CheckpointError(f"{average} is missing: train this part first.")
    model.load_state_dict(load_file(average))


LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def add_lora(model: TextToImage, rank: int) -> TextToImage:
    """Lay a LoRA over the UNet's attention and convolutions; only it is trained."""
    model.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS), adapter_name="default")
    return model


def export_images(recipe: dict[str, Any], folder: Path) -> Path:
    """Write the picture model as trained so far to `folder/base`; returns its path."""
    target = folder / "base"
    tokenizer = start_tokenizer(recipe["tokenizer"], target / "tokenizer")
    model = trained_model(recipe, tokenizer, folder / "unet")
    StableDiffusionPipeline(
        vae=trained_autoencoder(recipe["vae"], folder / "vae"),
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    return target


def export_look(recipe: dict[str, Any], folder: Path, look: str) -> Path:
    """Write a look's LoRA as trained so far to `folder/base/loras/LOOK.safetensors`; returns its path."""
    tokenizer = start_tokenizer(recipe["tokenizer"], folder / "base" / "tokenizer")
    model = add_lora(start_model(recipe, tokenizer), recipe["looks"][look]["rank"])
    _load_average(model, folder / look)
    layers = get_peft_model_state_dict(model.unet)
    StableDiffusionPipeline.save_lora_weights(
        folder / "base" / "loras", unet_lora_layers=layers, weight_name=f"{look}.safetensors"
    )
    return folder / "base" / "loras" / f"{look}.safetensors"
