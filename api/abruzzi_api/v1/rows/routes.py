"""Rows and facts of artifacts: what is in a corpus, a set of rewrites, tools, trajectories or conversations, without taking it away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import StringConstraints

from abruzzi.artifacts.attack_text import SHOWN, holds_attacks, unnoted, veiled
from abruzzi.artifacts.facts import describe, read_facts
from abruzzi.artifacts.row_filter import Condition, RowFilter
from abruzzi.artifacts.rows import Place, Rows, read_rows
from abruzzi.contracts.dataset import DatasetOut, RowOut, RowPage, Verdict
from abruzzi.contracts.resources import ArtifactOut
from abruzzi.identity.policy import Action
from abruzzi.reviews import service as reviews
from abruzzi.store import prefix_of
from abruzzi_api import auditing
from abruzzi_api.pagination import Cursor, decode_numbers, encode
from abruzzi_api.v1.artifacts.routes import ArtifactId, manifest_of
from abruzzi_api.work import ReadWork, Router, Work

router = Router(prefix="/artifacts", tags=["artifacts"])

Noun = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Text = Annotated[str, StringConstraints(max_length=200)]
Where = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}:", max_length=300)]


@router.get("/{artifact_id}/rows", operation_id="artifacts_rows")
async def list_rows(
    artifact_id: ArtifactId,
    work: ReadWork,
    noun: Annotated[Noun, Query(description="Its files are `<noun>-00000.jsonl.zst` …: train, rewrites, tools, …")],
    fate: Annotated[
        list[Text] | None, Query(max_length=50, description="`kept`, or why a row was not; any of them")
    ] = None,
    q: Annotated[Text, Query(description="Text somewhere in a value, whatever the case of its letters")] = "",
    where: Annotated[
        list[Where] | None,
        Query(max_length=20, description="`key:value`, all of them; `faults.kind:number` means any fault"),
    ] = None,
    review: Annotated[
        Literal["none", "accept", "reject"] | None, Query(description="Only rows of which people said nothing, or this")
    ] = None,
    fields: Annotated[
        list[Text] | None, Query(max_length=50, description="Of the row's own keys; all by default")
    ] = None,
    cut: Annotated[
        int | None, Query(ge=1, le=1_000_000, description="Longer texts end after so many characters, with …")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Items at most")] = 50,
    cursor: Cursor = None,
) -> RowPage:
    """Rows in the order they were written. One request looks at some megabytes: follow `next_cursor`, also from an empty page."""
    artifact, manifest = await manifest_of(work, artifact_id)
    row_filter = RowFilter(
        fates=frozenset(fate or ()),
        text=q,
        conditions=tuple(Condition(*condition.split(":", 1)) for condition in where or ()),
        fields=frozenset({*fields, "id"} if fields else ()),
        cut=cut,
        veil=_veil(work, artifact),
        **await _reviewed(work, artifact, review),
    )
    found = await asyncio.to_thread(
        read_rows, work.objects, manifest, prefix_of(artifact.manifest_key), noun, start=_place(cursor), limit=limit, matching=row_filter
    )  # fmt: skip
    if found.found and holds_attacks(artifact.kind) and row_filter.veil is None:
        auditing.record_shown(work.session, work.identity, SHOWN, f"/api/v1/artifacts/{artifact_id}/rows?noun={noun}")
    return await _page(work, artifact, found)


@router.get("/{artifact_id}/facts", operation_id="artifacts_dataset")
async def get_dataset(artifact_id: ArtifactId, work: ReadWork) -> DatasetOut:
    """What there is to look at: its nouns with their counts, kept and rejected."""
    artifact, manifest = await manifest_of(work, artifact_id)
    return await asyncio.to_thread(describe, work.objects, manifest, prefix_of(artifact.manifest_key))


@router.get("/{artifact_id}/facts/{noun}", operation_id="artifacts_facts")
async def get_facts(artifact_id: ArtifactId, noun: Noun, work: ReadWork) -> dict[str, Any]:
    """`<noun>.json` of the artifact: corpus, rewrites, catalogue, trajectories, conversations, calls."""
    artifact, manifest = await manifest_of(work, artifact_id)
    return await asyncio.to_thread(read_facts, work.objects, manifest, prefix_of(artifact.manifest_key), noun)


def _veil(work: Work, artifact: ArtifactOut) -> Callable[[Any], Any] | None:
    return veiled if holds_attacks(artifact.kind) and not work.may(Action.READ_ATTACKS) else None


async def _reviewed(work: Work, artifact: ArtifactOut, wanted: str | None) -> dict[str, frozenset[str]]:
    if wanted is None:
        return {}
    verdict = None if wanted == "none" else Verdict(wanted)
    said = await reviews.read(work.session, artifact.project_id, artifact.digest, verdict=verdict)
    ids = frozenset(review.row_id for review in said)
    return {"without_ids": ids} if verdict is None else {"ids": ids}


async def _page(work: Work, artifact: ArtifactOut, found: Rows) -> RowPage:
    ids = {row_id for row in found.found if isinstance(row_id := row.content.get("id"), str) and "\0" not in row_id}
    said = await reviews.read(work.session, artifact.project_id, artifact.digest, row_ids=ids) if ids else []
    is_veiled = _veil(work, artifact) is not None
    by_id = {review.row_id: unnoted(review) if is_veiled else review for review in said}
    items = [
        RowOut(position=_cursor(row.place), row=row.content, review=by_id.get(str(row.content.get("id"))))
        for row in found.found
    ]
    return RowPage(items=items, next_cursor=_cursor(found.next) if found.next else None, scanned=found.scanned)


def _cursor(place: Place) -> str:
    return encode(str(place.shard), str(place.offset))


def _place(cursor: str | None) -> Place:
    numbers = decode_numbers(cursor, 2)
    return Place(*numbers) if numbers is not None else Place()
