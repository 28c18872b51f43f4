"""What several folders of tests share."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

# As the processes that tests start: the last bits of a sum depend on the number of threads, and the networks here are
# so small that one is the fastest.
torch.set_num_threads(1)

INTEGRATION = {"benchmarks", "docs", "e2e", "evaluation", "examples", "hostile"}
"""The folders whose tests run something from end to end; `make check` leaves them out."""


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in INTEGRATION:
            item.add_marker("integration")


LEAST = {"num_steps": 4, "num_inference_steps": 2, "height": 32, "width": 32}
"""Settings of a model that is quick: MAGI-1 needs a step for each of its four stages, AnimateDiff may take fewer."""
TINY_TRANSFORMER = {
    "num_layers": 2,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "in_channels": 4,
    "out_channels": 4,
    "caption_channels": 8,
    "caption_max_length": 12,
    "chunk_width": 2,
}
TINY_SAMPLING = {
    "runtime_config": {
        "cfg_number": 3,
        "cfg_t_range": [0.0, 0.1, 0.3, 0.999],
        "prev_chunk_scales": [1.5, 1.5, 1.0, 1.0],
        "text_scales": [7.5, 7.5, 0.0, 0.0],
        "num_frames": 16,
        "video_size_h": 32,
        "video_size_w": 48,
        "num_steps": 4,
        "window_size": 4,
        "fps": 24,
        "chunk_width": 2,
        "scale_factor": 1.0,
    }
}
WORDS = "a the red blue green crimson ball square cat bounces rolls left right falls on floor then slowly"


def make_transformer(seed: int = 0, **settings):
    """A MAGI-1 transformer of a few thousand random weights; every norm, gate and bias takes part."""
    from animagic.systems.magi1.transformer import Magi1Transformer3DModel

    torch.manual_seed(seed)
    model = Magi1Transformer3DModel(**{**TINY_TRANSFORMER, **settings}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 and parameter is not model.rope.bands:
                parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def tiny_transformer():
    """Makes MAGI-1 transformers of a few thousand random weights; every norm, gate and bias takes part."""
    return make_transformer


@pytest.fixture
def tiny_sampling() -> dict:
    """The sampling settings that go with the tiny transformer; a test may change them."""
    return copy.deepcopy(TINY_SAMPLING)


def moving_clip(frames: int = 16, height: int = 32, width: int = 48) -> np.ndarray:
    """A smooth clip, uint8 (frames, height, width, 3); no two frames are equal."""
    t = np.arange(frames)[:, None, None] * 0.15
    y, x = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    waves = [np.sin(x + y + t), np.sin(x - y - t), np.cos(x * y / 4 + t)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


@pytest.fixture(scope="session")
def make_moving_clip():
    return moving_clip


@pytest.fixture(scope="session")
def tiny_text_encoder(tmp_path_factory):
    """A random text encoder with its tokenizer of a few words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split()]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(1)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)
    return BertModel(config).eval(), tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tiny_text_encoder) -> Path:
    """The folder of a random model: chunks of 8 frames, 4 steps, 48x32 pixels. Its autoencoder is a good one: the
    PCA of smooth clips."""
    from animagic import AutoencoderKLMagi1, Magi1Pipeline

    torch.manual_seed(2)
    vae = AutoencoderKLMagi1(
        embed_dim=256, depth=1, encoder_depth=0, num_heads=4, mlp_ratio=1, video_length=8, video_size=32, z_chans=4,
        linear_path=True, scaling_factor=1.0,
    ).eval()  # fmt: skip
    clip = torch.from_numpy(np.concatenate([moving_clip(), 255 - moving_clip()[::-1]]))
    vae.fit_linear_path(clip.permute(3, 0, 1, 2)[None] / 127.5 - 1)
    text_encoder, tokenizer = tiny_text_encoder
    pipe = Magi1Pipeline(make_transformer(), vae, text_encoder, tokenizer, config=TINY_SAMPLING)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipe(tiny_model):
    """The random model, loaded; shared, so leave it as it is."""
    import animagic

    pipe = animagic.load(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def animatediff_parts():
    """Makes the parts of a random AnimateDiff model, by their names in a pipeline; its motion modules move."""

    def make(**unet_settings) -> dict:
        from diffusers import AutoencoderKL
        from transformers import CLIPTextConfig, CLIPTextModel

        from animagic.systems.animatediff.unet import AnimateDiffUNet
        from animagic.training.text_to_image import build_tokenizer

        torch.manual_seed(3)
        tokenizer = build_tokenizer([WORDS] * 4, 560, 16)
        size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=16, projection_dim=16, **size, **ends)
        kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
        kinds |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
        settings = {
            "block_out_channels": (32, 32), "layers_per_block": 1, "cross_attention_dim": 16, "norm_num_groups": 8,
            "attention_head_dim": 4, "sample_size": 8, "motion_num_attention_heads": 2, "motion_max_length": 16,
            "motion_attention_block_types": ("Temporal_Self", "Temporal_Cross"), **kinds, **unet_settings,
        }  # fmt: skip
        unet = AnimateDiffUNet(**settings).eval()
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if "temporal_transformer.proj_out" in name:
                    parameter += 0.2 * torch.randn_like(parameter)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
        vae = AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4, **blocks).eval()
        encoder = CLIPTextModel(text).eval()
        return {"unet": unet, "vae": vae, "text_encoder": encoder, "tokenizer": tokenizer}

    return make


@pytest.fixture(scope="session")
def animatediff_model(animatediff_parts, tmp_path_factory) -> Path:
    """The folder of a random AnimateDiff model: 8 frames of 32x32 pixels in 3 steps, 8 frames a second."""
    from animagic import AnimateDiffPipeline

    settings = {"num_frames": 8, "height": 32, "width": 32, "fps": 8, "num_inference_steps": 3, "context_frames": 8,
                "context_overlap": 2}  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "animated"
    AnimateDiffPipeline(**animatediff_parts(), config=settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_picture_model(tmp_path_factory) -> Path:
    """The folder of a random text-to-image model as diffusers keeps it: 32x32 pixels, latents a quarter of that, words
    of a few letters and eight whole ones."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(i) for i in range(33, 127)]
    words, merges = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)], []
    for word in ["a", "picture", "of", "red", "blue", "green", "ball", "square"]:
        whole, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for letter in rest:
            merges.append((whole, letter))
            whole += letter
            words.append(whole)
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=4, sample_size=32,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary), max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
                **sizes,
            )
        ),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=16),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(32, 32), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, cross_attention_dim=16,
            attention_head_dim=2, norm_num_groups=4,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "pictures"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def quick_zoo(tmp_path_factory) -> Path:
    """A folder of the embedded models, but that they take few steps and make small pictures."""
    from animagic import zoo

    folder = tmp_path_factory.mktemp("zoo")
    for name in zoo.names():
        (folder / name).mkdir()
        for file in zoo.entry(name).folder.iterdir():
            (folder / name / file.name).symlink_to(file)
        index = json.loads((folder / name / "model_index.json").read_text("utf-8"))
        settings = index["config"].get("runtime_config", index["config"])
        settings |= {name: least for name, least in LEAST.items() if name in settings}
        (folder / name / "model_index.json").unlink()
        (folder / name / "model_index.json").write_text(json.dumps(index), "utf-8")
    return folder


@pytest.fixture
def quick_models(quick_zoo, monkeypatch) -> None:
    """The embedded models take few steps and make small pictures where nothing else is asked for, and text-to-image
    models never take more: the same code runs, in a twentieth of the time."""
    import diffusers

    from animagic import zoo

    for name in zoo.names():
        model = zoo.entry(name)
        monkeypatch.setitem(zoo._MODELS, name, dataclasses.replace(model, folder=quick_zoo / name))
    make = diffusers.StableDiffusionPipeline.__call__
    fewest = {"num_inference_steps": LEAST["num_inference_steps"]}
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "__call__", lambda *a, **k: make(*a, **{**k, **fewest}))


@pytest.fixture(scope="session")
def embedded_pipe():
    """The embedded model, loaded once; shared, so leave it as it is."""
    import animagic

    return animagic.load("magi1-tiny")


# The command line


@dataclass
class Ran:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Assert that it was refused as wrong input is: exit code 2, one sentence on stderr, with these words in it."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("animagic: "), self
        assert self.err.count("\n") == 1, self
        assert self.err.endswith("\n"), self
        for word in words:
            assert word.lower() in self.err.lower(), self


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs `animagic WORDS` in this process, in the test's own folder."""
    from animagic.cli import main

    monkeypatch.chdir(tmp_path)
    # The library reads it when it is imported, which is long ago.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(*words) -> Ran:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def interrupt(run):
    """Runs `animagic WORDS` as `run` does, and presses Ctrl-C when a condition holds."""

    def interrupt(condition: Callable[[], bool], *words) -> Ran:
        over = threading.Event()
        # A shell's background job ignores Ctrl-C, and so would a test run in one.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)

        def press() -> None:
            while not over.wait(0.005):
                if condition():
                    signal.raise_signal(signal.SIGINT)  # Python hands it to the main thread
                    return

        watch = threading.Thread(target=press)
        watch.start()
        try:
            return run(*words)
        finally:
            over.set()
            watch.join()
            signal.signal(signal.SIGINT, before)

    return interrupt


@pytest.fixture
def generate(run, tiny_model):
    """Runs `animagic generate "a red ball bounces" WORDS` with the random model and seed 7."""

    def generate(*words, prompt: str = "a red ball bounces", seed: int | None = 7) -> Ran:
        seeds = [] if seed is None else ["--seed", seed]
        return run("generate", prompt, "--model", tiny_model, *seeds, *words)

    return generate


@pytest.fixture
def frames_of():
    """All frames of a file: uint8 (frames, height, width, 3)."""
    from animagic.media import iter_video

    return lambda path: np.stack(list(iter_video(path)))


def _let_interrupts_through() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell's background jobs ignore them, and hand that down
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path):
    """Starts `animagic WORDS` as a process of its own, in the test's own folder. It does not outlive the test."""
    processes = []

    def start(*words) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "animagic", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_let_interrupts_through,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def mount():
    """Makes a folder of its own disk: mount(folder, "size=8k"). Skips the test where that is not allowed."""
    mounted = []

    def mount(folder: Path, options: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a disk here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
