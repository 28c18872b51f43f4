"""A text-to-image model (Stable Diffusion), loaded to be trained, or trained from nothing: tokenizer, autoencoder, then
UNet and text encoder together, then a LoRA for every look. All networks are those of diffusers and transformers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from peft import get_peft_model_state_dict
from torch import nn
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..errors import CheckpointError, InputError, first_line
from ..synthetic import caption, picture_caption
from ..weights.lora import add_lora
from .data import PLAIN, SceneBatches, draw_scene, to_unit
from .objectives import NoiseObjective
from .stages import Stage, average_of, component, with_start

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LORA_TARGETS = [*ATTENTION, "conv1", "conv2"]

SceneImages = partial(SceneBatches, batch_size=32, num_frames=1, anywhere=True, motion_share=0.5, looks={PLAIN: 1.0})


def load_text_to_image(source: str | Path) -> StableDiffusionPipeline:
    """The text-to-image model of a folder or hub id in diffusers' layout, frozen, in float32; of an animated model the
    part without motion modules.

    Raises: CheckpointError if it cannot be loaded, InputError if it is of a kind that cannot be trained here.
    """
    source = str(source)
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what belongs to motion modules is not expected
    try:
        pipe = StableDiffusionPipeline(
            unet=_without_motion(UNet2DConditionModel.from_pretrained(source, subfolder="unet")),
            vae=AutoencoderKL.from_pretrained(source, subfolder="vae"),
            text_encoder=CLIPTextModel.from_pretrained(source, subfolder="text_encoder", dtype=torch.float32),
            tokenizer=CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"),
            scheduler=DDIMScheduler.from_pretrained(source, subfolder="scheduler"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except Exception as error:  # on a damaged folder, diffusers, transformers and safetensors raise almost anything
        raise CheckpointError(f"the model {source} cannot be loaded: {first_line(error)}.") from error
    finally:
        logging.set_verbosity(level)
    config = pipe.unet.config
    if config.addition_embed_type is not None or config.in_channels != config.out_channels:
        raise InputError(f"the model {source} is not a Stable Diffusion 1 or 2 for text alone; give one that is.")
    if pipe.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(f"the model {source} predicts the {pipe.scheduler.config.prediction_type}, not noise.")
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _without_motion(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same network; read from an animated one, its configuration still has fields of motion modules."""
    known = inspect.signature(UNet2DConditionModel).parameters
    config = {name: value for name, value in unet.config.items() if name in known}
    if all(name in known or name.startswith("_") for name in unet.config):
        return unet
    made = UNet2DConditionModel.from_config(config)
    made.load_state_dict(unet.state_dict())
    return made


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
        images = to_unit(batch["video"].to(generator.device)).transpose(1, 2).flatten(0, 1)
        posterior = model.encode(images).latent_dist
        error = model.decode(posterior.sample(generator)).sample - images
        squared = error.square().mean()
        loss = squared + 0.1 * error.abs().mean()
        loss = loss + 0.1 * self.edges * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        loss = loss + self.colour * nn.functional.avg_pool2d(error, 4).square().mean()
        loss = loss + self.kl * posterior.kl().mean() / posterior.mean[0].numel()
        return loss, {"psnr": float(10 * torch.log10(4 / squared.detach()))}


class TextToImage(nn.Module):
    """UNet and text encoder as one network, because they are trained together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel):
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """latents: (batch, channels, 1, height, width), as of clips of one frame; gives the prediction, so shaped."""
        return self.unet(latents.squeeze(2), timesteps, text).sample.unsqueeze(2)


ImageObjective = partial(NoiseObjective, scheduler_config=SCHEDULE, noises=2, max_snr_weight=5.0)


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


def start_tokenizer(section: dict[str, Any], folder: Path) -> Any:
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


def start_autoencoder(section: dict[str, Any]) -> AutoencoderKL:
    """The autoencoder before its first step, the same in every run of a recipe."""
    torch.manual_seed(section["training"].get("seed", 0))
    return with_start(AutoencoderKL(**section["model"]), section)


def trained_autoencoder(recipe: dict[str, Any], root: Path) -> AutoencoderKL:
    """The trained autoencoder, frozen, its latents standardised."""
    vae = start_autoencoder(recipe["vae"])
    vae.load_state_dict(average_of(root / "vae"))
    data = {**recipe["vae"]["data"], "batch_size": 256, "looks": {PLAIN: 1.0}}
    standardise_latents(vae, to_unit(SceneImages(seed=1234, steps=1, **data)[0]["video"][:, :, 0]))
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
    return with_start(TextToImage(unet, CLIPTextModel(text_config)), recipe["unet"])


def trained_model(recipe: dict[str, Any], root: Path) -> TextToImage:
    """UNet and text encoder as trained so far, frozen."""
    model = start_model(recipe, _tokenizer(recipe, root))
    model.load_state_dict(average_of(root / "unet"))
    return model.eval().requires_grad_(False)


def _tokenizer(recipe: dict[str, Any], root: Path) -> Any:
    return start_tokenizer(recipe["tokenizer"], root / "base" / "tokenizer")


def _start_autoencoder(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    _tokenizer(stage.recipe, stage.root)  # what it needs may be missing: known now, not after hours
    return start_autoencoder(stage.section), {}


def _start_model(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    tokenizer = _tokenizer(stage.recipe, stage.root)
    frozen = {"autoencoder": trained_autoencoder(stage.recipe, stage.root), "tokenizer": tokenizer}
    return start_model(stage.recipe, tokenizer), frozen


def _start_look(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    _, frozen = _start_model(stage)
    model = trained_model(stage.recipe, stage.root)
    add_lora(model.unet, LORA_TARGETS, stage.section["rank"])
    return model, frozen


def _shipped_model(model: Path) -> dict[str, torch.Tensor]:
    """The weights of `TextToImage` in a model folder; of an animated one without those of the motion modules."""
    parts = {part: component(model, part) for part in ("unet", "text_encoder")}
    tensors = {f"{part}.{name}": tensor for part, inside in parts.items() for name, tensor in inside.items()}
    return {name: tensor for name, tensor in tensors.items() if "motion_modules." not in name}


def export_model(recipe: dict[str, Any], root: Path) -> Path:
    """Write the text-to-image model as trained so far to `root/base`, a folder in diffusers' layout (float32)."""
    model = trained_model(recipe, root)
    StableDiffusionPipeline(
        vae=trained_autoencoder(recipe, root),
        text_encoder=model.text_encoder,
        tokenizer=_tokenizer(recipe, root),
        unet=model.unet,
        scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(root / "base")
    return root / "base"


def _save_look(stage: Stage, average: nn.Module) -> None:
    layers = get_peft_model_state_dict(average.unet)
    StableDiffusionPipeline.save_lora_weights(
        stage.root / "base" / "loras", unet_lora_layers=layers, weight_name=f"{stage.name}.safetensors"
    )


_SCENES: dict[str, Any] = {"data": SceneImages, "part": "pictures"}
_TOKENIZER = dict.fromkeys(["tokenizer.vocab_size", "tokenizer.model_max_length"])

STAGES = (
    Stage("vae", _start_autoencoder, AutoencoderObjective, **_SCENES, model=AutoencoderKL, optional=True,
          besides={"unet.model": None, "text_encoder.model": CLIPTextConfig, **_TOKENIZER}),
    Stage("unet", _start_model, ImageObjective, **_SCENES, model=UNet2DConditionModel, optional=True,
          besides={"vae.model": None}, save=lambda stage, _: export_model(stage.recipe, stage.root),
          shipped=_shipped_model),
    Stage("looks", _start_look, ImageObjective, **_SCENES, several=True, shares="unet", needs=["rank"],
          besides={"unet.model": None}, save=_save_look),
)  # fmt: skip
