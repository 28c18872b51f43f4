"""What a run may touch: it never writes over what it reads, and beside its output it removes only what it has made."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from animagic.errors import InputError
from animagic.media.files import StrPath, atomic_path, dead_parts

MARKER = ".animagic"
"""The file that tells a folder of a run from one of the user's; the run that uses the folder holds it locked."""


def check_apart(inputs: Mapping[str, StrPath], outputs: Mapping[str, StrPath | None]) -> None:
    """Raises InputError where an output is an input, an existing file in a folder that is one, or another output.

    Args:
        inputs, outputs: paths by what they are called in the sentence; None stands for one that is not written.
    """
    written: dict[str, tuple[str, str]] = {}
    for called, output in outputs.items():
        if output is None:
            continue
        place = _place(output)
        for name, source in inputs.items():
            folder = _place(source)
            inside = os.path.isdir(folder) and os.path.isfile(place) and place.startswith(folder + os.sep)
            if place == folder or inside or _same(place, folder):
                what = f"lies in the {name}" if inside else f"is the {name}"
                raise InputError(f"the {called} {output} {what} {source}; choose another name for the {called}.")
        other = next((name for known, name in written.items() if known == place or _same(known, place)), None)
        if other is not None:
            raise InputError(f"the {called} {output} is also the {other[0]}; give each a name of its own.")
        written[place] = (called, str(output))


def _place(path: StrPath) -> str:
    return os.path.realpath(path)


def _same(first: str, second: str) -> bool:
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def check_ours(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Raises InputError if something lies at `path`, whose name nobody has typed, that is not of an earlier run."""
    if os.path.lexists(path) and not (path.is_file() and is_ours(path)):
        raise InputError(f"{path} is there already and is not of an earlier run; move it, or choose another output.")


class RunPlace:
    """A folder of a run beside its output: marked, and emptied only of the run's own files.

    Args:
        files: patterns of the names of its files. note: the one by which a folder of an earlier version, without the
            marker, is recognised.
    Raises: InputError for a folder that no run has made.
    """

    def __init__(self, folder: StrPath, files: Iterable[str], note: str = MARKER):
        self.folder, self.files = Path(folder), (*files, note)
        self._marker = self.folder / MARKER
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, but the run is to be kept there; move it.")
        is_ours = self._marker.is_file() or (self.folder / note).is_file()
        if self.folder.is_dir() and not is_ours and any(self.folder.iterdir()):
            raise InputError(
                f"{self.folder} holds files that no run has left there; move it, or choose another output."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._marker.touch()
        for part in dead_parts(self.folder):
            part.unlink()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While no other process uses the folder. Raises: InputError if one does."""
        lock = FileLock(self._marker, timeout=0)
        try:
            lock.acquire()  # the system frees it when the process dies
        except Timeout as error:
            raise InputError(f"{self.folder} is in use by another run; wait, or choose another output.") from error
        try:
            yield
        finally:
            lock.release()

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file of the folder anew: a crash at any moment leaves the old one or the new one, whole."""
        with atomic_path(self.folder / name) as new:
            write(new)

    def remove(self) -> None:
        """Remove what the run has made; the folder stays if there is something else in it."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and any(fnmatchcase(name, pattern) for pattern in self.files):
                path.unlink()
            elif path.is_dir():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
        self._marker.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
