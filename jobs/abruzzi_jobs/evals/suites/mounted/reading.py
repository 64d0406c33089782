"""Rows of a mounted file, one at a time: JSON lines, JSON, CSV, TSV or Parquet, by its name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.suites.mounted.table import MountedSet

_FORMATS = {".jsonl": "JSON lines", ".json": "one JSON array", ".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
_LONGEST_FIELD = 1 << 27


def place_of(mounted: MountedSet, path: str | None) -> Path:
    """Raises AbruzziError bad_data, with one sentence that names the file, its format and its owner, where it is not there."""
    is_folder = not Path(mounted.file).suffix
    place = Path(path or mounted.file)
    if path and place.is_dir() and not (is_folder and place.name == mounted.file):
        place = place / mounted.file
    if path and (place.is_dir() if is_folder else place.is_file()):
        return place
    form = "a folder" if is_folder else f"{_FORMATS[Path(mounted.file).suffix]} with {', '.join(mounted.fields)}"
    where = f" There is none at {place}." if path else ""
    raise AbruzziError(
        "bad_data",
        f"{mounted.title} needs {mounted.file} ({form}), which is published by {mounted.owner}.{where}",
        hint="Mount it, and name the file or its folder as the suite's path.",
    )


def rows(place: Path, mounted: MountedSet) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, or number of the row from 1; the row). Raises AbruzziError bad_data with file and line."""
    number = 0
    try:
        for number, row in _read(place):
            missing = next((name for name in mounted.fields if value_of(row, name) is None), None)
            if missing is not None:
                raise _fault(place, number, f"has no field {missing!r}")
            if all(str(value_of(row, name)) == wanted for name, wanted in mounted.only.items()):
                yield number, row
    except (ValueError, csv.Error, pa.ArrowException, UnicodeDecodeError) as error:
        raise _fault(place, number + 1, f"cannot be read ({error})") from error


def value_of(row: Any, name: str) -> Any:
    """Of a field by its path; None where there is none."""
    for part in name.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _read(place: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if place.suffix == ".parquet":
        with pq.ParquetFile(place) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        return
    with place.open(encoding="utf-8-sig", newline="") as lines:
        if place.suffix == ".json":
            yield from enumerate(json.load(lines), 1)
        elif place.suffix in (".csv", ".tsv"):
            csv.field_size_limit(_LONGEST_FIELD)
            reader = csv.DictReader(lines, delimiter="\t" if place.suffix == ".tsv" else ",", strict=True)
            for row in reader:
                yield reader.line_num, {key: value for key, value in row.items() if key is not None}
        else:
            yield from ((number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip())


def _fault(place: Path, number: int, what: str) -> AbruzziError:
    return AbruzziError("bad_data", f"{place}: item {number} {what}.", hint="The fields are those of its owner's file.")
