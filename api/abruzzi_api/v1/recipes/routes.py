"""Recipes: versions, validation, and the dry run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from anyio import to_thread

from abruzzi.contracts.resources import Page, Resource
from abruzzi.contracts.toml import load_recipe, parse_recipe, pool_overrides
from abruzzi.identity.policy import Action
from abruzzi.plan import PlanOptions, plan_recipe
from abruzzi.pools import dry_run
from abruzzi.pools import service as pools
from abruzzi.recipes import service as recipes
from abruzzi.recipes.models import RecipeRow
from abruzzi_api.pagination import Cursor, Limit, decode, page
from abruzzi_api.v1.runs.schemas import PlanIn, RecipeIn
from abruzzi_api.work import ReadWork, Router, Work, permit

router = Router(tags=["recipes"])
PlanWork = Annotated[Work, permit(Action.PLAN)]


class RecipeOut(Resource):
    name: str
    version: int
    digest: str
    toml: str
    created_by: str
    created_at: datetime


class MistakeOut(Resource):
    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str


class Validated(Resource):
    valid: bool
    recipe: dict[str, Any] | None
    errors: list[MistakeOut]


@router.get("/recipes", operation_id="recipes_list")
async def list_recipes(work: ReadWork, limit: Limit = 50, cursor: Cursor = None) -> Page[RecipeOut]:
    """Newest version of each, by name."""
    after = decode(cursor, 1)
    found = [
        _out(row) for row in await recipes.list_latest(work.session, after=after[0] if after else None, limit=limit + 1)
    ]
    return Page[RecipeOut].model_validate(page(found, limit, lambda r: (r.name,)))


@router.post("/recipes", operation_id="recipes_save", status_code=201, response_model=RecipeOut)
async def save_recipe(body: RecipeIn, work: Annotated[Work, permit(Action.SUBMIT)]) -> Any:
    """The same text again is the same version."""
    recipe = load_recipe(body.recipe_toml, body.overrides)
    row = await recipes.save(
        work.session, work.project_id, recipe, body.recipe_toml, actor=work.identity.actor, now=work.clock.now()
    )
    return work.reply(_out(row), 201)


@router.post("/recipes/validate", operation_id="recipes_validate")
async def validate_recipe(body: RecipeIn, work: PlanWork) -> Validated:
    """Every mistake at once, each with line, key and remedy."""
    recipe, found = parse_recipe(body.recipe_toml, body.overrides)
    errors = [MistakeOut(**m.as_dict()) for m in found]
    return Validated(valid=recipe is not None, recipe=recipe.resolved() if recipe else None, errors=errors)


@router.post("/plan", operation_id="plan")
async def plan(body: PlanIn, work: PlanWork) -> dict[str, Any]:
    """The dry run: parameters, FLOPs, memory by rank, the simulated step, time and cost, or why a layout cannot be; and for each stage its `placement`:
    nodes, pods, quota, queue, when. Nothing is stored."""
    overrides = {**body.overrides, **pool_overrides(body.recipe_toml, body.pool)}
    recipe = load_recipe(body.recipe_toml, overrides)
    flavors = dry_run.flavors(await pools.list_specs(work.session), work.default_pool)
    options = PlanOptions(sweep=body.sweep, timeline=body.timeline, price=body.price, nodes=body.nodes)
    planned = await to_thread.run_sync(plan_recipe, recipe, flavors, options)
    placed = await dry_run.place_all(work.session, recipe, planned, default=work.default_pool, now=work.clock.now())
    for stage in planned["stages"]:
        stage["pool"] = placed[stage["id"]].pool
        stage["placement"] = placed[stage["id"]].model_dump(mode="json")
    planned["warnings"] += dry_run.warnings(placed)
    return planned


def _out(row: RecipeRow) -> RecipeOut:
    return RecipeOut(
        name=row.name,
        version=row.version,
        digest=row.digest,
        toml=row.toml,
        created_by=row.created_by,
        created_at=row.created_at,
    )
