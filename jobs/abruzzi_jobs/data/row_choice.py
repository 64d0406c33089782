"""Rows of an artifact for people to look at: from a folder or the platform, chosen by id, by fate, or at random."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError

Row = dict[str, Any]


def rows_at(where: str, noun: str) -> list[Row]:
    """Of a pulled artifact's folder, or of an artifact by its id. Raises AbruzziError `not_found`."""
    from abruzzi.client import Client
    from abruzzi_jobs.data.row_shards import read_rows

    if Path(where).is_dir():
        return list(read_rows(Path(where), noun))
    if not re.fullmatch(r"[A-Za-z0-9_-]+", where):
        raise AbruzziError(
            "not_found", f"{where}: no such folder.", hint="Pull the artifact first: abruzzi artifacts pull ARTIFACT"
        )
    with tempfile.TemporaryDirectory(prefix="abruzzi-show-") as folder, Client() as connection:
        connection.artifacts.pull(where, Path(folder))
        return list(read_rows(Path(folder), noun))


def drawn(
    rows: Sequence[Row], *, ids: Sequence[str] = (), sample: int, seed: int, fate: str | None = None
) -> list[Row]:
    """Those named, or some at random, in the order of the file. Raises AbruzziError `not_found`."""
    known = {row["id"] for row in rows}
    if missing := [name for name in ids if name not in known]:
        raise AbruzziError("not_found", f"There is no row {missing[0]!r}.", status=404)
    fit = [row for row in rows if (row["id"] in ids if ids else fate in (None, row["fate"]))]
    if not fit:
        fates = ", ".join(sorted({row["fate"] for row in rows})) or "none"
        raise AbruzziError(
            "not_found", f"There is no row with the fate {fate!r}.", hint=f"There are: {fates}.", status=404
        )
    chosen = set(random.Random(seed).sample(range(len(fit)), min(len(fit), len(fit) if ids else sample)))
    return [row for number, row in enumerate(fit) if number in chosen]
