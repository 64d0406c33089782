"""Runs: submit, see, steer, follow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from abruzzi.contracts.notification import ExportOut
from abruzzi.contracts.resources import MetricKeyOut, Page, Resource, RunOut, RunSummary
from abruzzi.contracts.states import RunState
from abruzzi.contracts.why import WhyOut
from abruzzi.identity.policy import Action
from abruzzi.metrics import service as metrics
from abruzzi.runs import exports, query, steer, submit
from abruzzi.runs.gates import GateOut, gates_of
from abruzzi.runs.listing import Sort
from abruzzi.runs.listing import list_runs as list_sorted
from abruzzi.runs.why import why
from abruzzi_api.etags import expected_version
from abruzzi_api.pagination import Cursor, Limit, decode_position, encode_position
from abruzzi_api.streams import run_stream
from abruzzi_api.v1.runs.schemas import BranchIn, OverrideIn, RetryIn, RunIn
from abruzzi_api.work import ReadWork, Router, Work, permit

router = Router(prefix="/runs", tags=["runs"])
IfMatch = Annotated[str | None, Header(description="ETag of the run as it was seen; 412 when it changed meanwhile")]
SubmitWork = Annotated[Work, permit(Action.SUBMIT)]
SteerWork = Annotated[Work, permit(Action.STEER)]
OverrideWork = Annotated[Work, permit(Action.OVERRIDE_GATES)]


class MetricKeys(Resource):
    items: list[MetricKeyOut]


class Gates(Resource):
    items: list[GateOut]


@router.post("", operation_id="runs_submit", status_code=201, response_model=RunOut)
async def submit_run(body: RunIn, work: SubmitWork) -> Any:
    """Submit a recipe. 422 `recipe_invalid` lists every mistake with line, key and remedy."""
    now = work.clock.now()
    run = await submit.submit(
        work.session,
        project_id=work.project_id,
        objects=work.objects,
        recipe_toml=body.recipe_toml,
        overrides=body.overrides,
        name=body.name,
        actor=work.identity.actor,
        now=now,
        default_pool=work.default_pool,
    )
    return _answer(work, run, 201)


@router.get("", operation_id="runs_list")
async def list_runs(
    work: ReadWork,
    state: Annotated[list[RunState] | None, Query()] = None,
    q: Annotated[
        str | None, Query(max_length=100, description="Part of the name, the recipe's name, or the start of the id")
    ] = None,
    project: Annotated[str | None, Query(max_length=40)] = None,
    sort: Annotated[Sort, Query(description="A run that lacks the figure comes last either way")] = Sort.CREATED,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RunSummary]:
    """Newest first, or sorted by another column."""
    found = await list_sorted(
        work.session,
        now=work.clock.now(),
        project_id=project,
        states=state or (),
        q=q,
        sort=sort,
        descending=order == "desc",
        after=decode_position(cursor, sort, order),
        limit=limit + 1,
    )
    last = found[limit - 1][1] if len(found) > limit else None
    return Page[RunSummary](
        items=[run for run, _ in found[:limit]], next_cursor=encode_position(last, sort, order) if last else None
    )


@router.get("/{run_id}", operation_id="runs_get", response_model=RunOut)
async def get_run(
    run_id: str, work: ReadWork, response: Response, if_none_match: Annotated[str | None, Header()] = None
) -> Any:
    """A run with stages, attempts and ranks. The ETag is its version: steer with If-Match. A run that still moves is always sent."""
    run = await query.get(work.session, run_id, now=work.clock.now())
    etag = f'"{run.version}"'
    if if_none_match == etag and run.state.is_terminal:
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return run


@router.post("/{run_id}/cancel", operation_id="runs_cancel", status_code=202, response_model=RunOut)
async def cancel_run(run_id: str, work: SteerWork, if_match: IfMatch = None) -> Any:
    """Ask for the end: running stages save, then stop."""
    await steer.cancel(work.session, run_id, expected_version=expected_version(if_match), now=work.clock.now())
    return await _reply(work, run_id, 202)


@router.post("/{run_id}/retry", operation_id="runs_retry", status_code=202, response_model=RunOut)
async def retry_run(run_id: str, body: RetryIn, work: SteerWork, if_match: IfMatch = None) -> Any:
    """Run a failed or cancelled run again, from a stage on."""
    await steer.retry(
        work.session, run_id, body.stage_id, expected_version=expected_version(if_match), now=work.clock.now()
    )
    return await _reply(work, run_id, 202)


@router.post("/{run_id}/branch", operation_id="runs_branch", status_code=201, response_model=RunOut)
async def branch_run(run_id: str, body: BranchIn, work: SubmitWork) -> Any:
    """A new run that goes on from a checkpoint of this one."""
    new_id = await submit.branch(
        work.session, run_id, body.artifact_id, objects=work.objects, recipe_toml=body.recipe_toml, overrides=body.overrides, name=body.name,
        actor=work.identity.actor, now=work.clock.now(), default_pool=work.default_pool,
    )  # fmt: skip
    return await _reply(work, new_id, 201)


@router.post("/{run_id}/export", operation_id="runs_export", status_code=202, response_model=ExportOut)
async def export_run(run_id: str, work: SubmitWork) -> Any:
    """Write the run's data (Parquet and TensorBoard curves, recipe, events, reports) to the object store, as an artifact of kind `export`."""
    return work.reply(await exports.request(work.session, run_id, now=work.clock.now()), 202)


@router.get("/{run_id}/why", operation_id="runs_why")
async def why_run(run_id: str, work: ReadWork) -> WhyOut:
    """Why the run is where it is, in one sentence with numbers."""
    return await why(work.session, run_id, now=work.clock.now())


@router.get("/{run_id}/gates", operation_id="runs_gates")
async def run_gates(run_id: str, work: ReadWork) -> Gates:
    """Each stage's gate, judged on what is known now."""
    run = await query.row(work.session, run_id)
    return Gates(items=gates_of(run, await query.stage_rows(work.session, run_id)))


@router.post(
    "/{run_id}/gates/{stage_id}/override", operation_id="runs_override_gate", status_code=202, response_model=RunOut
)
async def override_gate(
    run_id: str,
    stage_id: Annotated[str, Path(max_length=16)],
    body: OverrideIn,
    work: OverrideWork,
    if_match: IfMatch = None,
) -> Any:
    """Let a stage start although its gate does not hold; a run that the gate has ended goes on."""
    await steer.override_gate(
        work.session, run_id, stage_id, by=work.identity.actor, reason=body.reason,
        expected_version=expected_version(if_match), now=work.clock.now(),
    )  # fmt: skip
    return await _reply(work, run_id, 202)


@router.get("/{run_id}/metrics/keys", operation_id="runs_metric_keys")
async def metric_keys(run_id: str, work: ReadWork) -> MetricKeys:
    """Every metric of the run with its last point."""
    await query.row(work.session, run_id)
    return MetricKeys(items=await metrics.list_keys(work.session, run_id))


@router.get("/{run_id}/stream", operation_id="runs_stream", response_class=StreamingResponse)
async def stream_run(
    run_id: str, request: Request, work: ReadWork, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> StreamingResponse:
    """Server-sent events: `run` (RunOut, when it changed), `event` (EventOut, each once, in order), `metrics` (new points are there)."""
    await query.row(work.session, run_id)
    return run_stream(request, work.identity, run_id, last_event_id)


async def _reply(work: Work, run_id: str, status: int) -> Response:
    return _answer(work, await query.get(work.session, run_id, now=work.clock.now()), status)


def _answer(work: Work, run: RunOut, status: int) -> Response:
    return work.reply(run, status, headers={"ETag": f'"{run.version}"'})
