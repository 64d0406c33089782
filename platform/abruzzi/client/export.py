"""A run as a folder that other tools read: run.json, recipe.toml, events.jsonl, and every curve as CSV, Parquet or TensorBoard events.

The command line writes it from the API, the workers from the database.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from abruzzi.client.tensorboard import EventFiles
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import EventOut, RunOut, SeriesOut

COLUMNS = ("stage", "attempt", "key", "step", "value", "low", "high", "unix_seconds")


class CurveFormat(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"
    """Needs pyarrow."""
    TENSORBOARD = "tensorboard"
    """One event file an attempt."""


class RunFolder:
    """Context manager: curves are added one after the other, and none is kept in memory."""

    def __init__(self, folder: Path, run: RunOut, events: Iterable[EventOut], formats: Iterable[CurveFormat]) -> None:
        self.path = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(run.model_dump_json(indent=2))
        (folder / "recipe.toml").write_text(run.recipe_toml)
        with (folder / "events.jsonl").open("w") as file:
            file.writelines(event.model_dump_json() + "\n" for event in events)
        self._writers = [_WRITERS[chosen](folder) for chosen in formats]

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()

    def add(self, curve: SeriesOut) -> None:
        for writer in self._writers:
            writer.add(curve)

    def files(self) -> list[str]:
        """Relative to the folder, in order."""
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())


class _Csv:
    def __init__(self, folder: Path) -> None:
        self._file = (folder / "metrics.csv").open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def add(self, curve: SeriesOut) -> None:
        self._writer.writerows((curve.stage_id, curve.attempt_id, curve.key, *row) for row in _rows(curve))

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """One row group a curve, so that a reader takes single curves out of it cheaply."""

    def __init__(self, folder: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise AbruzziError(
                "no_pyarrow",
                "Parquet needs the package pyarrow, which is not installed here.",
                hint="pip install pyarrow, or choose CSV.",
            ) from error
        self._arrow = pyarrow
        kinds = ("string", "string", "string", "int64", "float64", "float64", "float64", "float64")
        self._schema = pyarrow.schema(
            [(name, getattr(pyarrow, kind)()) for name, kind in zip(COLUMNS, kinds, strict=True)]
        )
        self._writer = pyarrow.parquet.ParquetWriter(folder / "metrics.parquet", self._schema, compression="zstd")

    def add(self, curve: SeriesOut) -> None:
        count = len(curve.steps)
        columns: list[list[Any]] = [
            [curve.stage_id] * count, [curve.attempt_id] * count, [curve.key] * count, curve.steps, curve.values, curve.low, curve.high, curve.at,
        ]  # fmt: skip
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._files = EventFiles(folder / "tensorboard")

    def add(self, curve: SeriesOut) -> None:
        for step, value, _, _, at in _rows(curve):
            if value is not None:
                self._files.scalar(curve.attempt_id, curve.key, step=step, value=value, at=at)

    def close(self) -> None:
        self._files.close()


_WRITERS = {CurveFormat.CSV: _Csv, CurveFormat.PARQUET: _Parquet, CurveFormat.TENSORBOARD: _TensorBoard}


def _rows(curve: SeriesOut) -> Iterator[tuple[int, float | None, float | None, float | None, float]]:
    return zip(curve.steps, curve.values, curve.low, curve.high, curve.at, strict=True)
