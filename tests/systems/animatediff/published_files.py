"""Writes picture models, motion modules and LoRAs in the layouts in which they are shared, as small as a test likes."""

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from animagic.systems.animatediff.unet import AnimateDiffUNet

UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
}
UNET_XL = {
    **UNET,
    "block_out_channels": (32, 32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "cross_attention_dim": 40,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 24 + 6 * 4,
}
VAE = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "scaling_factor": 0.18215,
}
WORDS = ["a", "red", "ball", "rolls"]
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "vocab_size": 40,
    "projection_dim": 16,
    "eos_token_id": 39,
    "bos_token_id": 38,
}
TEXT_2 = {**TEXT, "hidden_size": 24, "num_attention_heads": 3, "projection_dim": 24, "hidden_act": "gelu"}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def picture_model(seed: int = 0, xl: bool = False) -> dict[str, torch.nn.Module]:
    """A random picture model by its parts."""
    torch.manual_seed(seed)
    parts = {
        "unet": UNet2DConditionModel(**(UNET_XL if xl else UNET)),
        "vae": AutoencoderKL(**VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
    }
    if xl:
        parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2))
    return {name: part.eval() for name, part in parts.items()}


def write_folder(folder: Path, parts: dict, **how) -> Path:
    """diffusers' layout, with a tokenizer of a few words."""
    for name, part in parts.items():
        part.save_pretrained(folder / name, **how)
        if name.startswith("text_encoder"):
            write_tokenizer(folder / name.replace("text_encoder", "tokenizer"))
    return folder


def write_tokenizer(folder: Path) -> None:
    letters = sorted({letter for word in WORDS for letter in word})
    names = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: i for i, name in enumerate(names)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    fields = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "pad_token": "!", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def original(parts: dict) -> dict[str, torch.Tensor]:
    """The tensors in Stability AI's layout."""
    tensors = {}
    xl = "text_encoder_2" in parts
    if "unet" in parts:
        layers = parts["unet"].config.layers_per_block
        tensors |= {
            f"model.diffusion_model.{_unet_name(name, layers, parts['unet'])}": tensor
            for name, tensor in parts["unet"].state_dict().items()
        }
    if "vae" in parts:
        count = len(parts["vae"].config.block_out_channels)
        for name, tensor in parts["vae"].state_dict().items():
            is_matrix = ".attentions." in name and tensor.ndim == 2
            tensors[f"first_stage_model.{_vae_name(name, count)}"] = tensor[..., None, None] if is_matrix else tensor
    if "text_encoder" in parts:
        prefix = "conditioner.embedders.0.transformer" if xl else "cond_stage_model.transformer"
        for name, tensor in parts["text_encoder"].state_dict().items():
            tensors[f"{prefix}.text_model.{name.removeprefix('text_model.')}"] = tensor
        tensors[f"{prefix}.text_model.embeddings.position_ids"] = torch.arange(12)[None]
    if xl:
        tensors |= _open_clip(parts["text_encoder_2"].state_dict())
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def _unet_name(name: str, layers: int, unet) -> str:
    for ours, theirs in _UNET.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    match = re.fullmatch(
        r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", name
    )
    kind, block, what, layer, rest = match.groups()
    layer = int(layer)
    if what == "resnets":
        inner, _, leaf = rest.rpartition(".")
        rest = f"{_RESNET[inner]}.{leaf}"
    if kind == "mid":
        return f"middle_block.{2 * layer if what == 'resnets' else 1}.{rest}"
    first, block = int(block) * (layers + 1), int(block)
    if what == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.{rest.replace('conv', 'op')}"
    if what == "upsamplers":
        attends = hasattr(unet.up_blocks[block], "attentions")
        return f"output_blocks.{first + layers}.{2 if attends else 1}.{rest}"
    place = f"input_blocks.{1 + first + layer}" if kind == "down" else f"output_blocks.{first + layer}"
    return f"{place}.{0 if what == 'resnets' else 1}.{rest}"


def _vae_name(name: str, count: int) -> str:
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        for ours, theirs in _VAE_ATTENTION.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        return name.replace("mid_block.attentions.0", "mid.attn_1")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{count - 1 - int(m[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{count - 1 - int(m[1])}.upsample", name)


def _open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix, tensors = "conditioner.embedders.1.model", {}
    joined: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        name = name.removeprefix("text_model.")
        if name == "text_projection.weight":
            tensors[f"{prefix}.text_projection"] = tensor.T
        elif name.startswith("embeddings.token"):
            tensors[f"{prefix}.token_embedding.weight"] = tensor
        elif name.startswith("embeddings.position"):
            tensors[f"{prefix}.positional_embedding"] = tensor
        elif name.startswith("final_layer_norm"):
            tensors[f"{prefix}.{name.replace('final_layer_norm', 'ln_final')}"] = tensor
        elif match := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", name):
            joined.setdefault(f"{match[1]}.attn.in_proj_{match[3]}", {})[match[2]] = tensor
        else:
            for ours, theirs in _OPEN_CLIP.items():
                name = name.replace(ours, theirs)
            tensors[f"{prefix}.{name.replace('encoder.layers', 'transformer.resblocks')}"] = tensor
    for name, parts in joined.items():
        tensors[f"{prefix}.transformer.resblocks.{name}"] = torch.cat([parts[key] for key in "qkv"])
    return tensors


def motion_module(version: str = "v2", seed: int = 5, base: dict = UNET, **config) -> dict[str, torch.Tensor]:
    """Random motion modules under their published names."""
    from animagic.weights.motion_module import VERSIONS

    torch.manual_seed(seed)
    unet = AnimateDiffUNet(**base, **{**VERSIONS[version], "motion_num_attention_heads": 8, **config})
    return {name: torch.randn_like(tensor) / 8 for name, tensor in unet.motion_state_dict().items()}


def with_positions(tensors: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """With the tables of positions that published files hold."""
    tables = {}
    for name, tensor in tensors.items():
        if name.endswith("to_q.weight"):
            tables[name.replace("to_q.weight", "pos_encoder.pe")] = torch.zeros(1, length, tensor.shape[1])
    return {**tensors, **tables}


def save(tensors: dict[str, torch.Tensor], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    else:
        torch.save(tensors, file)
    return file
