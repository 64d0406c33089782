"""Reviews: people accept and reject rows of an artifact, and a stage that trains on them asks what they said."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from abruzzi.artifacts import service as artifacts
from abruzzi.artifacts.attack_text import SHOWN, holds_attacks, unnoted
from abruzzi.contracts.artifact import Digest
from abruzzi.contracts.dataset import ReviewIn, ReviewOut, ReviewPage, RowId, Verdict
from abruzzi.contracts.resources import ArtifactOut
from abruzzi.identity.policy import Action
from abruzzi.reviews import service as reviews
from abruzzi.runs import query
from abruzzi_api import auditing
from abruzzi_api.pagination import Limit, decode, page
from abruzzi_api.v1.artifacts.routes import ArtifactId
from abruzzi_api.v1.attempts.routes import AttemptId
from abruzzi_api.work import ReadWork, ReportWork, Router, Work, permit

router = Router(tags=["reviews"])
Cursor = Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before")]
"""Row ids may be long."""
ReviewWork = Annotated[Work, permit(Action.REVIEW)]


@router.get("/artifacts/{artifact_id}/reviews", operation_id="reviews_list")
async def list_reviews(
    artifact_id: ArtifactId, work: ReadWork, limit: Limit = 100, cursor: Cursor = None
) -> ReviewPage:
    """Of the rows of an artifact, in the order of their ids."""
    artifact = await artifacts.get(work.session, artifact_id)
    found = await _page(work, artifact.project_id, artifact.digest, limit, cursor)
    if not holds_attacks(artifact.kind):
        return found
    if not work.may(Action.READ_ATTACKS):  # a note may quote what was said
        return found.model_copy(update={"items": [unnoted(review) for review in found.items]})
    if any(review.note for review in found.items):
        auditing.record_shown(work.session, work.identity, SHOWN, f"/api/v1/artifacts/{artifact_id}/reviews")
    return found


@router.put("/artifacts/{artifact_id}/reviews", operation_id="reviews_put")
async def put_review(artifact_id: ArtifactId, body: ReviewIn, work: ReviewWork) -> ReviewOut:
    """Accept or reject a row. The last word counts; saying the same again changes nothing."""
    artifact = await _reviewable(work, artifact_id)
    return await reviews.put(
        work.session, artifact.project_id, artifact.digest, body, by=work.identity.actor, now=work.clock.now()
    )


@router.delete("/artifacts/{artifact_id}/reviews", operation_id="reviews_take_back", status_code=204)
async def take_back_review(artifact_id: ArtifactId, row_id: Annotated[RowId, Query()], work: ReviewWork) -> None:
    """The row waits again."""
    artifact = await _reviewable(work, artifact_id)
    await reviews.take_back(work.session, artifact.project_id, artifact.digest, row_id)


@router.get("/attempts/{attempt_id}/reviews", operation_id="reviews_of_input")
async def list_reviews_of_input(
    attempt_id: AttemptId,
    work: ReportWork,
    digest: Annotated[Digest, Query(description="Of the input's manifest")],
    limit: Limit = 500,
    cursor: Cursor = None,
) -> ReviewPage:
    """For a stage, which knows its inputs by their digests: the reviews of an artifact of its project."""
    attempt = await query.attempt_row(work.session, attempt_id)
    await artifacts.require_digest(work.session, attempt.project_id, digest)
    return await _page(work, attempt.project_id, digest, limit, cursor)


async def _reviewable(work: Work, artifact_id: str) -> ArtifactOut:
    """Who may not read attacks has seen nothing to decide about."""
    artifact = await artifacts.get(work.session, artifact_id)
    if holds_attacks(artifact.kind):
        work.require(Action.READ_ATTACKS)
    return artifact


async def _page(work: Work, project_id: str, digest: str, limit: int, cursor: str | None) -> ReviewPage:
    (after,) = decode(cursor, 1) or ("",)
    found = await reviews.read(work.session, project_id, digest, after=after, limit=limit + 1)
    counts = await reviews.counts(work.session, project_id, digest)
    return ReviewPage.model_validate(
        {
            **page(found, limit, lambda review: (review.row_id,)),
            "accepted": counts[Verdict.ACCEPT],
            "rejected": counts[Verdict.REJECT],
        }
    )
