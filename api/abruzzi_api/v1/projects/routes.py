"""Projects: tenants."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.resources import SHOWN_ONCE, ProjectCreated, ProjectOut, Resource
from abruzzi.identity import service as identity
from abruzzi.identity.policy import Action, Target, allowed
from abruzzi.kit.db import see_project_names, see_projects
from abruzzi_api.work import ReadWork, Router, Work, permit

router = Router(prefix="/projects", tags=["projects"])


class ProjectIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    name: str = Field(min_length=1, max_length=80)


class Projects(Resource):
    items: list[ProjectOut]


@router.get("", operation_id="projects_list")
async def list_projects(work: ReadWork) -> Projects:
    """Those that the caller may see: its own; for an admin of the platform all."""
    if allowed(work.identity, Action.MANAGE_PROJECTS, Target()):
        await see_project_names(work.session)
    return Projects(items=await identity.list_projects(work.session))


@router.post("", operation_id="projects_create", status_code=201)
async def create_project(body: ProjectIn, work: Annotated[Work, permit(Action.MANAGE_PROJECTS)]) -> ProjectCreated:
    """A tenant and the token of its first admin, which is shown in this answer only. For admins of the project `default`, the platform's own."""
    await see_projects(work.session, [*work.identity.projects, body.id])
    await see_project_names(work.session)
    made = await identity.create_project(
        work.session, body.id, body.name, actor=work.identity.actor, now=work.clock.now()
    )
    work.keep_instead(made.model_copy(update={"admin": made.admin.model_copy(update={"token": SHOWN_ONCE})}))
    return made
