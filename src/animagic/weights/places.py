"""Where the folders of a published model are: as given, as a configuration names them, or beside its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

FIND: Any = object()
"""Given for a part: look for it where the configuration says, and beside the weights."""


@contextmanager
def offline() -> Iterator[None]:
    """Inside, nothing is fetched from the hub; what has been fetched before is found."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_offline(error: BaseException | None) -> bool:
    """Whether an error has come from being offline."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
            return True
        error = error.__cause__ or error.__context__
    return False


def named_folder(source: str, field: str, path: str | None, bases: Iterable[Path]) -> Path:
    """The folder that a field of a configuration names, relative to one of `bases`.

    Raises: CheckpointError, which names the field and its `source`.
    """
    if not path:
        raise CheckpointError(f"{source} lacks {field}, or {field} is empty; name the folder (--set {field}=FOLDER).")
    places = list(dict.fromkeys(base / path for base in bases))
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        looked = " nor ".join(map(str, places))
        raise CheckpointError(
            f"{source}: {field} is {path}, but there is no folder {looked}; name another (--set {field}=FOLDER)."
        )
    return found


def part_folder(
    called: str,
    option: str,
    given: Any,
    configured: Sequence[Path],
    near: Iterable[Path],
    names: Sequence[str],
    inside: Sequence[str] = (),
) -> Path | None:
    """The folder of a part, which has a config.json; None where none is given.

    Args:
        called, option: the part in words, and the argument by which its folder is given.
        given: a folder, None or FIND.
        configured: where the configuration says that it is.
        near, names: folders around the weights, and its names there.
        inside: folders in it that may hold it instead.
    Raises: CheckpointError, which says where it was looked for.
    """
    if given is None:
        return None
    places = [*configured, *(place / name for place in near for name in names)] if given is FIND else [Path(given)]
    for place in places:
        for folder in (place, *(place / name for name in inside)):
            if (folder / "config.json").is_file():
                return folder
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise CheckpointError(
        f"there is no {called} (a folder with config.json): looked in {looked}; give its folder as {option}, or none "
        "to do without."
    )


def find_from(source: Path, path: str) -> Path | None:
    """A file or folder that a configuration names: relative to the working directory, as in the originals, else to the
    configuration's folder or one around it. None: there is none."""
    return next((place / path for place in (Path(), *source.absolute().parents) if (place / path).exists()), None)
