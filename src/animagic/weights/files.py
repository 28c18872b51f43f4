"""Files of weights, read and written tensor by tensor: no more of them is in memory than is asked for."""

from __future__ import annotations

import errno
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import AnimagicError, CheckpointError, InputError, first_line
from ..outside import parsed, read_text
from .values import is_dense, is_finite

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LARGEST_HEADER = 100_000_000  # bytes: the format's own limit
SHARD_BYTES = 4_000_000_000
"""How large the files of a written checkpoint become."""

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Of single files of weights."""

PathLike = str | os.PathLike


def read_json(path: Path, error: type[AnimagicError] = CheckpointError) -> dict[str, Any]:
    """A JSON file that holds an object; raises `error`, which names the file."""
    try:
        fields = parsed(read_text(path, "file"), f"file {path}", as_json=True)
    except InputError as reason:
        raise error(str(reason)) from reason
    if not isinstance(fields, dict):
        raise error(f"{path} holds a JSON {type(fields).__name__}; an object in braces is needed.")
    return fields


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. name: there; it may go by another in `Weights`."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class SafetensorsFile:
    """A safetensors file, as it is or compressed with zstd (`.zst`). It is read from front to end, so that of a
    compressed one only the tensor at hand is in memory; that is why the header is read here and not by the library.

    entries: its tensors by name, in the order in which they lie.
    Raises: CheckpointError, which names the file, and the tensor at which it is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._open() as stream:
            self._header_bytes, self.entries = self._read_header(stream)
        whole = self._header_bytes + sum(entry.nbytes for entry in self.entries.values())
        if not self._compressed and path.stat().st_size != whole:
            self._check_length(path.stat().st_size)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of these names, in the order in which they lie."""
        wanted = set(names)
        with self._open() as stream:
            stream.seek(self._header_bytes, os.SEEK_CUR)
            for name, entry in self.entries.items():
                if name in wanted:
                    yield name, self._read_tensor(stream, entry)
                else:
                    stream.seek(entry.nbytes, os.SEEK_CUR)
            if stream.read(1):  # also lets zstd compare its checksum
                raise CheckpointError(f"{self.path} is longer than its header says; download it again.")

    @property
    def _compressed(self) -> bool:
        return self.path.suffix == ".zst"

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The file as a stream of uncompressed bytes."""
        if self.path.exists() and not self.path.is_file():
            raise CheckpointError(f"{self.path} is no file.")
        try:
            with self.path.open("rb") as file:
                if not self._compressed:
                    yield file
                    return
                zstandard = _import_zstandard(self.path)
                try:
                    yield zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                except zstandard.ZstdError as error:
                    raise CheckpointError(f"{self.path} is damaged: {error}; download it again.") from error
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _read_header(self, stream: Any) -> tuple[int, dict[str, StoredTensor]]:
        first = stream.read(8)
        if first == b"version ":
            raise CheckpointError(
                f"{self.path} is only a Git LFS pointer to the weights: fetch them with git lfs pull."
            )
        length = int.from_bytes(first, "little")
        if len(first) == 8 and not 2 <= length <= _LARGEST_HEADER:
            raise CheckpointError(f"{self.path} is not a safetensors file.")
        raw = _read_exactly(stream, length) if len(first) == 8 else b""
        if len(first) < 8 or len(raw) < length:
            raise CheckpointError(f"{self.path} is cut off in its header; download it again.")
        try:
            header = json.loads(raw)
            header.pop("__metadata__", None)
            fields = sorted((tuple(f["data_offsets"]), name, f["dtype"], f["shape"]) for name, f in header.items())
            entries, position = {}, 0
            for (begin, end), name, dtype, shape in fields:
                if dtype not in _DTYPES:
                    raise CheckpointError(f"{self.path}: the tensor {name} has the type {dtype!r}, which is not known.")
                entry = StoredTensor(self.path, name, _DTYPES[dtype], tuple(shape))
                plain = all(isinstance(side, int) and side >= 0 for side in shape)
                if not plain or begin != position or end - begin != entry.nbytes:
                    raise CheckpointError(f"{self.path} is damaged: its header does not agree with the tensor {name}.")
                entries[name], position = entry, end
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path} is damaged: its header cannot be read; download it again.") from error
        return 8 + length, entries

    def _check_length(self, length: int) -> None:
        """Raises CheckpointError, which names the tensor at which the file ends, if it ends too early or too late."""
        end = self._header_bytes
        for entry in self.entries.values():
            end += entry.nbytes
            if end > length:
                raise CheckpointError(f"{self.path} is cut off in the tensor {entry.name}; download it again.")
        raise CheckpointError(f"{self.path} is longer than its header says; download it again.")

    def _read_tensor(self, stream: Any, entry: StoredTensor) -> Tensor:
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        buffer = tensor.reshape(-1).view(torch.uint8).numpy().data
        while buffer:
            count = stream.readinto(buffer)
            if not count:
                raise CheckpointError(f"{self.path} is cut off in the tensor {entry.name}; download it again.")
            buffer = buffer[count:]
        return tensor


def _read_exactly(stream: Any, length: int) -> bytes:
    """`length` bytes, or fewer where the stream ends."""
    data = bytearray()
    while len(data) < length and (piece := stream.read(length - len(data))):
        data += piece
    return bytes(data)


def _import_zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise InputError(f"{path} is compressed; to read it, pip install 'animagic[convert]'.") from error
    return zstandard


# Where the tensors are in the files of trainers, and what else may lie among them.
_WRAPPERS = ("state_dict", "controlnet", "module")
_NOTES = {"animatediff_config", "epoch", "global_step"}


class PickleFile:
    """A file of `torch.save` that holds tensors by name, or such a `state_dict` beside what trainers note (its epoch
    and the like). No code in it is run; it is mapped, not read, where it is not of the oldest kind.

    Raises: CheckpointError, which names the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries = {name: StoredTensor(path, name, t.dtype, tuple(t.shape)) for name, t in self._load().items()}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The tensors of these names, in the order in which they lie."""
        wanted = set(names)
        for name, tensor in self._load().items():
            if name in wanted:
                yield name, tensor.clone(memory_format=torch.contiguous_format)  # free of the file

    def _load(self) -> dict[str, Tensor]:
        tensors = read_pickle(self.path)
        if isinstance(tensors, dict):
            inside = next((tensors[name] for name in _WRAPPERS if name in tensors), tensors)
            tensors = {k: v for k, v in inside.items() if k not in _NOTES} if isinstance(inside, dict) else inside
        if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and is_dense(tensor) for name, tensor in tensors.items()
        ):
            raise CheckpointError(f"{self.path} holds something else than tensors by name.")
        return tensors


def read_pickle(path: Path) -> Any:
    """Read a file of `torch.save`, tensors on the CPU; no code in it is run. Raises CheckpointError, which names the
    file."""
    try:
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises almost anything for a damaged or hostile file
        raise CheckpointError(f"{path} cannot be read as tensors and nothing else: {first_line(error)}.") from error


def open_file(path: Path, allow_pickle: bool = False) -> SafetensorsFile | PickleFile:
    """One file of weights, by its suffix: `.safetensors`, `.safetensors.zst`, or of pickles `.ckpt`, `.pt`, `.pth`,
    `.bin`. Raises: CheckpointError; InputError for a pickle that is not allowed."""
    if path.suffix in (".safetensors", ".zst"):
        return SafetensorsFile(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path} is no file of weights; .safetensors, .ckpt, .pt, .pth and .bin are.")
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}.")
    check_allowed(path, allow_pickle)
    return PickleFile(path)


def check_allowed(path: Path, allow_pickle: bool) -> None:
    """Raises InputError for a pickle, unless the user allows it."""
    if not allow_pickle:
        raise InputError(
            f"{path} is a pickle, which could run code: allow it with allow_pickle (--allow-pickle) if you trust "
            "its source, or take weights in safetensors."
        )


@dataclass(frozen=True)
class Weights:
    """The tensors of a component, from one file or many.

    Args:
        source: the index, or the one file: what is named where a tensor is missing.
        files: in the order in which they are read.
        entries: tensors by name.
    """

    source: Path
    files: tuple[SafetensorsFile | PickleFile, ...]
    entries: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, path: Path, stem: str = "model", allow_pickle: bool = False) -> Weights:
        """Check the headers of one file, or of `<stem>.safetensors`, its shards, or `pytorch_model.bin` and its shards
        in a folder.

        Raises: CheckpointError; InputError for a pickle that is not allowed.
        """
        index = path if path.suffix and not path.is_dir() else find_weights(path, stem)
        if index is None:
            raise CheckpointError(
                f"{path} holds no weights: {stem}.safetensors or {stem}.safetensors.index.json is needed."
            )
        if index.name.endswith(".bin.index.json"):
            check_allowed(index, allow_pickle)
        listed = _read_index(index) if index.suffix == ".json" else {}
        paths = list(dict.fromkeys(listed.values())) if listed else [index]
        files = tuple(open_file(path, allow_pickle) for path in paths)
        entries: dict[str, StoredTensor] = {}
        for file in files:
            for name, entry in file.entries.items():
                if name in entries:
                    raise CheckpointError(
                        f"{file.path} holds the tensor {name}, and so does {entries[name].file.name}."
                    )
                entries[name] = entry
        for name, path in listed.items():
            if name not in entries or entries[name].file != path:
                raise CheckpointError(f"{path} lacks the tensor {name}, which {index.name} says it holds.")
        return cls(index, files, entries)

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """Only some tensors, under other names: {name: new name}."""
        return replace(self, entries={new: self.entries[name] for name, new in names.items()})

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries.values())

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, in the dtype in which it is stored, one at a time."""
        for file in self.files:
            names = {entry.name: name for name, entry in self.entries.items() if entry.file == file.path}
            for stored, tensor in file.read(names):
                if not is_finite(tensor):
                    raise CheckpointError(f"{file.path}: the tensor {stored} holds NaN or infinity; get it again.")
                yield names[stored], tensor


def read_tensors(path: Path, stem: str = "model", allow_pickle: bool = False) -> dict[str, Tensor]:
    """Every tensor of a file or folder by name; see `Weights.open`."""
    return dict(Weights.open(path, stem, allow_pickle).read())


def fetch(name: str, missing: str, advice: str = "", **hub: Any) -> Path:
    """The folder of a repository of the hub, fetched if it is not here.

    hub: see `huggingface_hub.snapshot_download`. Raises: InputError, which begins with `missing`, ends with `advice`.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **hub))
    except (OSError, ValueError) as error:
        raise InputError(f"{missing}, and it cannot be fetched: {first_line(error)}{advice}.") from error


def find_weights(folder: Path, stem: str = "model") -> Path | None:
    """The index or the one file of the weights in a folder; None if there are none."""
    names = [f"{stem}.safetensors.index.json", f"{stem}.safetensors", f"{stem}.safetensors.zst"]
    names += [f"{stem}.fp16.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin", f"{stem}.bin"]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_index(index: Path) -> dict[str, Path]:
    """Tensor -> the shard that holds it. Raises CheckpointError, also for a shard that is not there."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{index} has no weight_map that says which file holds which tensor.")
    shards: dict[str, Path] = {}
    for tensor, name in listed.items():
        if name not in shards:
            if (
                name != Path(name).name
                or "\\" in name
                or ":" in name
                or not name.endswith((".safetensors", ".zst", ".bin"))
            ):
                raise CheckpointError(
                    f"{index} names the file {name!r} for the tensor {tensor}; a shard must lie beside its index."
                )
            # Shards are published compressed, too, under an index that may say so or not.
            candidates = (name, f"{name}.zst", name.removesuffix(".zst"))
            found = next((index.parent / file for file in candidates if (index.parent / file).is_file()), None)
            if found is None:
                raise CheckpointError(f"{index.parent / name} is missing: it should hold the tensor {tensor}.")
            shards[name] = found
    return {tensor: shards[name] for tensor, name in listed.items()}


def write_shards(
    sizes: Mapping[str, StoredTensor | Tensor],
    tensors: Iterable[tuple[str, Tensor]],
    folder: Path,
    stem: str,
    on_bytes: Callable[[int], None] | None = None,
    limit: int = SHARD_BYTES,
    always_index: bool = False,
) -> None:
    """Write tensors in the layout of diffusers and transformers: `<stem>-0000i-of-0000n.safetensors` of at most
    `limit` bytes (or one tensor) with their index, or one `<stem>.safetensors`. About one shard at a time is in memory.

    Args:
        sizes: what is to be written; best in the order in which `tensors` come.
        on_bytes: called with the number of bytes after each file.
        always_index: write the index of a single file, too.
    Raises: CheckpointError; OSError if the disk is full.
    """
    plan = split_state_dict_into_shards_factory(
        sizes,  # type: ignore[arg-type]  # its own annotation has tensors only
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=limit,
    )
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors:
        file = plan.tensor_to_filename[name]
        shard = waiting.setdefault(file, {})
        shard[name] = tensor.contiguous()
        if len(shard) < len(plan.filename_to_tensors[file]):
            continue
        with disk_errors(folder / file):
            save_file(waiting.pop(file), folder / file, metadata={"format": "pt"})
        if on_bytes is not None:
            on_bytes(sum(tensor.nbytes for tensor in shard.values()))
        del shard, tensor
    if plan.is_sharded or always_index:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turns the errors of safetensors' writer into OSError (a full disk) and CheckpointError (all others)."""
    try:
        yield
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise CheckpointError(f"{target} cannot be written: {error}.") from error
