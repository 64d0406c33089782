"""Red teams: how often a model held, by plugin and strategy, with what people have said."""

from __future__ import annotations

import asyncio

from abruzzi.artifacts.safety import read_matrix
from abruzzi.contracts.redteam import PAPER_MODELS
from abruzzi.contracts.safety_matrix import RedteamOut
from abruzzi.identity.policy import Action
from abruzzi.reviews import service as reviews
from abruzzi.store import prefix_of
from abruzzi_api.v1.artifacts.routes import ArtifactId, manifest_of
from abruzzi_api.work import ReadWork, Router

router = Router(prefix="/redteam", tags=["redteam"])


@router.get("/{artifact_id}", operation_id="redteam_get")
async def get_redteam(artifact_id: ArtifactId, work: ReadWork) -> RedteamOut:
    """The safety matrix of a redteam artifact: passes with n and Wilson's interval, the report's cells beside them, agreement of people, judge and
    rules. A person's verdict counts instead of the judge's and the rules'."""
    artifact, manifest = await manifest_of(work, artifact_id)
    said = await reviews.read(work.session, artifact.project_id, artifact.digest)
    matrix = await asyncio.to_thread(
        read_matrix, work.objects, manifest, prefix_of(artifact.manifest_key), {r.row_id: r.verdict for r in said}
    )
    return RedteamOut(
        artifact_id=artifact_id,
        matrix=matrix,
        paper_models=list(PAPER_MODELS),
        may_read_attacks=work.may(Action.READ_ATTACKS),
    )
