"""The original configuration files: every field is honoured, without effect, or refused by name."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from goldens import golden_path

from animagic.errors import InputError
from animagic.systems.magi1.original import _tile_frames, find_special_tokens, read_config
from animagic.systems.magi1.published import NAMES, config_of
from animagic.systems.magi1.schema import SECTIONS, check_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "original-command-line.md"
ONE_DEVICE = ["engine_config.cp_size=1"]
FIELDS = {section: schema.model_fields for section, schema in SECTIONS.items()}


@pytest.fixture
def config() -> dict:
    """A configuration that nothing is wrong with."""
    return copy.deepcopy(config_of("4.5B_base"))


@pytest.fixture
def write(tmp_path):
    def write(config) -> Path:
        path = tmp_path / "config.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    return write


# The published files


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_read_unchanged(name):
    path = golden_path("magi1", "configs", f"{name}_config.json")
    if name.startswith("24B"):
        with pytest.raises(
            InputError, match=r"cp_size is 8; it can be 1: .*one device \(--set engine_config\.cp_size=1\)\.$"
        ):
            read_config(path)
    config = json.loads(path.read_text())
    config["engine_config"]["cp_size"] = 1
    assert read_config(path, ONE_DEVICE) == config


def test_the_tiny_configurations_of_the_goldens_are_read():
    manifest = json.loads(golden_path("magi1", "manifest.json").read_text())
    configs = [entry["config"] for entry in manifest.values() if "config" in entry]
    assert len(configs) == 7
    for config in configs:
        assert check_config(config) == config


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_the_published_files_is_in_the_table_and_no_other(name):
    config = config_of(name)
    assert {section: set(fields) for section, fields in config.items()} == {
        section: set(fields) for section, fields in FIELDS.items()
    }


def test_what_is_left_out_has_its_default(config):
    for section, fields in FIELDS.items():
        for name, about in fields.items():
            if not about.is_required():
                del config[section][name]
    filled = check_config(config)
    assert filled["runtime_config"]["text_scales"] == [7.5, 7.5, 7.5, 0.0, 0.0]
    assert filled["engine_config"]["kv_offload"] is False
    assert {section: set(fields) for section, fields in filled.items()} == {s: set(f) for s, f in FIELDS.items()}


def test_no_field_is_read_by_nobody():
    """Each is an argument of the transformer, a setting of the sampler, used by load_pipeline, fixed, or without effect
    for one process."""
    import inspect
    from typing import get_args

    from animagic import Magi1Transformer3DModel
    from animagic.systems.magi1.denoiser import Magi1Sampling

    read = set(inspect.signature(Magi1Transformer3DModel.__init__).parameters)
    read |= set(Magi1Sampling.model_fields)
    read |= {"params_dtype", "load", "t5_pretrained", "vae_pretrained", "t5_device", "fp8_quant", "kv_offload"}
    for section in FIELDS.values():
        for name, about in section.items():
            fixed = len(get_args(about.annotation)) == 1
            without_effect = f"| `{name}` | has no effect" in PAGE.read_text("utf-8")
            assert name in read or fixed or without_effect, name


def test_the_sampler_gets_every_value(config):
    from animagic.systems.magi1.denoiser import Magi1Sampling

    runtime = config["runtime_config"]
    runtime.update(clean_t=0.99, window_size=2, fps=12, chunk_width=4, seed=5, num_steps=8, clean_chunk_kvrange=-1)
    runtime.update(cfg_t_range=[0.0, 0.5], prev_chunk_scales=[2.0, 1.0], text_scales=[5.0, 0.0], scale_factor=0.5)
    runtime.update(noise2clean_kvrange=[], num_frames=7, video_size_h=64, video_size_w=32, cfg_number=1)
    config["engine_config"].update(distill=True, distill_nearly_clean_chunk_threshold=0.4, shortcut_mode="16,16,8")
    sampling = Magi1Sampling.from_config(check_config(config))
    for section in config.values():
        for name, value in section.items():
            if hasattr(sampling, name):
                assert getattr(sampling, name) == value, name


def test_the_sampler_refuses_what_a_configuration_may_not_say():
    from animagic.systems.magi1.denoiser import Magi1Sampling

    assert Magi1Sampling.from_config({"runtime_config": {"noise2clean_kvrange": (3, 2)}}).noise2clean_kvrange == [3, 2]
    for config, said in (
        ({"runtime_config": {"num_steps": "many"}}, "the model's num_steps is many; a whole number is needed"),
        ({"runtime_config": {"cfg_number": 2}}, "the model's cfg_number is 2; it can be 1 or 3"),
        ({"engine_config": {"shortcut_mode": "8"}}, "the model's shortcut_mode is 8; it can be"),
    ):
        with pytest.raises(InputError, match=said):
            Magi1Sampling.from_config(config)


# What is refused


@pytest.mark.parametrize("section", FIELDS)
def test_an_unknown_field_is_named_with_its_section_and_the_nearest(config, section, write):
    known = next(iter(FIELDS[section]))
    config[section][known + "s"] = 1
    path = write(config)
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}: {section}.{known}s is unknown; did you mean {known}?"


def test_unknown_sections_and_far_names(config):
    with pytest.raises(InputError, match="unknown section 'runtime'; did you mean runtime_config"):
        check_config({**config, "runtime": {}})
    config["engine_config"]["qqq"] = 1
    with pytest.raises(
        InputError, match=r"engine_config\.qqq is unknown; known are distill_nearly_clean_chunk_threshold, "
    ):
        check_config(config)


@pytest.mark.parametrize(
    "path",
    [
        f"{section}.{name}"
        for section, fields in FIELDS.items()
        for name, about in fields.items()
        if about.is_required()
    ],
)
def test_a_field_that_is_needed_is_named(config, path):
    section, name = path.split(".")
    del config[section][name]
    with pytest.raises(InputError, match=f"{path} is missing; .* needed"):
        check_config(config)


@pytest.mark.parametrize("path", [f"{section}.{name}" for section, fields in FIELDS.items() for name in fields])
def test_a_value_of_another_kind_is_refused_for_every_field(config, path):
    section, name = path.split(".")
    for wrong in (
        None,
        {},
        "1" if FIELDS[section][name].annotation is not str else 1,
        [True],
        float("nan"),
        float("inf"),
    ):
        config[section][name] = wrong
        with pytest.raises(InputError, match=rf": {path} is .*; (.* is needed\.|it can be .*)$"):
            check_config(config)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model_config.model_name", "other", "it can be 'videodit_ardf'"),
        ("model_config.num_layers", 0, "1 is the least"),
        ("model_config.num_layers", True, "a whole number is needed"),
        ("model_config.num_layers", 3.0, "a whole number is needed"),
        ("model_config.apply_layernorm_1p", False, "it can be true"),
        ("model_config.params_dtype", "torch.float64", "'torch.bfloat16', 'torch.float16' or 'torch.float32'"),
        ("model_config.t_patch_size", 2, "it can be 1"),
        ("model_config.xattn_cond_hidden_ratio", 0.5, "it can be 1"),
        ("model_config.cond_gating_ratio", 2.0, "it can be 1"),
        ("runtime_config.cfg_number", 2, "it can be 1 or 3"),
        ("runtime_config.cfg_t_range", [], "one at least"),
        ("runtime_config.text_scales", [7.5], "text_scales has 1"),
        ("runtime_config.cfg_t_range", [0.0, 0.3, 0.1, 0.5, 0.999], "must increase"),
        ("runtime_config.noise2clean_kvrange", [5, 0], "1 is the least"),
        ("runtime_config.clean_chunk_kvrange", 0, "or -1"),
        ("runtime_config.clean_chunk_kvrange", -2, "-1 is the least"),
        ("runtime_config.seed", -1, "0 is the least"),
        ("runtime_config.num_frames", 0, "1 is the least"),
        ("runtime_config.num_steps", 3, "at least 4 are needed"),
        ("runtime_config.fps", 23.976, "a whole number is needed"),
        ("runtime_config.t5_device", "tpu", "'cpu' or 'cuda'"),
        ("runtime_config.temporal_downsample_factor", 8, "it can be 4"),
        ("engine_config.distributed_backend", "mpi", "'nccl' or 'gloo'"),
        ("engine_config.distributed_timeout_minutes", 0, "1 is the least"),
        ("engine_config.pp_size", 2, "--set engine_config.pp_size=1"),
        ("engine_config.cp_size", 8, "--set engine_config.cp_size=1"),
        ("engine_config.cp_strategy", "ring", "cp_ulysses"),
        ("engine_config.shortcut_mode", "8,8,16", "'8,16,16' or '16,16,8'"),
        ("engine_config.enable_cuda_graph", True, "--set engine_config.enable_cuda_graph=false"),
    ],
)
def test_values_that_are_not_honoured_are_refused_by_name(config, path, value, said):
    section, name = path.split(".")
    config[section][name] = value
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        check_config(config)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[]", "must hold the sections model_config, "),
        ('{"model_config": 3}', "section 'model_config' is 3"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["nothing", "list", "number", "deep"],
)
def test_files_that_hold_no_configuration(write, text, said):
    with pytest.raises(InputError, match=said):
        read_config(write(text))


def test_a_configuration_that_is_no_text(write):
    file = write("")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        read_config(file)


# Settings in place of the file's


def test_settings_stand_in_place_of_what_the_file_says(config, write):
    changed = read_config(
        write(config),
        [
            "runtime_config.num_frames=240",
            "runtime_config.seed=7",
            "runtime_config.text_scales=[5, 5, 5, 0, 0]",
            "engine_config.shortcut_mode=16,16,8",
            "runtime_config.load=/models/a=b",
            "engine_config.kv_offload=false",
            " model_config.x_rescale_factor = 0.5",
            "runtime_config.seed=8",
        ],
    )
    runtime, engine = changed["runtime_config"], changed["engine_config"]
    assert (runtime["num_frames"], runtime["seed"], runtime["load"]) == (240, 8, "/models/a=b")
    assert (runtime["text_scales"], engine["shortcut_mode"]) == ([5, 5, 5, 0, 0], "16,16,8")
    assert engine["kv_offload"] is False
    assert changed["model_config"]["x_rescale_factor"] == 0.5
    assert json.loads(write(config).read_text()) == config


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("", "write SECTION.FIELD=VALUE"),
        ("engine_config.cp_size", "write SECTION.FIELD=VALUE"),
        ("cp_size=1", "write SECTION.FIELD=VALUE"),
        ("engine.cp_size=1", "did you mean engine_config?"),
        ("engine_config.cpsize=1", "did you mean cp_size?"),
        ("runtime_config.seed=one", "a whole number is needed"),
        ("engine_config.cp_size=", "it can be 1"),
        ("engine_config.distill=maybe", "true or false is needed"),
        ("runtime_config.text_scales=7.5", "a list of numbers is needed"),
    ],
)
def test_settings_that_are_not_understood(config, write, setting, said):
    with pytest.raises(InputError, match=re.escape(said)):
        read_config(write(config), [setting])


def test_a_setting_repairs_what_the_file_has_wrong(config, write):
    config["engine_config"].update(cp_size="eight", pp_size=4)
    path = write(config)
    assert read_config(path, [*ONE_DEVICE, "engine_config.pp_size=1"])["engine_config"]["cp_size"] == 1


# Around the files


@pytest.mark.parametrize(
    "place",
    [
        "special_tokens.npz",
        "example/assets/special_tokens.npz",
        "weights/special_tokens.npz",
        "assets/special_tokens.npz",
    ],
)
def test_special_tokens_are_found_where_the_original_has_them(tmp_path, config, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "4.5B").mkdir(parents=True)
    config["runtime_config"]["load"] = "weights/4.5B"
    file = tmp_path / "example" / "4.5B" / "config.json"
    file.parent.mkdir(parents=True)
    assert find_special_tokens(file, config) is None
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(b"")
    found = find_special_tokens(file, config)
    assert found is not None
    assert found.resolve() == tmp_path / place


@pytest.mark.parametrize(
    ("fps", "chunk_width", "frames"), [(24, 6, 12), (8, 6, 8), (1, 6, 8), (40, 6, 24), (16, 3, 12)]
)
def test_tiles_last_half_a_second_and_leave_no_single_latent_frame(fps, chunk_width, frames):
    assert _tile_frames(fps, chunk_width) == frames


def test_the_page_has_every_field():
    _, *tables = re.split(r"^### `(\w+)`$", PAGE.read_text("utf-8"), flags=re.M)
    listed = {
        section: re.findall(r"^\| `(\w+)` \| .", text, re.M)
        for section, text in zip(tables[::2], tables[1::2], strict=True)
    }
    assert {section: listed[section] for section in FIELDS} == {
        section: list(known) for section, known in FIELDS.items()
    }
