"""What an attempt may call its own. A stage writes its manifests itself, so what one says about whose it is must agree with the attempt's row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import AbruzziError, Conflict
from abruzzi.contracts.states import AttemptState
from abruzzi.identity import service as identity
from abruzzi.runs import query
from abruzzi.runs.models import AttemptRow
from abruzzi.store import manifest_key


def output_prefix(attempt: AttemptRow) -> str:
    """The only prefix that the attempt may write below."""
    return f"projects/{attempt.project_id}/runs/{attempt.run_id}/{attempt.stage_id}/"


def require_own(attempt: AttemptRow, key: str, manifest: Manifest) -> None:
    """Raises AbruzziError `foreign_artifact` (403) unless the manifest lies where the attempt commits and speaks of it in every field."""
    facts = {
        "project_id": attempt.project_id,
        "run_id": attempt.run_id,
        "stage_id": attempt.stage_id,
        "attempt_id": attempt.id,
        "epoch": attempt.epoch,
    }
    for name, ours in facts.items():
        said = getattr(manifest, name)
        if said != ours:
            raise AbruzziError(
                "foreign_artifact",
                f"{key} says {name} {said!r}, but attempt {attempt.id} has {ours!r}.",
                status=403,
                hint="Commit with the spec that the platform gave to this attempt.",
            )
    expected = manifest_key(output_prefix(attempt), attempt.epoch, manifest.name)
    if key != expected:
        raise AbruzziError(
            "foreign_artifact",
            f"The manifest lies at {key}, but attempt {attempt.id} commits to {expected}.",
            status=403,
        )


def require_live(attempt: AttemptRow) -> None:
    """Raises Conflict `attempt_ended`: its outcome is committed, and whoever still runs it has been superseded."""
    if AttemptState(attempt.state).is_terminal:
        raise Conflict(f"Attempt {attempt.id} has ended.", code="attempt_ended")


async def issue_token(session: AsyncSession, attempt_id: str, *, now: datetime) -> str:
    """A new token of an attempt, instead of its earlier ones. Of an ended attempt it only ships what is left of the logs, and not for long."""
    attempt = await query.attempt_row(session, attempt_id)
    life = identity.LATE_TOKEN_LIFE if AttemptState(attempt.state).is_terminal else identity.ATTEMPT_TOKEN_LIFE
    return await identity.mint_attempt_token(
        session, project_id=attempt.project_id, attempt_id=attempt_id, now=now, life=life
    )
