"""The roles of a stage.

async with stage_roles(context, stage.roles, stage.endpoint, seed=stage.seed) as roles:
    answer = await roles["rephraser"].complete(ChatRequest(messages=[{"role": "user", "content": "…"}]))
    reporter.log(roles.metrics(), step=documents_done)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from abruzzi.client.stage import StageContext
from abruzzi.client.stage.exits import Preempted
from abruzzi.contracts.endpoint import CheckpointEndpoint, EndpointBase, RoleConfig, RoleTable
from abruzzi_jobs.chat.calls import CallLog
from abruzzi_jobs.chat.roles import Roles, open_roles
from abruzzi_jobs.chat.servers.start import Script

CALLS_FOLDER = "calls/"
"""Below the stage's output prefix."""


@asynccontextmanager
async def stage_roles(
    context: StageContext,
    roles: RoleTable,
    endpoints: Mapping[str, EndpointBase],
    *,
    seed: int = 0,
    script: Script | None = None,
    ends_when_told: bool = True,
) -> AsyncIterator[Roles]:
    """Of a stage: its log lies beside its outputs, so that the next attempt goes on from it; checkpoints come from its inputs.

    Each rank has an even share of the budgets. When the stage is asked to stop, the next question raises Preempted; what has been answered is kept.
    `script`: what the stand-in says where the stage knows better than its rules. `ends_when_told`: False for a stage that stops by itself, and whose
    askers would take Preempted for a failure.
    """

    def go_on() -> None:
        if ends_when_told and context.stop_requested.is_set():
            raise Preempted("Asked to stop; the answers so far are kept.")

    spec = context.spec
    log = CallLog(context.store, f"{spec.output_prefix}{CALLS_FOLDER}", writer=spec.attempt_id, rank=context.rank)
    served = [name for name in spec.inputs if name.endswith((".checkpoint", ".tokenizer"))]
    folders = {name: context.input(name).folder for name in served}
    identities = {name: _identity(context, name, endpoints[name]) for name in {n.rsplit(".", 1)[0] for n in served}}
    shares = {str(role): _share(config, context.world_size) for role, config in roles.items()}
    async with open_roles(
        shares,
        endpoints,
        log=log,
        seed=seed,
        folders=folders,
        identities=identities,
        logs=context.rank_dir,
        go_on=go_on,
        script=script,
    ) as opened:
        yield opened


def _identity(context: StageContext, name: str, endpoint: EndpointBase) -> str:
    """What the answers of a served checkpoint depend on: its weights, and how positions turn where that is not its own."""
    digest = context.spec.inputs[f"{name}.checkpoint"].digest
    yarn = endpoint.yarn if isinstance(endpoint, CheckpointEndpoint) else None
    return digest if yarn is None else f"{digest} {yarn.model_dump_json()}"


def _share(config: RoleConfig, ranks: int) -> RoleConfig:
    budgets = {name: getattr(config, name) for name in ("budget_tokens", "budget_calls")}
    return config.model_copy(update={n: max(1, b // ranks) for n, b in budgets.items() if b is not None})
