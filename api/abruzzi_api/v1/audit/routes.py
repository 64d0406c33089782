"""The audit log: who changed what, and who was refused."""

from __future__ import annotations

from typing import Annotated

from abruzzi.contracts.resources import AuditOut, Page
from abruzzi.identity import service as identity
from abruzzi.identity.policy import Action
from abruzzi_api.pagination import Cursor, Limit, decode_number, page
from abruzzi_api.work import Router, Work, permit

router = Router(prefix="/audit", tags=["audit"])


@router.get("", operation_id="audit_list")
async def list_audit(
    work: Annotated[Work, permit(Action.READ_AUDIT)], limit: Limit = 100, cursor: Cursor = None
) -> Page[AuditOut]:
    """Newest first."""
    found = await identity.list_audit(work.session, after=decode_number(cursor), limit=limit + 1)
    return Page[AuditOut].model_validate(page(found, limit, lambda a: (a.id,)))
