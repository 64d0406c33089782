"""A safetensors file in memory, as it will lie in the store: parts are copied to their places in it, and its bytes are what is hashed and sent.

The format is 8 bytes of header size, a JSON header, and the tensors one after the other (huggingface.co/docs/safetensors). The library's writer takes
tensors and makes their bytes itself, one copy more and all of it cold memory; here the copy that training waits for is the only one.
Where a file holds rows of a tensor, its header says which, in the words of torch.distributed.checkpoint's HuggingFaceStorageWriter, whose reader
opens such files, too.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from abruzzi_jobs.distributed.whole import Part

WEIGHTS, OPTIMIZER = "model", "optimizer"
SUFFIX = ".safetensors"

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Of the format; what a checkpoint has."""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_SIZE = struct.Struct("<Q")
_ALIGNMENT = 8
_PAGE_BYTES = 4096
_PLACES, _VERSION = "DCP_SHARDING_INFO", "DCP_VERSION"
_OFFSETS = "saved_offsets"
_SAVER = re.compile(r"-(\d{5})-of-(\d{5})" + re.escape(SUFFIX) + "$")


def file_name(kind: str, number: int = 0, count: int = 1) -> str:
    """Of weights or optimizer state: `model.safetensors`, or `model-00001-of-00004.safetensors` of rank 0 of 4."""
    return f"{kind}{SUFFIX}" if count == 1 else f"{kind}-{number + 1:05d}-of-{count:05d}{SUFFIX}"


def saver_of(path: str) -> tuple[int, int] | None:
    """(rank, of how many) by a file's name; None for what says nothing of it."""
    found = _SAVER.search(path)
    return None if found is None else (int(found[1]) - 1, int(found[2]))


WEIGHTS_FILE = file_name(WEIGHTS)
"""Of a checkpoint that one rank has saved."""


def is_of_kind(path: str, kind: str) -> bool:
    """Is it the file of that kind, or one of its files?"""
    return path.endswith(SUFFIX) and path.removesuffix(SUFFIX).partition("-")[0] == kind


class TensorFile:
    """Of a rank's parts. Made once, filled at every save."""

    def __init__(self, parts: Sequence[Part]) -> None:
        ordered = sorted(parts, key=lambda part: (-part.tensor.dtype.itemsize, part.name))
        header = _header(ordered)
        begin = _SIZE.size + len(header)
        size = begin + sum(part.tensor.nbytes for part in ordered)
        is_cuda = any(part.tensor.is_cuda for part in ordered)
        # Written once, so that the first copy finds it mapped; from a page's begin on, so that a disk can take it from there (DirectoryStore). numpy asks the
        # kernel for large pages, which torch does not: a copy into them looks fewer up.
        room_bytes = size + _PAGE_BYTES
        room = (
            torch.empty(room_bytes, dtype=torch.uint8, pin_memory=True)
            if is_cuda
            else torch.from_numpy(np.empty(room_bytes, np.uint8))
        )
        room.fill_(0)
        self._bytes = room[-room.data_ptr() % _PAGE_BYTES :][:size]
        self.content: memoryview = self._bytes.numpy().data
        self.content[:begin] = _SIZE.pack(len(header)) + header
        self._places: dict[str, Part] = {}
        for part in ordered:
            place = self._bytes[begin : begin + part.tensor.nbytes]
            self._places[part.name] = replace(part, tensor=place.view(part.tensor.dtype).view(part.tensor.shape))
            begin += part.tensor.nbytes

    @torch.no_grad()
    def fill(self, parts: Sequence[Part]) -> None:
        """With the values of now. On CUDA the copies are under way when this returns: synchronize."""
        for part in parts:
            self._places[part.name].tensor.copy_(part.tensor, non_blocking=True)

    def parts(self) -> list[Part]:
        """As they lie in it."""
        return list(self._places.values())


@dataclass(frozen=True, slots=True)
class Stored:
    """Rows of a whole tensor, in a file."""

    name: str
    first: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    """Byte of the file."""

    @property
    def last(self) -> int:
        return self.first + (self.shape[0] if self.shape else 1)

    def of(self, content: Tensor) -> Tensor:
        """A view of the file's bytes."""
        size = prod(self.shape) * self.dtype.itemsize
        flat = content[self.begin : self.begin + size]
        # A view needs its type's alignment, which the format does not promise.
        aligned = flat if flat.data_ptr() % self.dtype.itemsize == 0 else flat.clone()
        return aligned.view(self.dtype).view(self.shape)


def read_header(content: Tensor) -> list[Stored]:
    """Of a file's bytes. Raises ValueError where it is no such file."""
    try:
        (size,) = _SIZE.unpack(content[: _SIZE.size].numpy().tobytes())
        begin = _SIZE.size + size
        table = json.loads(content[_SIZE.size : begin].numpy().tobytes())
        places = json.loads(table.pop("__metadata__", {}).get(_PLACES, "{}"))
        found = []
        for name, row in table.items():
            first, last = row["data_offsets"]
            dtype, shape = _DTYPES[row["dtype"]], tuple(row["shape"])
            if not 0 <= first <= last <= len(content) - begin or last - first != prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} does not lie in it")
            found.append(Stored(name, _first(places, name), dtype, shape, begin + first))
    except (struct.error, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no safetensors file: {error}") from error
    return found


def read_tensors(files: Mapping[str, Path], kind: str) -> dict[str, Tensor]:
    """Whole tensors of a checkpoint's files on this machine, {name in the checkpoint: path}: what several files have rows of is joined.

    Raises FileNotFoundError without a file of this kind, ValueError where rows are missing, SafetensorError.
    """
    chosen = {name: path for name, path in sorted(files.items()) if is_of_kind(name, kind)}
    if not chosen:
        raise FileNotFoundError(f"no {file_name(kind)}, nor parts of it")
    rows: dict[str, list[tuple[int, Tensor]]] = {}
    for path in chosen.values():
        with safe_open(path, framework="pt") as archive:
            places = json.loads((archive.metadata() or {}).get(_PLACES, "{}"))
            for name in archive.keys():  # noqa: SIM118 (not a dict)
                rows.setdefault(name, []).append((_first(places, name), archive.get_tensor(name)))
    return {name: _joined(name, found) for name, found in rows.items()}


def tensors_of_folder(folder: Path, kind: str) -> dict[str, Tensor]:
    """As `read_tensors`, of a folder that has a checkpoint's files under their names."""
    return read_tensors({path.name: path for path in folder.glob(f"*{SUFFIX}")}, kind)


def _header(parts: Sequence[Part]) -> bytes:
    """Padded, so that the tensors are aligned. What is whole needs no word about it: the file is as the library's writer makes it."""
    table: dict[str, object] = {}
    if any(not part.is_whole for part in parts):
        places = {
            part.name: {_OFFSETS: [part.first, *[0] * (part.tensor.ndim - 1)][: part.tensor.ndim]} for part in parts
        }
        table["__metadata__"] = {"format": "pt", _VERSION: "1.0", _PLACES: json.dumps(places)}
    at = 0
    for part in parts:
        end = at + part.tensor.nbytes
        table[part.name] = {
            "dtype": _NAMES[part.tensor.dtype],
            "shape": list(part.tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-(_SIZE.size + len(text)) % _ALIGNMENT)


def _first(places: Mapping[str, Mapping[str, Sequence[int]]], name: str) -> int:
    return next(iter(places[name][_OFFSETS]), 0) if name in places else 0


def _joined(name: str, rows: list[tuple[int, Tensor]]) -> Tensor:
    rows.sort(key=lambda row: row[0])
    at = 0
    for first, tensor in rows:
        if first != at:
            raise ValueError(f"{name}: rows {at} to {first} are in no file")
        at += len(tensor) if tensor.ndim else 1
    return rows[0][1] if len(rows) == 1 else torch.cat([tensor for _, tensor in rows])
