"""Writes models of MAGI-1 in the layout in which they were published, as small as a test likes."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from goldens import golden_path
from safetensors.torch import load_file, save, save_file

CAPTION_CHANNELS = 32
TEXT = "a red ball bounces on the green floor and then a blue star slowly rolls to the left side of it"
INDEX = "model.safetensors.index.json"


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A golden of MAGI-1: configuration, weights under their original names, and everything else."""
    config = json.loads(golden_path("magi1", "manifest.json").read_text())[name]["config"]
    tensors = load_file(golden_path("magi1", f"{name}.safetensors"))
    prefix = "weight."
    weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return config, weights, {key: value for key, value in tensors.items() if not key.startswith(prefix)}


def write_transformer(folder: Path, weights: dict[str, torch.Tensor], shards: int = 3, compressed: int = 1) -> Path:
    """`inference_weight...`: shards with their index; the last `compressed` of them are zstd-compressed."""
    import zstandard

    folder.mkdir(parents=True)
    listed = {}
    names = list(weights)
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        shard = {key: weights[key].contiguous() for key in names[i::shards]}
        if i < shards - compressed:
            save_file(shard, folder / name)
        else:
            data, compressor = save(shard), zstandard.ZstdCompressor(write_checksum=True).compressobj()
            pieces = []  # short blocks, so that a file that is cut off still begins like a whole one
            for start in range(0, len(data), 4096):
                pieces += [
                    compressor.compress(data[start : start + 4096]),
                    compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK),
                ]
            (folder / f"{name}.zst").write_bytes(b"".join([*pieces, compressor.flush()]))
        listed |= dict.fromkeys(shard, name)
    total = sum(tensor.nbytes for tensor in weights.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": listed}))
    return folder


def write_autoencoder(folder: Path) -> Path:
    """The autoencoder of the goldens."""
    ddconfig = json.loads(golden_path("magi1", "manifest.json").read_text())["vae"]["ddconfig"]
    tensors = load_file(golden_path("magi1", "vae.safetensors"))
    weights = {k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "ViTVAE", "ddconfig": ddconfig}))
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    return folder


def write_text_encoder(folder: Path, pickled: bool = True, channels: int = CAPTION_CHANNELS) -> dict[str, torch.Tensor]:
    """A random T5, decoder and all, in two shards; returns the weights of the encoder."""
    import sentencepiece
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True)
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 20), model_writer=pieces, vocab_size=60, hard_vocab_limit=False, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(pieces.getvalue())
    words = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **words}))
    sizes = {"d_model": channels, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    torch.manual_seed(3)
    weights = {k: v.clone() for k, v in T5ForConditionalGeneration(config).state_dict().items()}
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "architectures": ["T5EncoderModel"]}))
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    listed = {}
    for i in range(2):
        name, shard = f"{stem}-{i + 1:05d}-of-00002.{suffix}", {key: weights[key] for key in list(weights)[i::2]}
        torch.save(shard, folder / name) if pickled else save_file(shard, folder / name)
        listed |= dict.fromkeys(shard, name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": listed}))
    return {k: v for k, v in weights.items() if not k.startswith(("decoder.", "lm_head."))}


def write_special_tokens(file: Path, channels: int = CAPTION_CHANNELS) -> dict[str, np.ndarray]:
    rows = {"caption_token": 1, "logo_token": 1, "other_tokens": 100}
    random = np.random.default_rng(0)
    table = {name: random.standard_normal((count, channels)).astype(np.float32) for name, count in rows.items()}
    np.savez(file, **table)
    return table


def write_original(folder: Path, name: str = "t2v_base", **changed) -> Path:
    """A whole checkpoint from a golden, with its configuration `config.json`, which is returned."""
    config, weights, _ = golden(name)
    engine = config["engine_config"]
    suffix = (".fp8" if engine.get("fp8_quant") else "") + (".distill" if engine.get("distill") else "")
    write_transformer(folder / "ckpt" / f"inference_weight{suffix}", {**weights, **changed})
    write_autoencoder(folder / "vae")
    write_text_encoder(folder / "t5" / "t5-v1_1-xxl")
    write_special_tokens(folder / "special_tokens.npz")
    config["runtime_config"] |= {"load": "./ckpt", "vae_pretrained": "./vae", "t5_pretrained": "./t5"}
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file
