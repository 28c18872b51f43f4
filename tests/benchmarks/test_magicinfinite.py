"""The benchmark scripts of MagicInfinite run, at small sizes, and their pages tell of every model and length."""

from __future__ import annotations

import re

import pytest
import torch

from animagic.layers.autoencoder import ConvAutoencoder
from animagic.systems.magicinfinite.pipeline import MagicInfinitePipeline
from animagic.systems.magicinfinite.transformer import MagicInfiniteTransformer3DModel

SHAPE = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1,
    "num_single_layers": 2, "num_refiner_layers": 1, "text_embed_dim": 8, "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6), "num_audio_layers": 1, "audio_layers": 3, "audio_channels": 384, "audio_tokens": 2,
    "guidance_embeds": False, "portrait_patch": 2,
}  # fmt: skip
SAMPLING = {
    "num_frames": 9, "height": 32, "width": 32, "num_inference_steps": 2, "window": 4, "window_overlap": 1, "front": 2,
    "front_context": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tiny_text_encoder, tmp_path_factory):
    """Two random models, plain and distilled."""
    text_encoder, tokenizer = tiny_text_encoder
    folders = []
    for name in ("plain", "distilled"):
        torch.manual_seed(0)
        transformer = MagicInfiniteTransformer3DModel(**SHAPE).eval()
        vae = ConvAutoencoder(latent_channels=4, widths=(8, 8, 8)).eval()
        pipe = MagicInfinitePipeline(transformer, vae, text_encoder, tokenizer, config=SAMPLING)
        folders.append(tmp_path_factory.mktemp("models") / name)
        pipe.save_pretrained(folders[-1])
    return folders


def test_lengths_and_latency(script, rows, models, tmp_path):
    pytest.importorskip("skia", reason="the portrait is drawn: pip install -e '.[train]'")
    words = ("--models", *models, "--lengths", 1, 2, "--live", 1.5, "--steps", 2, "-o", tmp_path / "page.md")
    page = script("magicinfinite.py", *words)
    table = rows(page)
    assert [row[:3] for row in table] == [[name, "2", length] for name in ("plain", "distilled") for length in "12"]
    # 7 latent frames in windows of 4 that share 1, in two steps; then 14.
    assert [row[3] for row in table] == ["5", "10"] * 2
    assert all(float(cell) >= 0 for row in table for cell in row[4:7])
    assert re.search(r"^- distilled makes [\d.]+ x as many frames a second as plain\.$", page, re.MULTILINE)
    assert page.count("- sound in to picture out: ") == 2
    # 2 latent frames are 10 video frames with what is heard in advance; the encoder needs 240 ms, and 180 for a piece.
    assert page.count("a front of 2 latent frames and what must be heard in advance: 0.82 s; 2 steps") == 2
    assert (tmp_path / "page.md").read_text() == page.removesuffix("\n")


def test_published_shapes_made_small(script, rows):
    small = ("--layers", 1, 1, "--heads", 1, "--size", "64x64", "--seconds", 1, "--steps", 2, "--rounds", 1)
    page = script("magicinfinite_shapes.py", *small, "--device", "cpu", "--ways", "plain", "front")
    (size, _, latents, *numbers), front = rows(page)
    assert (size, latents, numbers[3]) == ("64x64", "7", "2")  # one window, two steps
    assert front[2] == "7"
    assert all(float(number.strip("%")) > 0 for number in numbers)
    assert re.search(r"^- 64x64: [\d.e-]+ s for 1 s of video, on one device\.$", page, re.MULTILINE)
    assert "real time is 1" in page
