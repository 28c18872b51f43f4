"""Every snippet of the diffusers MAGI-1 page runs with `animagic` in place of `diffusers`, to the file that it writes.

What else is replaced stands in `replacements`, each with its reason; one that no longer matches the page fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from animagic.media import VideoWriter, probe

PAGE = Path(__file__).resolve().parents[3] / "shared/seeds/004_adce60a874639cf9.txt"
# Of the page, in order: what a snippet shows, the file that it writes, its frames and its frames per second.
SNIPPETS = {
    "text, group offload": ("output.mp4", 24, 8),
    "text, compiled": ("output.mp4", 24, 8),
    "image": ("astronaut_animation.mp4", 81, 16),
    "video": ("video_continuation.mp4", 81, 16),
}
SIZE = (32, 48)  # height, width
CUDA = torch.cuda.is_available()


class Replacement(NamedTuple):
    old: str
    new: str
    where: set[str]
    reason: str


def replacements(model: Path, autotune: bool) -> list[Replacement]:
    words, compiled, image, video = ({name} for name in SNIPPETS)
    everywhere = set(SNIPPETS)
    found = [
        Replacement("from diffusers", "from animagic", everywhere, "the claim of this test"),
        Replacement('"sand-ai/MAGI-1"', repr(str(model)), words | compiled, "a tiny model of random weights"),
        Replacement('"sand-ai/MAGI-1-I2V"', repr(str(model)), image, "a tiny model of random weights"),
        Replacement('"sand-ai/MAGI-1-V2V"', repr(str(model)), video, "a tiny model of random weights"),
        Replacement("height=480", f"height={SIZE[0]}", image | video, "time: 480x832 needs a GPU"),
        Replacement("width=832", f"width={SIZE[1]}", image | video, "time: 480x832 needs a GPU"),
        Replacement(
            '"https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/diffusers/astronaut.jpg"',
            '"picture.jpg"',
            image,
            "tests do without the network",
        ),
        Replacement('"path/to/input_video.mp4"', '"clip.mp4"', video, "the page leaves the name to its reader"),
    ]
    if not autotune:
        found += [
            Replacement('mode="max-autotune"', 'backend="aot_eager"', compiled, "time: inductor takes minutes"),
        ]
    if not CUDA:
        found += [
            Replacement('"cuda"', '"cpu"', everywhere, "there is no GPU here"),
            Replacement("torch.bfloat16", "torch.float32", everywhere, "some processors have no bfloat16"),
            Replacement("use_stream=True", "use_stream=False", words, "streams are CUDA's"),
        ]
    return found


def snippets() -> dict[str, str]:
    """The Python blocks of the page by their names in SNIPPETS."""
    if not PAGE.parent.is_dir():
        pytest.skip(f"{PAGE.parent} is missing")
    found = re.findall(r"^```(?:py|python)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == len(SNIPPETS), "the page has other snippets than those that are tested"
    return dict(zip(SNIPPETS, found, strict=True))


@pytest.fixture
def model(tmp_path_factory, tiny_model, tiny_transformer, tiny_sampling) -> Path:
    """The folder of a model like the published ones, with a T5 encoder and chunks of 24 frames, but tiny."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    from animagic import AutoencoderKLMagi1, Magi1Pipeline

    words = ["<pad>", "</s>", "<unk>", "a", "the", "eagle", "wings", "astronaut", "moon", "video", "poor", "quality"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=800
    )
    torch.manual_seed(3)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 5, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
    text_encoder = T5EncoderModel(T5Config(vocab_size=len(words), **sizes))
    vae = AutoencoderKLMagi1.from_pretrained(tiny_model, subfolder="vae")
    transformer = tiny_transformer(chunk_width=6, caption_max_length=64)
    tiny_sampling["runtime_config"] |= {"chunk_width": 6, "num_frames": 96}
    folder = tmp_path_factory.mktemp("models") / "magi1"
    Magi1Pipeline(transformer, vae, text_encoder, tokenizer, config=tiny_sampling).save_pretrained(folder)
    return folder


def run(name: str, model: Path, folder: Path, autotune: bool = False) -> None:
    code = snippets()[name]
    for old, new, where, reason in replacements(model, autotune):
        assert (old in code) == (name in where), f"the page has changed: {old!r} is replaced because {reason}"
        code = code.replace(old, new)
    assert "diffusers" not in code.replace("documentation-images/resolve/main/diffusers", "")
    exec(compile(code, f"snippet ({name})", "exec"), {"__name__": "__main__"})

    file, frames, fps = SNIPPETS[name]
    written = probe(folder / file)
    assert (written["frames"], written["height"], written["width"]) == (frames, *SIZE)
    assert written["fps"] == pytest.approx(fps)


@pytest.fixture
def folder(tmp_path, monkeypatch, make_moving_clip) -> Path:
    """An empty folder to work in, with a picture of another size and a clip of another length than are asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.fromarray(make_moving_clip(1, 60, 50)[0]).save("picture.jpg")
    with VideoWriter("clip.mp4", fps=16) as writer:
        writer.write(np.concatenate([make_moving_clip(20, 36, 36)] * 2))
    torch.compiler.reset()
    return tmp_path


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippet(name, model, folder):
    run(name, model, folder)


@pytest.mark.slow
def test_the_compiled_snippet_as_it_stands(model, folder):
    run("text, compiled", model, folder, autotune=True)


def test_hooks_are_those_of_diffusers():
    import diffusers.hooks

    from animagic.hooks import apply_group_offloading
    from animagic.hooks.group_offloading import apply_group_offloading as from_its_module

    assert apply_group_offloading is from_its_module is diffusers.hooks.apply_group_offloading
