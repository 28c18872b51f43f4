"""Files that are either whole or absent, and the note that every file of ours carries inside."""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from animagic.errors import InputError, MediaError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_TROUBLE = (*_DISK_FULL, errno.EFBIG, errno.EIO, errno.EROFS)

StrPath = str | os.PathLike[str]
_STEM = 40  # characters of a name that its temporary one has
NUMBERED = re.compile(r"%0?\d*d")  # the place of the frame's number in clip-%04d.png


class Note(NamedTuple):
    """The note inside a file of ours. metadata: the caller's; size: (height, width)."""

    metadata: dict[str, Any]
    fps: Fraction | None
    size: tuple[int, int] | None


@contextmanager
def atomic_path(path: StrPath, folder: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; rename it to `path` once the block has succeeded.

    The block fills the file (or, with `folder`, the folder) of the temporary name, which keeps the suffix. It is
    locked: what a killed process has left of it, the next one to write `path` removes. What was at `path` before is
    replaced in one step; a folder may only replace an empty one. If the block raises, Ctrl-C included, the temporary
    is removed and `path` is as it was.

    Raises: MediaError if `path` cannot be written (found before the block runs), or writing in the block failed.
    """
    target = Path(path)
    check_writable(target, folder)
    _remove_dead(target)
    temporary = temporary_name(target)
    held: int | None = None
    try:
        held = _hold(temporary, folder)
        yield temporary
        _sync(temporary)
        if target.is_dir():  # empty, as checked; not every system renames over a folder
            target.rmdir()
        os.replace(temporary, target)
    except BaseException as error:
        _remove(temporary)
        # The block may fail for reasons of its own, which are not ours to rename.
        ours = isinstance(error, OSError) and str(error.filename) in (str(temporary), str(target))
        if ours or getattr(error, "errno", None) in _DISK_TROUBLE:
            raise unwritable(target, error) from error
        raise
    finally:
        if held is not None:
            os.close(held)


@contextmanager
def atomic_pattern(pattern: Path) -> Iterator[Path]:
    """As `atomic_path`, for the files of a pattern (clip-%04d.png): give a folder to write them to."""
    check_writable(pattern)
    _remove_dead(pattern)
    temporary = temporary_name(pattern)
    held: int | None = None
    try:
        held = _hold(temporary, folder=True)
        yield temporary
        _sync(temporary)
        for file in sorted(temporary.iterdir()):
            os.replace(file, pattern.parent / file.name)
    finally:
        _remove(temporary)
        if held is not None:
            os.close(held)


def check_writable(path: Path, folder: bool = False) -> None:
    """Raise MediaError unless a file, the files of a pattern or a folder can be created at `path` now."""
    try:
        if not path.parent.is_dir():
            raise MediaError(f"{path} cannot be written: {path.parent} is not a folder, so create it first.")
        if folder and path.exists() and not (path.name and path.is_dir() and not any(path.iterdir())):
            raise MediaError(f"{path} exists already and is not an empty folder: choose another name.")
        if NUMBERED.search(path.name) and (old := numbered_files(path)):  # or old and new frames would mix
            raise MediaError(f"{old[0]} exists already: remove the old frames or choose another name.")
        if not folder and path.is_dir():
            raise MediaError(f"{path} is a folder: give the name of a file.")
        if not folder and not path.is_dir():
            check_file(path)  # a pipe or a device would be replaced
        trial = temporary_name(path)
        trial.touch(exist_ok=False)
        trial.unlink()
    except MediaError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def check_file(path: Path) -> None:
    """Raises MediaError for what is there, but no file: a pipe or a device could be read for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # whoever reads it says so
    if not stat.S_ISREG(mode):
        raise MediaError(f"{path} is no file: give the name of one.")


def numbered_files(pattern: Path) -> list[Path]:
    """The existing files of a pattern such as clip-%04d.png, in the order of their numbers."""
    before, after = NUMBERED.split(pattern.name, maxsplit=1)
    matcher = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    matches = ((matcher.fullmatch(file.name), file) for file in pattern.parent.glob("*"))
    return [file for _, file in sorted((int(match[1]), file) for match, file in matches if match)]


def unwritable(path: StrPath, error: BaseException) -> MediaError:
    """The sentence for a failed write, from an error of the system or of FFmpeg."""
    if getattr(error, "errno", None) in _DISK_FULL:
        return MediaError(f"{path} cannot be written: the disk is full, so free some space and try again.")
    return MediaError(f"{path} cannot be written ({reason(error)}): choose another place, size or format.")


def reason(error: BaseException) -> str:
    """An error in a few words, without the name of a temporary file."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def pack(metadata: dict[str, Any] | None, fps: Fraction | None, height: int, width: int) -> str:
    """The note as text: the caller's metadata, and what the format itself may be unable to hold.

    GIF rounds the frame rate to 1/100 s and a picture has none; H.264 has no odd sizes. The text is pure
    ASCII, because PNG and GIF know no other.
    """
    rate = [fps.numerator, fps.denominator] if fps else None
    note = {"animagic": metadata or {}, "fps": rate, "size": [height, width]}
    try:
        return json.dumps(note)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata holds a value that JSON cannot hold: {error}") from error


def unpack(text: str | bytes | None) -> Note:
    """The note of `pack`; an empty one for a comment that is not ours."""
    try:
        note = json.loads(text or "")
        height, width = (int(side) for side in note["size"])
        fps = Fraction(*note["fps"]) if note["fps"] else None
        return Note(dict(note["animagic"]), fps if fps and fps > 0 else None, (height, width))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return Note({}, None, None)


def temporary_name(path: Path) -> Path:
    """A name beside `path` for what is not whole yet."""
    # Hidden, and short: a name as long as the system allows must leave room for the rest.
    return path.with_name(f".{path.stem[:_STEM]}.part-{secrets.token_hex(4)}{path.suffix}")


_PART = re.compile(r"\..*\.part-[0-9a-f]{8}(\.[^.]*)?(\.renewed)?", re.DOTALL)


def _hold(temporary: Path, folder: bool) -> int:
    """Create a temporary file or folder, and lock it for as long as this process lives: others can tell that it is in
    use. Returns what is to be closed."""
    if folder:
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY)
    else:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def dead_parts(folder: Path, start: str = ".") -> list[Path]:
    """Temporary files and folders in a folder whose process has died, with names that begin with `start`."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(start) and _PART.fullmatch(name)]
    except OSError:  # a folder that may be written to, but not be read
        return []
    return [path for path in (folder / name for name in names) if _is_free(path)]


def is_part_of(part: Path, target: Path) -> bool:
    """Whether a path has a name of `temporary_name(target)`."""
    return part.parent == target.parent and part.name.startswith(f".{target.stem[:_STEM]}.part-")


def _is_free(part: Path) -> bool:
    holder = part.with_name(part.name.removesuffix(".renewed"))
    try:
        handle = os.open(holder if holder.exists() else part, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _remove_dead(target: Path) -> None:
    """Remove what killed runs have left of earlier attempts to write `target`."""
    for part in dead_parts(target.parent, f".{target.stem[:_STEM]}.part-"):
        if part.name.removesuffix(".renewed").endswith(target.suffix):
            _remove(part)


def _sync(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if not file.is_dir():
            with open(file, "r+b") as handle:
                os.fsync(handle.fileno())


def replace_folder(new: Path, folder: Path) -> None:
    """Put a folder in the place of another, which is removed; if that is interrupted, the old one is put back."""
    old = temporary_name(folder)
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
