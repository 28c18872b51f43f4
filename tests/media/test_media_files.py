import errno
import os

import pytest

from animagic.errors import MediaError
from animagic.media import atomic_path


def test_appears_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), ConnectionError("mine")])
def test_a_failed_block_leaves_nothing_and_keeps_its_error(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)) as caught, atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder(tmp_path):
    target = tmp_path / "frames"
    with atomic_path(target, folder=True) as temporary:
        (temporary / "a").write_text("a")
    assert [file.name for file in target.iterdir()] == ["a"]
    with pytest.raises(MediaError, match="not an empty folder"), atomic_path(target, folder=True):
        pass


def test_disk_full_on_sync(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MediaError, match="disk is full"), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("a")
    assert not list(tmp_path.iterdir())


def test_a_long_name_is_no_obstacle(tmp_path):
    target = tmp_path / ("é" * 120 + ".txt")
    with atomic_path(target) as temporary:
        temporary.write_text("a")
    assert target.exists()
