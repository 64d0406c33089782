"""What `abruzzi doctor` says about the cluster that this environment points to; nothing where it points to none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME

from abruzzi.cli.doctor import Check
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import StageKind
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.discovery import Cluster, discover
from abruzzi_operators.kubernetes.rest_api import RestApi


def checks() -> Iterator[Check]:
    """Entry point of the group `abruzzi.checks`. Needed is a cluster only where the controller's executor is Kubernetes."""
    needed = os.environ.get("ABRUZZI_EXECUTOR") == "kubernetes"
    if not needed and "KUBECONFIG" not in os.environ and SERVICE_HOST_ENV_NAME not in os.environ:
        return
    try:
        access = Access()
        cluster = asyncio.run(_discovered(access))
    except AbruzziError as error:
        yield Check("cluster", False, error.message, error.hint or "", needed=needed)
        return
    kinds = ", ".join(sorted(cluster.workload_kinds))
    yield Check(
        "cluster",
        True,
        f"Kubernetes {cluster.version} at {access.server} ({access.origin}) runs {kinds}",
        needed=needed,
    )
    for way, sentence in cluster.refusals().items():
        yield Check("stages", False, sentence, needed=needed and way in set(StageKind))


async def _discovered(access: Access) -> Cluster:
    async with RestApi(access) as api:
        return await discover(api)
