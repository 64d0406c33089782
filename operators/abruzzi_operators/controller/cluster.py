"""The Kubernetes executor of a controller process, from its settings, with the work that goes on beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.pool import PoolSpec
from abruzzi.contracts.stage import S3Store, StageSpec
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import Sessions, transaction
from abruzzi.kit.settings import Settings
from abruzzi.logs import service as logs
from abruzzi.pools import queue, service
from abruzzi.pools.queue import Place
from abruzzi.runs import query
from abruzzi.store import ObjectStore
from abruzzi.store.sessions import assume_role, to_json
from abruzzi_operators.controller.pools import PoolController
from abruzzi_operators.controller.run_rows import StoredRuns
from abruzzi_operators.controller.runs import RunController
from abruzzi_operators.executors.kubernetes import IssueToken, KubernetesExecutor
from abruzzi_operators.executors.placing import Placer
from abruzzi_operators.executors.pod_logs import KeepLog
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.rest_api import RestApi

logger = logging.getLogger(__name__)
LOG_SECONDS = 2.0
RENEW_SECONDS = 300.0


@asynccontextmanager
async def open_kubernetes_executor(
    settings: Settings,
    *,
    sessions: Sessions,
    objects: ObjectStore,
    clock: Clock,
    api_url: str,
    issue_token: IssueToken,
) -> AsyncIterator[KubernetesExecutor]:
    """A cluster that does not answer is no reason to fail: nothing is known until it does."""
    pools = StoredPools(sessions)
    place = Placer(settings, pools.read, api_url=api_url)
    async with RestApi(Access()) as api:
        executor = KubernetesExecutor(
            api,
            namespace=settings.namespace,
            place=place,
            issue_token=issue_token,
            make_credentials=make_credentials,
            keep_log=_keeper(sessions, objects),
            peer_policies=settings.peer_policies,
        )
        beside = [
            asyncio.create_task(_repeat(executor.collect_logs, LOG_SECONDS), name="logs of foreign images"),
            asyncio.create_task(
                PoolController(api, pools, executor, namespace=settings.namespace, now=clock.now).run(), name="pools"
            ),
            asyncio.create_task(
                RunController(
                    api,
                    StoredRuns(sessions, clock, default_pool=settings.default_pool),
                    now=clock.now,
                    platform=settings.platform,
                    url=settings.public_url or settings.url,
                ).run(),
                name="Runs of the cluster",
            ),
            asyncio.create_task(_repeat(executor.renew_credentials, RENEW_SECONDS), name="renewal of credentials"),
        ]
        try:
            yield executor
        finally:
            for task in beside:
                task.cancel()
            await executor.close()


class StoredPools:
    """Pools as Postgres has them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def read(self, name: str) -> PoolSpec:
        async with transaction(self._sessions) as session:
            return await service.spec_of(session, name)

    async def list(self) -> Sequence[PoolSpec]:
        async with transaction(self._sessions) as session:
            return await service.list_specs(session)

    async def observe(self, name: str, status: Mapping[str, Any], places: Sequence[Place] | None) -> None:
        async with transaction(self._sessions) as session:
            await service.observe(session, name, status)
            if places is not None:
                await queue.observe(session, name, places)


async def make_credentials(spec: StageSpec) -> str | None:
    """Of an attempt, for its Secret. Raises AbruzziError `store_error`."""
    return to_json(await asyncio.to_thread(assume_role, spec)) if isinstance(spec.store, S3Store) else None


def _keeper(sessions: Sessions, objects: ObjectStore) -> KeepLog:
    async def keep(attempt_id: str, rank: int, text: bytes) -> None:
        async with transaction(sessions) as session:
            attempt = await query.attempt_row(session, attempt_id)
            appended = await logs.append(session, objects, attempt, rank, 0, text)
        if appended.replaced_key is not None:
            await asyncio.to_thread(objects.delete, appended.replaced_key)

    return keep


async def _repeat(work, seconds: float) -> None:  # type: ignore[no-untyped-def]
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except AbruzziError as error:
            logger.warning("%s; again in %.0f s", error.message, seconds)
