"""HunyuanVideo's text encoders, made here, tiny and random, with templates as long as their tokenizer needs them."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

LENGTH = 256
IMAGE_TOKENS = 16  # 4 x 4 patches of 8 pixels
_WORDS = ["a", "man", "she", "smiles", "nods", "and", "speaks", "describe", "system", "user", "assistant"]
_MARKS = ["<pad>", "<s>", "</s>", "<image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_SYSTEM = "<|start_header_id|> system <|end_header_id|>"
_USER = "<|start_header_id|> user <|end_header_id|> {} <|eot_id|>"
TEXT = {"template": f"{_SYSTEM} describe <|eot_id|> {_USER}", "crop_start": 9}
SEEING = {
    "template": f"{_SYSTEM} a <image> describe <|eot_id|> {_USER} <|start_header_id|> assistant <|end_header_id|> a",
    # Of the tokens <s>, header of the system (3), a: the picture comes next.
    "image_emb_start": 5,
    "image_emb_end": 5 + IMAGE_TOKENS,
    "image_emb_len": IMAGE_TOKENS,
    "crop_start": 11,
}


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*_MARKS, *_WORDS, "<unk>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=_MARKS[3:],
        padding_side="right",
        model_max_length=1000,
    )


def encoders() -> dict[str, Any]:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**small, num_hidden_layers=2, image_size=32, patch_size=8)
    text = LlamaConfig(
        **small, num_hidden_layers=4, num_key_value_heads=1, vocab_size=len(tokenizer), max_position_embeddings=600
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>")
    )
    config.pad_token_id = tokenizer.pad_token_id
    clip = CLIPTextConfig(
        **{**small, "hidden_size": 8},
        num_hidden_layers=1,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return {
        "text_encoder": LlavaForConditionalGeneration(config).eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": CLIPTextModel(clip).eval(),
        "tokenizer_2": _tokenizer(),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    }
