"""Where the folders of a published model are found, and what is said where they are not."""

from pathlib import Path

import pytest

from animagic.errors import CheckpointError
from animagic.weights.places import FIND, named_folder, part_folder


def part(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_that_is_named_is_relative_to_the_first_base_that_has_it(tmp_path):
    bases = [tmp_path / "here", tmp_path / "there"]
    (bases[1] / "weights").mkdir(parents=True)
    assert named_folder("a.json", "paths.load", "weights", bases) == bases[1] / "weights"
    (bases[0] / "weights").mkdir(parents=True)
    assert named_folder("a.json", "paths.load", "weights", bases) == bases[0] / "weights"
    with pytest.raises(CheckpointError, match=r"a\.json: paths\.load is gone, but there is no folder \S+here/gone nor"):
        named_folder("a.json", "paths.load", "gone", bases)
    for nothing in ("", None):
        with pytest.raises(CheckpointError, match=r"a\.json lacks paths\.load, or paths\.load is empty"):
            named_folder("a.json", "paths.load", nothing, bases)


def test_a_part_is_as_given_or_as_configured_or_beside_the_weights(tmp_path):
    def find(given, configured=()):
        near = [tmp_path / "weights", tmp_path]
        return part_folder("text encoder", "t5", given, configured, near, ["t5", "text"], ["xxl"])

    assert find(None) is None
    with pytest.raises(CheckpointError, match=rf"no text encoder .*{tmp_path}/text; give its folder as t5, or none"):
        find(FIND)
    beside = part(tmp_path / "text")
    assert find(FIND) == beside
    configured = part(tmp_path / "configured" / "xxl")
    assert find(FIND, [tmp_path / "configured"]) == configured
    given = part(tmp_path / "given")
    assert find(given, [tmp_path / "configured"]) == given
    with pytest.raises(CheckpointError, match="looked in gone; "):
        find("gone", [tmp_path / "configured"])
