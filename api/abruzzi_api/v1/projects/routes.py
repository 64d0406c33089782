"""Projects: tenants."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.resources import ProjectOut, Resource
from abruzzi.identity import service as identity
from abruzzi.identity.policy import Action
from abruzzi.kit.db import see_projects
from abruzzi_api.work import ReadWork, Work, permit

router = APIRouter(prefix="/projects", tags=["projects"])


class ProjectIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    name: str = Field(min_length=1, max_length=80)


class Projects(Resource):
    items: list[ProjectOut]


@router.get("", operation_id="projects_list")
async def list_projects(work: ReadWork) -> Projects:
    """Those that the caller may see."""
    return Projects(items=await identity.list_projects(work.session))


@router.post("", operation_id="projects_create", status_code=201, response_model=ProjectOut)
async def create_project(body: ProjectIn, work: Annotated[Work, permit(Action.MANAGE_PROJECTS)]) -> Any:
    await see_projects(work.session, [*work.identity.projects, body.id])
    return await work.reply(await identity.create_project(work.session, body.id, body.name, now=work.clock.now()), 201)
