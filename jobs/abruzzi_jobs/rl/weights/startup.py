"""Beginning from a checkpoint: each of its bytes is read by exactly one member, then broadcast (paper 3.3.3).

Members read parts that follow each other in the files, and broadcast them in this order; so one member of each file can compare its digest with the
manifest on the way, and nobody reads anything twice for that. The header of a safetensors file is read by the first member and told to all.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import CorruptArtifact, ObjectStore, blob_key
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.plan import Parameter
from abruzzi_jobs.rl.weights.reload import Sink, as_parameter
from abruzzi_jobs.rl.weights.transport import Transport
from abruzzi_jobs.rl.weights.worker import BUCKET_BYTES, DEADLINE_SECONDS, CheckpointWorker, UpdateReport

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Of the safetensors format, as torch calls them."""

_PREFIX = struct.Struct("<Q")
_HEADER_LIMIT_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class File:
    """One safetensors file of a checkpoint. `open_at(start)`: a stream from that byte on."""

    name: str
    open_at: Callable[[int], BinaryIO]
    digest: str | None = None
    """`sha256:…`; None: not compared."""
    manifest: Manifest | None = None
    """Of which it is a file; for errors."""


def files_of_folder(folder: Path) -> list[File]:
    """Of a folder as others write it: `*.safetensors`, without digests."""

    def opener(path: Path) -> Callable[[int], BinaryIO]:
        def open_at(start: int) -> BinaryIO:
            stream = path.open("rb", buffering=0)
            stream.seek(start)
            return cast(BinaryIO, stream)

        return open_at

    return [File(path.name, opener(path)) for path in sorted(folder.glob("*.safetensors"))]


def files_of_manifest(
    store: ObjectStore, manifest: Manifest, output_prefix: str, *, names: Sequence[str]
) -> list[File]:
    """Of a committed checkpoint, with the digests of its manifest. `names`: which of its files are weights."""

    def opener(key: str) -> Callable[[int], BinaryIO]:
        return lambda start: store.open(key, start=start)

    entries = {entry.path: entry for entry in manifest.files}
    return [
        File(name, opener(blob_key(output_prefix, entries[name].digest)), entries[name].digest, manifest)
        for name in names
    ]


class Weights:
    """A sink for who wants tensors, not an engine: `tensors` by their names once an update has ended."""

    def __init__(self) -> None:
        self.version = -1
        self.tensors: dict[str, Tensor] = {}
        self._next: dict[str, Tensor] = {}

    def begin_update(self, version: int) -> None:
        self._next = {}

    def load_bucket(self, tensors: Any) -> None:
        for name, tensor in tensors:
            self._next[name] = tensor.clone()

    def finish_update(self, version: int) -> None:
        self.tensors, self._next, self.version = self._next, {}, version

    def abandon_update(self) -> None:
        self._next = {}


def start_from(
    group: Group,
    transport: Transport,
    files: Sequence[File],
    sink: Sink,
    *,
    version: int = 0,
    bucket_bytes: int = BUCKET_BYTES,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> UpdateReport:
    """All members call it with the same files. `sink.version` must be below `version`.

    Raises WeightUpdateFailed on all of them where a file is no safetensors file, or does not hash to its digest.
    """
    worker = _Starting(
        group, transport, sink=sink, bucket_bytes=bucket_bytes, deadline_seconds=deadline_seconds, interleave=False
    )
    worker.files, worker.version = files, version
    return worker.update()


class _Starting(CheckpointWorker):
    """Reads its share when the update begins, and hashes its files as they pass."""

    files: Sequence[File] = ()
    version = 0

    def _prepare(self) -> None:
        group = self.group
        if self.sink is None or self.sink.version >= self.version:
            raise ValueError(f"this member does not begin: its sink serves a version at or above {self.version}")
        group.place = "headers of the checkpoint"
        if group.rank == 0:
            headers = [_read_header(file) for file in self.files]
            group.tell("headers", 0, headers=headers)
        else:
            headers = group.expect("headers", 0, [0])[0]["headers"]
        layouts = [_layout(file.name, header) for file, header in zip(self.files, headers, strict=True)]
        self._hashers: dict[int, Any] = {}
        self._hashed_by: dict[str, Any] = {}
        for index, (file, header, layout) in enumerate(zip(self.files, headers, layouts, strict=True)):
            if file.digest is not None and index % group.size == group.rank:
                content = header.encode()
                self._hashers[index] = hashlib.sha256(_PREFIX.pack(len(content)) + content)
                self._hashed_by |= dict.fromkeys((e.parameter.name for e in layout), self._hashers[index])
        group.place = "reading of this member's share"
        self.register(self.version, self._read(headers, layouts), copy=False)

    def _saw(self, parameter: Parameter, flat_N: Tensor) -> None:
        if (hasher := self._hashed_by.get(parameter.name)) is not None:
            hasher.update(flat_N.cpu().numpy().data)

    def _check(self) -> None:
        for index, hasher in self._hashers.items():
            file = self.files[index]
            if f"sha256:{hasher.hexdigest()}" != file.digest:
                if file.manifest is not None:
                    raise CorruptArtifact(file.manifest, file.name, "does not hash to its digest")
                raise ValueError(f"{file.name} does not hash to its digest")

    def _read(self, headers: Sequence[str], layouts: Sequence[Sequence[_Entry]]) -> dict[str, Tensor]:
        """This member's share: about as many bytes as any other's, in whole tensors."""
        rank, size = self.group.rank, self.group.size
        total = sum(entry.parameter.nbytes for layout in layouts for entry in layout)
        before, found = 0, {}
        for file, header, layout in zip(self.files, headers, layouts, strict=True):
            own = []
            for entry in layout:
                if min(size - 1, before * size // max(1, total)) == rank:
                    own.append(entry)
                before += entry.parameter.nbytes
            if own:
                found |= _read_range(file, _PREFIX.size + len(header.encode()), own)
        return found


@dataclass(frozen=True, slots=True)
class _Entry:
    parameter: Parameter
    start: int
    """In the file's data."""


def _read_header(file: File) -> str:
    with file.open_at(0) as stream:
        (size,) = _PREFIX.unpack(_exactly(stream, bytearray(_PREFIX.size), file.name))
        if size > _HEADER_LIMIT_BYTES:
            raise _no_safetensors(file.name, f"a header of {size} bytes")
        return bytes(_exactly(stream, bytearray(size), file.name)).decode()


def _layout(name: str, header: str) -> list[_Entry]:
    """In the order of the file. Raises AbruzziError `bad_data` where its tensors leave gaps or overlap, as the format forbids."""
    try:
        rows = {key: row for key, row in json.loads(header).items() if key != "__metadata__"}
        found = [
            _Entry(Parameter(key, _DTYPES[row["dtype"]], tuple(row["shape"]), 0), row["data_offsets"][0])
            for key, row in rows.items()
        ]
        ends = {key: row["data_offsets"][1] for key, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _no_safetensors(name, f"its header does not read: {error!r}") from error
    found.sort(key=lambda entry: (entry.start, ends[entry.parameter.name]))
    at = 0
    for entry in found:
        shape, itemsize = entry.parameter.shape, entry.parameter.torch_dtype.itemsize
        if entry.start != at or ends[entry.parameter.name] - at != prod(shape) * itemsize:
            raise _no_safetensors(name, f"{entry.parameter.name} does not lie where the one before it ends")
        at = ends[entry.parameter.name]
    return found


def _read_range(file: File, data_start: int, entries: Sequence[_Entry]) -> dict[str, Tensor]:
    """One read of what lies together. [] is never given."""
    first, last = entries[0], entries[-1]
    size = last.start + last.parameter.nbytes - first.start
    whole_N = torch.empty(size, dtype=torch.uint8)
    if size:
        with file.open_at(data_start + first.start) as stream:
            _exactly(stream, whole_N.numpy().data, file.name)
    found = {}
    for entry in entries:
        at, parameter = entry.start - first.start, entry.parameter
        flat = whole_N[at : at + parameter.nbytes]
        # A view needs its type's alignment, which the format does not promise.
        aligned = flat if flat.data_ptr() % parameter.torch_dtype.itemsize == 0 else flat.clone()
        found[parameter.name] = as_parameter(aligned, parameter)
    return found


def _exactly(stream: BinaryIO, buffer: Any, name: str) -> Any:
    view, at = memoryview(buffer), 0
    while at < len(view):
        count = cast(Any, stream).readinto(view[at:])
        if not count:
            raise _no_safetensors(name, "it ends too early")
        at += count
    return buffer


def _no_safetensors(name: str, what: str) -> AbruzziError:
    return AbruzziError("bad_data", f"{name} is no safetensors file: {what}.", hint="Take another checkpoint.")
