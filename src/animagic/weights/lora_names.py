"""Names that LoRA files have for the layers of Stable Diffusion 1.5 and XL and of HunyuanVideo, for every pipeline
built on them."""

from __future__ import annotations

from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers

from .hunyuan_video import LORA_RENAMES
from .lora import LoraPart

# kohya's tool trains SDXL under Stability AI's names; diffusers numbers their blocks anew, and leaves the words.
_SDXL = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
    "downsamplers_0_op": "downsamplers_0_conv",
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "out_2": "conv_out",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}

UNET = LoraPart(
    "unet",
    renames=(
        (r"\.processor\.", "."),
        (r"\.to_out$", ".to_out.0"),
        *((f"(^|_){old}$", rf"\1{new}") for old, new in _SDXL.items()),
        ("(^|_)input_blocks_", r"\1down_blocks_"),
        ("(^|_)middle_block_", r"\1mid_block_"),
        ("(^|_)output_blocks_", r"\1up_blocks_"),
    ),
    convert=_maybe_map_sgm_blocks_to_diffusers,
    blocks={"down": "down_blocks", "mid": "mid_block", "up": "up_blocks"},
)
# CLIP is wrapped in a module text_model in some versions of transformers, and not in others.
CLIP = (
    LoraPart("text_encoder", prefixes=("lora_te_", "lora_te1_", "text_model.", "text_model_")),
    LoraPart("text_encoder_2", prefixes=("lora_te2_", "text_model.", "text_model_")),
)
"""Text encoders of Stable Diffusion; XL has both."""

HUNYUAN_VIDEO = LoraPart("transformer", renames=LORA_RENAMES)
"""HunyuanVideo's transformer, in the names of diffusers, of its authors, of kohya's trainer and of ComfyUI."""
