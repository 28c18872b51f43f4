"""The original inference files: every field is honoured, without effect, or refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from animagic.errors import InputError
from animagic.systems.animatediff import schema
from animagic.systems.animatediff.original import normalised, read_entries
from animagic.weights import inference_config
from animagic.wording import annotations_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tasks" / "animatediff-yaml.md"
ENTRY = {"motion_module": "mm.ckpt", "prompt": ["a", "b"], "n_prompt": ["c"], "steps": 25, "guidance_scale": 8}
SPARSE = {
    "controlnet_path": "sparse.ckpt",
    "controlnet_config": "sparse.yaml",
    "controlnet_images": ["first.png", "last.png"],
    "controlnet_image_indexs": [0, -1],
}
UNET = {"use_inflated_groupnorm": True, "use_motion_module": True, "motion_module_type": "Vanilla"}


@pytest.fixture
def write(tmp_path):
    """Writes a file and what it names, empty."""
    for name in ("mm.ckpt", "sparse.ckpt", "first.png", "last.png"):
        (tmp_path / name).touch()

    def write(content, name: str = "prompts.yaml", unet: dict = UNET, noise: dict = {}, sparse: dict = {}) -> Path:  # noqa: B006
        folder = tmp_path / "configs" / "inference"
        folder.mkdir(parents=True, exist_ok=True)
        sections = {"unet_additional_kwargs": unet, "noise_scheduler_kwargs": noise}
        (folder / "inference-v1.yaml").write_text(yaml.safe_dump(sections))
        (tmp_path / "sparse.yaml").write_text(yaml.safe_dump({"controlnet_additional_kwargs": sparse}))
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def read(write):
    """Writes a file of one entry and reads it."""

    def read(*settings, **fields):
        return read_entries(write([{**ENTRY, **fields}]), settings)[0]

    return read


# What a file says


def test_what_a_file_leaves_out(read, tmp_path):
    entry = read()
    entry.check()
    assert entry.size == (16, 512, 512)
    assert entry.videos == [("a", "c", None), ("b", "c", None)]
    assert entry.controls == {}
    found = {
        "motion_module": tmp_path / "mm.ckpt",
        "inference_config": tmp_path / "configs/inference/inference-v1.yaml",
    }
    assert entry.files == {name: str(path) for name, path in found.items()}
    assert (entry.fields["lora_alpha"], entry.fields["adapter_lora_scale"]) == (0.8, 1.0)
    noise = entry.scheduler.config
    assert (noise.beta_start, noise.beta_schedule, noise.clip_sample) == (0.0001, "linear", True), "those of DDIM"


def test_the_options_hold_where_an_entry_says_nothing(read):
    assert read("--L=4", "--W=64", "--H=32").size == (4, 32, 64)
    assert read("--L=4", "--W=64", "--H=32", L=8, H=256).size == (8, 256, 64)
    assert read("L=4", "0.H=128", L=8).size == (4, 128, 512)
    assert read("--fp32=true").options["--fp32"] is True


def test_settings_of_one_entry_and_of_all(write):
    path = write([ENTRY, ENTRY])
    entries = read_entries(path, ["seed=[1, 2]", "1.seed=3", "1.dreambooth_path=models/a=b.ckpt", "1.lora_alpha=1e-1"])
    assert [[seed for *_, seed in entry.videos] for entry in entries] == [[1, 2], [3, 3]]
    assert entries[1].fields["dreambooth_path"] == "models/a=b.ckpt"
    assert entries[1].fields["lora_alpha"] == 0.1


def test_files_of_the_first_release(write):
    """Entries have names, and several motion modules each."""
    one = {**ENTRY, "motion_module": ["v14.ckpt", "v15.ckpt"]}
    entries = read_entries(write({"ToonYou": one, "Lyriel": ENTRY}))
    assert [entry.fields["motion_module"] for entry in entries] == ["v14.ckpt", "v15.ckpt", "mm.ckpt"]
    assert [entry.number for entry in entries] == [0, 1, 2]


def test_an_older_name_of_the_adapters_scale(read):
    assert read(domain_lora_scale=0.5).fields["adapter_lora_scale"] == 0.5
    assert read(domain_lora_scale=0.5, adapter_lora_scale=0.7).fields["adapter_lora_scale"] == 0.7


def test_seeds_beyond_63_bits_and_one_for_all(read):
    assert [seed for *_, seed in read(seed=[18368660165286593270, -1]).videos] == [18368660165286593270, None]
    assert [seed for *_, seed in read(seed=7).videos] == [7, 7]


def test_the_frames_of_pictures(read, tmp_path):
    entry = read(L=12, **SPARSE)
    assert entry.controls == {0: str(tmp_path / "first.png"), 11: str(tmp_path / "last.png")}
    assert read(**{**SPARSE, "controlnet_images": "first.png", "controlnet_image_indexs": [0]}).controls.keys() == {0}
    assert read(**{**SPARSE, "controlnet_path": ""}).controls == {}


def test_files_are_looked_for_where_the_original_does_and_around_the_file(write, tmp_path, monkeypatch):
    (tmp_path / "configs" / "prompts").mkdir(parents=True)
    entry = read_entries(write([ENTRY], "configs/prompts/a.yaml"))[0]
    assert entry.files["motion_module"] == str(tmp_path / "mm.ckpt")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mm.ckpt").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert read_entries(entry.source)[0].files["motion_module"] == "mm.ckpt"


def test_numbers_that_yaml_takes_for_texts(write):
    entry = read_entries(write([ENTRY], noise={"beta_start": "8.5e-4", "beta_end": "12e-3"}))[0]
    assert (entry.scheduler.config.beta_start, entry.scheduler.config.beta_end) == (0.00085, 0.012)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"joint_group_norm": False, "motion_num_transformer_blocks": 2, "motion_max_length": 0}),
        ({"use_inflated_groupnorm": None}, {"joint_group_norm": True}),
        ({"motion_module_mid_block": True}, {"motion_mid_block": True}),
        ({"motion_module_decoder_only": True}, {"motion_decoder_only": True}),
        ({"motion_module_resolutions": [1, 2]}, {"motion_resolutions": (1, 2)}),
        (
            {"motion_module_kwargs": {"temporal_position_encoding": True, "num_transformer_block": 1}},
            {"motion_num_transformer_blocks": 1, "motion_max_length": 32, "motion_num_attention_heads": 8},
        ),
    ],
)
def test_the_unet_that_a_configuration_describes(write, more, expected):
    made = read_entries(write([ENTRY], unet={**UNET, **more}))[0]._motion_config()
    assert {name: made[name] for name in expected} == expected


def test_the_sparse_network_that_a_configuration_describes(write):
    entry = read_entries(write([{**ENTRY, **SPARSE}], sparse={"conditioning_channels": 4}))[0]
    entry.check()
    config = entry._sparse_config()
    assert (config["conditioning_channels"], config["set_noisy_sample_input_to_zero"]) == (4, False)
    assert config["motion_module_kwargs"]["attention_block_types"] == ["Temporal_Self"]
    assert config["motion_module_kwargs"]["num_transformer_block"] == 1


def test_equal_weights_are_known(read):
    assert read().weights == read(seed=5, guidance_scale=3, prompt=["x"], L=3).weights
    for other in ({"lora_alpha": 0.5}, SPARSE):
        assert read().weights != read(**other).weights
    assert read().weights != read("--fp32=true").weights


def test_normalised_pictures():
    picture = np.array([[[10, 20, 30], [60, 60, 60], [110, 100, 90]]], np.uint8)
    np.testing.assert_array_equal(normalised(picture)[0, :, 0], [0, 128, 255])
    assert normalised(picture).shape == picture.shape
    assert not normalised(np.full((2, 2, 3), 9, np.uint8)).any()


# What is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": None}, "entry 0 of .*: steps is missing; a whole number is needed"),
        ({"steps": 2.5}, "steps is 2.5; a whole number is needed"),
        ({"steps": 0}, "steps is 0; 1 is the least"),
        ({"guidance_scale": "much"}, "guidance_scale is much; a number is needed"),
        ({"prompt": "a"}, "prompt is a; a list of texts is needed"),
        ({"prompt": []}, "prompt has none"),
        ({"prompt": ["a", " "]}, "prompt 1 is empty"),
        ({"n_prompt": ["a", "b", "c"]}, "n_prompt has 3 values, prompt has 2; give one for all, or one each"),
        ({"n_prompt": []}, "n_prompt has 0 values"),
        ({"seed": [1, 2, 3]}, "seed has 3 values"),
        ({"seed": -2}, "-1 is the least"),
        ({"seed": 1.5}, "a whole number or a list of whole numbers is needed"),
        ({"motion_module": ""}, "motion_module is empty"),
        ({"motion_module": []}, r"motion_module is \[\]; a text is needed"),
        ({"motion_module": None}, "motion_module is missing"),
        ({"motion_modul": "x"}, "motion_modul is unknown; did you mean motion_module"),
        ({"motion_module_lora_configs": [{"path": "x"}]}, r"motion_module_lora_configs\[0\]\.alpha is missing"),
        ({"motion_module_lora_configs": [{"path": "x", "scale": 1}]}, r"lora_configs\[0\]\.scale is unknown"),
        ({"motion_module_lora_configs": ["x"]}, "a list of sections with fields is needed"),
        ({**SPARSE, "controlnet_config": ""}, "controlnet_path needs controlnet_config, too"),
        ({**SPARSE, "controlnet_images": []}, "controlnet_path needs controlnet_images, too"),
        ({**SPARSE, "controlnet_image_indexs": [0]}, "controlnet_images has 2, controlnet_image_indexs 1"),
        ({**SPARSE, "controlnet_image_indexs": [0, 16]}, "controlnet_image_indexs has 16; the video has 16"),
        ({**SPARSE, "controlnet_image_indexs": [15, -1]}, "names a frame twice"),
        ({"controlnet_conditioning_scale": 1}, "scale is unknown"),
    ],
)
def test_a_field_that_cannot_be(read, fields, message):
    with pytest.raises(InputError, match=message):
        read(**fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- {3: 4}", "3 is unknown; known are motion_module"),
        ("a: [", "is not valid YAML"),
        ("just words", "must list entries"),
        ("", "must list entries"),
        ("[]", "must list entries"),
        ("- 3", "must list entries"),
        ("- !!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_a_file_that_is_none(write, content, message):
    with pytest.raises(InputError, match=message):
        read_entries(write(content))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_entries(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        read_entries(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ({"unet": {**UNET, "use_motion_module": False}}, "use_motion_module is false; it can be true"),
        ({"unet": {}}, "use_motion_module is missing; true is needed"),
        ({"unet": {**UNET, "motion_module_type": "New"}}, "motion_module_type is New; it can be 'Vanilla'"),
        (
            {"unet": {**UNET, "unet_use_temporal_attention": True}},
            "unet_use_temporal_attention is true; it can be false",
        ),
        ({"unet": {**UNET, "use_motion_modul": 1}}, "use_motion_modul is unknown; did you mean use_motion_module"),
        ({"unet": {**UNET, "motion_module_kwargs": {"heads": 8}}}, "motion_module_kwargs: heads is unknown"),
        ({"unet": {**UNET, "motion_module_resolutions": "all"}}, "a list of whole numbers is needed"),
        (
            {"noise": {"beta_schedule": "sqrt"}},
            r"beta_schedule is sqrt; it can be 'linear', .* or 'squaredcos_cap_v2'\.$",
        ),
        ({"noise": {"beta": 1}}, "beta is unknown; did you mean beta_end"),
        (
            {"sparse": {"conditioning_channels": "rgb"}},
            "sparse.yaml, controlnet_additional_kwargs: conditioning_channels",
        ),
        ({"sparse": {"use_motion": True}}, "use_motion is unknown"),
    ],
)
def test_a_configuration_that_cannot_be(write, which, message):
    with pytest.raises(InputError, match=message):
        read_entries(write([{**ENTRY, **SPARSE}], **which))[0].check()


def test_a_section_that_is_unknown(write, tmp_path):
    path = write([ENTRY])
    config = tmp_path / "configs" / "inference" / "inference-v1.yaml"
    config.write_text("unet_additional: {}")
    with pytest.raises(InputError, match="unknown section 'unet_additional'; did you mean unet_additional_kwargs"):
        read_entries(path)[0].check()
    config.write_text("- a")
    with pytest.raises(InputError, match="must hold the sections unet_additional_kwargs, noise_scheduler_kwargs"):
        read_entries(path)[0].check()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps", "write FIELD=VALUE, or N.FIELD=VALUE"),
        ("x.steps=2", "write FIELD=VALUE"),
        ("1.steps=2", "names entry 1; .* has 1, from 0"),
        ("step=2", "unknown field; did you mean steps"),
        ("--size=2", "unknown field; known are --pretrained"),
        ("--L=0", "--L is 0; 1 is the least"),
        ("steps=[", "a whole number is needed"),
    ],
)
def test_a_setting_that_cannot_be(read, setting, message):
    with pytest.raises(InputError, match=message):
        read(setting)


# The page about them


def test_the_page_has_every_field():
    text = PAGE.read_text("utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.M))
    sections = (
        schema.EntryFields,
        inference_config.UNet,
        inference_config.MotionModule,
        inference_config.Noise,
        schema.SparseControl,
    )
    assert rows == {name for section in sections for name in section.model_fields}
    options = set(re.findall(r"^\| `(--[\w-]+)(?: \w+)?` \|", text, re.M))
    assert options == set(annotations_of(schema.Options))
