"""How MagicInfinite is trained: text and portrait first, what voices say of mouths, then both; LoRAs; and students of
fewer steps.

Source: MagicInfinite, arXiv 2503.05978, section 3 (curriculum, region-weighted loss); rates and shares are ours.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo
from safetensors.torch import load_file
from torch import nn

from ...errors import CheckpointError, InputError, first_line
from ...speech import Wav2VecEncoder
from ...synthetic.portraits import vocabulary
from ...training.distribution_matching import Distillation
from ...training.portrait_videos import PortraitVideos
from ...training.portraits import PortraitBatches
from ...training.stages import Course, Stage, average_of, component, load_autoencoder, save_model, with_start
from ...training.voices import VoiceBatches
from ...weights.lora import add_lora
from .denoiser import MagicInfiniteSampling
from .distillation import SpeakingDistillation
from .objectives import MouthObjective, MouthReader, SpeakingObjective
from .pipeline import MagicInfinitePipeline
from .prompts import components_of, encoder_of, text_encoder_of
from .transformer import MagicInfiniteTransformer3DModel

LORA_TARGETS = (
    r".*transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|audio_attention\.\d+\.attn\.(to_q|to_kv|to_out)"
)
LORAS = "loras"
PROJECTOR = "audio_projector."
_MEASURED = 16
"""Batches from which the statistics of speech are taken."""


def _frozen(stage: Stage, **more: Any) -> dict[str, Any]:
    recipe = stage.recipe
    return {
        "autoencoder": load_autoencoder(recipe["vae"], AutoencoderKLHunyuanVideo),
        "prompts": text_encoder_of(recipe["text_encoder"]),
        **more,
    }


def build(recipe: dict[str, Any]) -> MagicInfiniteTransformer3DModel:
    """The transformer before its first step, the same in every run of a recipe: with HunyuanVideo's weights, if it
    names them as `base`."""
    section = recipe["portrait"]
    torch.manual_seed(section["training"].get("seed", 0))
    if recipe.get("base"):
        from .weights import from_hunyuan

        return from_hunyuan(recipe["base"], torch_dtype=torch.float32, **section.get("model", {}))
    network = MagicInfiniteTransformer3DModel(**section["model"])
    # Every block begins as nothing, and the prediction as 0 (adaLN-zero, arXiv 2212.09748).
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(("norm.linear", "norm1.linear", "norm1_context.linear"))):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    for module in (network.norm_out.linear, network.proj_out):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    return network


def _start_portrait(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    return with_start(build(stage.recipe), stage.section), _frozen(stage, voices=False)


def _start_speech(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    model = build(stage.recipe)
    model.load_state_dict(average_of(stage.root / "portrait", "the part portrait"))
    if "voices" in stage.recipe:
        # It stays as it is: the gradients that reach it are mostly noise, and Adam makes of them steps of full length.
        heard = average_of(stage.root / "voices", "the part voices")
        model.audio_projector.load_state_dict(_projector_of(heard))
        model.audio_projector.requires_grad_(False)
    elif not stage.section.get("start"):
        _measure(model, stage)
    return with_start(model, stage.section), _frozen(stage)


def _start_voices(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    model = MouthReader(build(stage.recipe).audio_projector)
    _measure(model, stage)
    return with_start(model, stage.section), {}


def _measure(model: Any, stage: Stage) -> None:
    batches = stage.batches()
    model.audio_projector.measure(torch.cat([batches[i]["speech"].flatten(0, -4) for i in range(_MEASURED)]))


def _projector_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(PROJECTOR): x for name, x in tensors.items() if name.startswith(PROJECTOR)}


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder; returns its path."""
    model = build(recipe)
    last = "speech" if (root / "speech" / "average.safetensors").exists() else "portrait"
    model.load_state_dict(average_of(root / last, f"the part {last}"))
    parts = components_of(recipe["text_encoder"])
    if recipe.get("wav2vec"):
        parts["audio_encoder"] = Wav2VecEncoder.from_pretrained(recipe["wav2vec"]).model
    vae = copy.deepcopy(load_autoencoder(recipe["vae"], AutoencoderKLHunyuanVideo)).half()
    pipe = MagicInfinitePipeline(transformer=model.half(), vae=vae, config=recipe["sampling"], **parts)
    return save_model(pipe, root, max_shard_size="8MB")  # no file of the project is larger than 16 MiB


def _start_student(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """The student begins as its teacher."""
    pipe = _teacher(stage.recipe)
    for part in (pipe.transformer, pipe.vae):
        part.eval().requires_grad_(False)
    student = copy.deepcopy(pipe.transformer).requires_grad_(True)
    if stage.section.get("start"):
        student.load_state_dict(_student_of(load_file(stage.section["start"])))
    whole = SpeakingObjective(pipe.vae, encoder_of(pipe), drop_portrait=0, drop_text=0, drop_voice=0, drop_all=0)
    frozen = {"teacher": pipe.transformer, "sampling": pipe.sampling, "speaking": whole}
    matching = stage.section["objective"].get("matching_weight", SpeakingDistillation.matching_weight)
    return Distillation(student, pipe.transformer if matching else None), frozen


def _teacher(recipe: dict[str, Any]) -> MagicInfinitePipeline:
    pipe = _load(recipe, "teacher")
    if pipe.sampling.voice_scale == pipe.sampling.guidance_scale == pipe.sampling.portrait_scale == 1:
        raise InputError(f"{recipe['teacher']} is distilled already; give a model with guidance as the teacher.")
    return pipe


def _student_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("student."): x for name, x in tensors.items() if not name.startswith("critic.")}


def export_student(recipe: dict[str, Any], root: Path) -> Path:
    """The teacher's folder with the student's weights, and settings for its steps; `sampling` is laid over these."""
    pipe = _teacher(recipe)
    pipe.transformer.load_state_dict(_student_of(average_of(root / "distil", "the student")))
    steps = recipe["distil"]["objective"].get("sampling_steps", SpeakingDistillation.sampling_steps)
    one_pass = {"num_inference_steps": steps, "guidance_scale": 1.0, "portrait_scale": 1.0, "voice_scale": 1.0}
    config = {**(pipe.config.config or {}), **one_pass, **recipe.get("sampling", {})}
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.half()
    return save_model(MagicInfinitePipeline(**{**pipe.components, "config": config}), root, max_shard_size="8MB")


def _start_lora(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """A frozen model with a LoRA in it."""
    pipe = _load(stage.recipe, "model")
    pipe.transformer.requires_grad_(False)
    torch.manual_seed(stage.config.seed)
    add_lora(pipe.transformer, LORA_TARGETS, stage.section["rank"], stage.name)
    return pipe.transformer, {"autoencoder": pipe.vae.eval().requires_grad_(False), "prompts": encoder_of(pipe)}


def _save_lora(stage: Stage, average: Any) -> None:
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(average, adapter_name=stage.name)
    MagicInfinitePipeline.save_lora_weights(
        stage.root / LORAS, transformer_lora_layers=layers, weight_name=f"{stage.name}.safetensors"
    )


def _load(recipe: dict[str, Any], name: str) -> MagicInfinitePipeline:
    """The pipeline of the model folder that a recipe names, in float32, with the text encoder in the folder of that
    name, if the recipe has one. Raises CheckpointError."""
    texts = components_of(recipe["text_encoder"]) if recipe.get("text_encoder") else {}
    try:
        return MagicInfinitePipeline.from_pretrained(recipe[name], dtype=torch.float32, use_safetensors=True, **texts)
    except Exception as error:  # on a damaged folder, diffusers and safetensors raise almost anything
        raise CheckpointError(f"there is no MagicInfinite model in {recipe[name]}: {first_line(error)}.") from error


def _check(recipe: dict[str, Any]) -> None:
    MagicInfiniteSampling.from_config(recipe["sampling"])
    for name in ("vae", "text_encoder", *(["wav2vec"] if "wav2vec" in recipe else [])):
        if not Path(recipe[name]).is_dir():
            raise InputError(f"the {name} of the recipe, {recipe[name]}, is no folder.")


def _shipped(model: Path) -> dict[str, torch.Tensor]:
    return component(model, "transformer")


_CLIPS: dict[str, Any] = {"objective": SpeakingObjective, "data": PortraitBatches, "files": PortraitVideos}
_LORA = Stage("loras", _start_lora, **_CLIPS, several=True, folder="lora_{}", needs=["rank"], save=_save_lora)
_STAGES = [
    Stage("portrait", _start_portrait, **_CLIPS, model=MagicInfiniteTransformer3DModel, shipped=_shipped),
    Stage("voices", _start_voices, MouthObjective, VoiceBatches, optional=True),
    Stage("speech", _start_speech, **_CLIPS, optional=True, shipped=_shipped),
]
_STUDENT = Stage(
    "distil", _start_student, SpeakingDistillation, PortraitBatches, files=PortraitVideos, shipped=_shipped
)
STAGES = [
    Course(
        [_STUDENT],
        export_student,
        only="teacher",
        origin="teacher",
        check=lambda recipe: MagicInfiniteSampling.from_config(recipe.get("sampling", {})),
    ),
    Course([_LORA], lambda _, root: root / LORAS, ["loras"], only="model"),
    Course(_STAGES, export, ["vae", "text_encoder", "sampling"], words=vocabulary, check=_check),
]
