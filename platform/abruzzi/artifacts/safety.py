"""The safety matrix of a redteam artifact, with what people have said of its rows. Blocks: for threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from abruzzi.artifacts.row_filter import RowFilter
from abruzzi.artifacts.rows import Place, read_rows, too_large
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.dataset import Verdict
from abruzzi.contracts.safety_matrix import SafetyMatrix, safety_matrix
from abruzzi.store import ObjectStore

NOUN = "redteam"
MOST_ROWS = 100_000
_PAGE = 500
_READ = RowFilter(fields=frozenset({"id", "fate", "plugin", "sub_plugin", "strategy", "rules", "judge"}), cut=200)


def read_matrix(objects: ObjectStore, manifest: Manifest, prefix: str, reviews: Mapping[str, Verdict]) -> SafetyMatrix:
    """Raises NotFound where it has no such rows, CorruptArtifact, AbruzziError `too_large`."""
    return safety_matrix(_rows(objects, manifest, prefix), reviews)


def _rows(objects: ObjectStore, manifest: Manifest, prefix: str) -> Iterator[dict[str, Any]]:
    place: Place | None = Place()
    count = 0
    while place is not None:
        page = read_rows(objects, manifest, prefix, NOUN, start=place, limit=_PAGE, matching=_READ)
        yield from (row.content for row in page.found)
        count, place = count + page.scanned, page.next
        if count > MOST_ROWS:
            raise too_large(manifest, f"it has more than {MOST_ROWS:,} rows")
