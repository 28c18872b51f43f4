"""Embedded models are replaced whole or not at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from animagic import InputError
from animagic.zoo import EmbeddedModel, shipping

SHEET = np.zeros((8, 8, 3), np.uint8)
CARD = "# tiny\n\n## Measured\n\n<!-- scores -->\n\nold figures\n\n<!-- /scores -->\n\n## Licence\n"


def model_folder(folder: Path, value: float, parts=("transformer", "vae")) -> Path:
    for part in parts:
        (folder / part).mkdir(parents=True)
        save_file({"x": torch.full((2,), value)}, folder / part / "model.safetensors")
    index = {"_class_name": "Magi1Pipeline", "transformer": ["a", "b"], "vae": ["a", "b"], "of": value}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def model(tmp_path) -> EmbeddedModel:
    folder = model_folder(tmp_path / "zoo" / "tiny", 1.0)
    save_file({"x": torch.zeros(2)}, folder / "transformer" / "model-00002.safetensors")  # a shard that must go
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("Apache-2.0")
    return EmbeddedModel("tiny", folder, "a toy")


def files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_model_is_replaced(model, tmp_path):
    new = model_folder(tmp_path / "new", 2.0, ("transformer", "vae", "loras"))
    before = shipping.fingerprint(model)
    shipping.replace(model, new, {"score": 2.5}, "new figures", SHEET)
    kept = files(model.folder)
    assert {name: kept[name] for name in files(new)} == files(new)
    assert set(kept) == {*files(new), "README.md", "LICENSE", "scores.json", "sheet.jpg"}
    assert shipping.scores(model) == {"score": 2.5}
    assert kept["README.md"].decode() == CARD.replace("old", "new")
    assert shipping.fingerprint(model) != before
    assert [folder.name for folder in model.folder.parent.iterdir()] == ["tiny"]
    shipping.replace(model, new, {"score": 3.5}, "newer figures", SHEET)  # and again
    assert (model.folder / "README.md").read_text() == CARD.replace("old", "newer")


def test_what_a_model_gets_from_another_one_does_not_come_into_its_folder(model, tmp_path):
    shutil.rmtree(model.folder / "vae")
    shipping.replace(model, model_folder(tmp_path / "new", 2.0), {}, "", SHEET)
    assert not (model.folder / "vae").exists()
    assert (model.folder / "transformer").is_dir()


@pytest.mark.parametrize("moment", ["copying", "swapping"])
def test_a_replacement_that_was_killed_leaves_the_old_model(model, tmp_path, moment, monkeypatch):
    before, rename = files(model.folder), Path.rename

    def killed(path, target):
        if moment == "swapping" and path == model.folder:
            rename(path, target)
        raise KeyboardInterrupt  # as good as a kill: nothing is cleaned up

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        shipping.replace(model, model_folder(tmp_path / "new", 2.0), {"score": 1.0}, "new", SHEET)
    monkeypatch.undo()
    assert model.folder.exists() == (moment == "copying")
    shipping.recover(model)
    assert files(model.folder) == before
    assert [folder.name for folder in model.folder.parent.iterdir()] == ["tiny"]


def test_a_model_without_weights_has_no_fingerprint(model):
    assert shipping.fingerprint(model)
    (model.folder / "model_index.json").unlink()
    assert shipping.fingerprint(model) == ""
    assert shipping.scores(model) == {}


def test_a_card_must_have_a_place_for_figures(model):
    shipping.check_card(model)
    (model.folder / "README.md").write_text("# tiny\n")
    with pytest.raises(InputError, match=r"README\.md has no lines <!-- scores -->"):
        shipping.check_card(model)
