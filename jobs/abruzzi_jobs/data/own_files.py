"""The user's own text: txt, md, jsonl, jsonl.zst and parquet, by file, directory, glob or s3://bucket/prefix/.

Whatever can't be read ends the stage at once with a sentence that names the file, and the line where there is one.
"""

from __future__ import annotations

import glob
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sources import FILE_SUFFIXES as SUFFIXES
from abruzzi.contracts.stage import S3Store, StoreConfig
from abruzzi.store.commit import open_store
from abruzzi_jobs.data.documents import Document
from abruzzi_jobs.data.text_shards import zstd_lines

DOMAIN = "own"
"""Of documents that do not say theirs; lines and rows may have a `domain` field."""
PIECE_BYTES = 64 << 10
"""Longer txt and md files are divided at blank lines, so that one book is more than one document."""


@dataclass(frozen=True, kw_only=True)
class OwnFile:
    name: str
    """As messages and documents show it."""
    size_bytes: int
    open: Callable[[], BinaryIO]


def find_files(source: str, *, store: StoreConfig | None = None) -> list[OwnFile]:
    """In order of name. `store` says which S3 server to ask when AWS_ENDPOINT_URL does not.

    Raises AbruzziError bad_data when nothing is found or a file is of another kind.
    """
    files = _find_objects(source, store) if source.startswith("s3://") else _find_local(source)
    if not files:
        raise AbruzziError(
            "bad_data",
            f"{source}: no file is there.",
            hint=f"Give a file, a directory, a glob or s3://bucket/prefix/ with {', '.join(SUFFIXES)}.",
        )
    for file in files:
        if not file.name.lower().endswith(SUFFIXES):
            raise AbruzziError(
                "bad_data",
                f"{file.name}: this kind of file is not read.",
                hint=f"Readable are {', '.join(SUFFIXES)}. Convert the file or narrow the glob.",
            )
        if not file.size_bytes:
            raise AbruzziError("bad_data", f"{file.name}: the file is empty.", hint="Fill it or leave it out.")
    return files


def read_file(file: OwnFile, *, text_field: str) -> Iterator[Document]:
    """Raises AbruzziError bad_data for anything unreadable."""
    lower = file.name.lower()
    if lower.endswith((".txt", ".md")):
        yield from _read_plain(file)
    elif lower.endswith(".parquet"):
        yield from _read_parquet(file, text_field)
    else:
        for name, record in read_json_lines(file):
            yield _from_record(file, name, record, text_field)


def _read_plain(file: OwnFile) -> Iterator[Document]:
    with file.open() as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"byte {error.start} is not UTF-8", "Convert the file to UTF-8.") from error
    for number, piece in enumerate(_pieces(text)):
        yield Document(name=file.name if number == 0 else f"{file.name}#{number + 1}", text=piece, domain=DOMAIN)


def _pieces(text: str) -> Iterator[str]:
    if len(text) <= PIECE_BYTES:
        yield text
        return
    held: list[str] = []
    size = 0
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        if held and size + len(paragraph) > PIECE_BYTES:
            yield "\n\n".join(held)
            held, size = [], 0
        held.append(paragraph)
        size += len(paragraph) + 2
    yield "\n\n".join(held)


def read_json_lines(file: OwnFile) -> Iterator[tuple[str, Any]]:
    """(`file:line`, what stands there) of each line that is not blank. Raises AbruzziError bad_data for anything unreadable."""
    number, packed = 0, file.name.lower().endswith(".zst")
    try:
        with file.open() as stream:
            for line in zstd_lines(stream) if packed else stream:
                number += 1
                if line.strip():
                    yield f"{file.name}:{number}", json.loads(line)
    except zstandard.ZstdError as error:
        raise _unreadable(file, f"no whole zstd stream ({error})", "Copy the file again.") from error
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"line {number} is not UTF-8", "Convert the file to UTF-8.") from error
    except json.JSONDecodeError as error:
        place = f"line {number} is not JSON ({error.msg}, column {error.colno})"
        raise _unreadable(file, place, "One JSON object a line is needed.") from error


def _read_parquet(file: OwnFile, text_field: str) -> Iterator[Document]:
    try:
        with file.open() as stream:
            table = pq.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
            columns = table.schema_arrow.names
            if text_field not in columns:
                raise AbruzziError(
                    "bad_data",
                    f"{file.name}: there is no column {text_field!r}.",
                    hint=f"Set data.text_field to one of {', '.join(columns)}.",
                )
            row = 0
            for batch in table.iter_batches(1024, columns=[c for c in (text_field, "domain") if c in columns]):
                for record in batch.to_pylist():
                    row += 1
                    yield _from_record(file, f"{file.name}:{row}", record, text_field)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, f"not a parquet file ({error})", "Copy or write the file again.") from error


def _from_record(file: OwnFile, name: str, record: Any, text_field: str) -> Document:
    if not isinstance(record, dict) or not isinstance(record.get(text_field), str):
        keys = ", ".join(map(str, record)) if isinstance(record, dict) else f"a {type(record).__name__}"
        raise AbruzziError(
            "bad_data",
            f"{name}: there is no text in the field {text_field!r}; the record has {keys}.",
            hint="Set data.text_field to the field that holds the text.",
        )
    domain = record.get("domain")
    return Document(name=name, text=record[text_field], domain=domain if isinstance(domain, str) and domain else DOMAIN)


def _find_local(source: str) -> list[OwnFile]:
    expanded = os.path.expanduser(source)
    if os.path.isdir(expanded):
        paths = sorted(p for p in Path(expanded).rglob("*") if p.is_file() and p.name.lower().endswith(SUFFIXES))
        base = Path(expanded)
    else:
        paths = sorted(Path(p) for p in glob.glob(expanded, recursive=True) if os.path.isfile(p))
        base = Path(os.path.commonpath([p.parent for p in paths])) if paths else Path()
    return [OwnFile(name=p.relative_to(base).as_posix(), size_bytes=_size(p), open=_opener(p)) for p in paths]


def _size(path: Path) -> int:
    return path.stat().st_size


def _opener(path: Path) -> Callable[[], BinaryIO]:
    def open_file() -> BinaryIO:
        try:
            return path.open("rb")
        except OSError as error:
            raise AbruzziError(
                "bad_data", f"{path.name}: the file cannot be opened ({error.strerror}).", hint="Check its permissions."
            ) from error

    return open_file


def _find_objects(source: str, store: StoreConfig | None) -> list[OwnFile]:
    address = urlparse(source)
    prefix = address.path.lstrip("/")
    objects = open_store(_s3_config(address.netloc, store))
    lone = prefix.lower().endswith(SUFFIXES)
    keys = [prefix] if lone else [k for k in sorted(objects.list(prefix)) if k.lower().endswith(SUFFIXES)]
    return [
        OwnFile(name=f"s3://{address.netloc}/{k}", size_bytes=objects.size(k), open=lambda k=k: objects.open(k))
        for k in keys
    ]


def _s3_config(bucket: str, store: StoreConfig | None) -> S3Store:
    region = os.environ.get("AWS_REGION", "us-east-1")
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        address = urlparse(endpoint)
        return S3Store(endpoint=address.netloc, bucket=bucket, region=region, secure=address.scheme == "https")
    if isinstance(store, S3Store):
        return store.model_copy(update={"bucket": bucket})
    return S3Store(endpoint="s3.amazonaws.com", bucket=bucket, region=region)


def _unreadable(file: OwnFile, what: str, remedy: str) -> AbruzziError:
    return AbruzziError("bad_data", f"{file.name}: {what}.", hint=remedy)
