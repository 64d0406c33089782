"""What a platform that is no more left in its namespace: workloads, Secrets and policies of attempts, and the fence.

A database that was restored to an older state counts attempts anew, and their names are taken: by workloads of its lost future, and in the fence,
which lets nothing pass that was removed once. The fence goes last: it keeps off what comes late until nothing is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.executors.fence import KINDS, NAME
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import NotFound, NotServed
from abruzzi_operators.kubernetes.resources import (
    CONFIG_MAPS,
    NETWORK_POLICIES,
    PODS,
    SECRETS,
    Object,
    Resource,
)
from abruzzi_operators.renderers.names import SELECTOR

WAIT_SECONDS = 120.0
"""Longer than the longest grace of a pod (65 s)."""
POLL_SECONDS = 0.5
_ALL = (*KINDS, PODS, SECRETS, NETWORK_POLICIES)

Left = Mapping[Resource, list[Object]]


async def look(api: Api, namespace: str) -> Left:
    """All that `clear` would remove."""
    found: dict[Resource, list[Object]] = {}
    for kind in _ALL:
        with suppress(NotServed):
            found[kind] = list(await api.list(kind, namespace=namespace, label_selector=SELECTOR))
    with suppress(NotFound):
        found[CONFIG_MAPS] = [await api.get(CONFIG_MAPS, NAME, namespace=namespace)]
    return {kind: things for kind, things in found.items() if things}


async def clear(api: Api, namespace: str, *, seconds: float = WAIT_SECONDS) -> Left:
    """What it removed. No controller of the namespace may run meanwhile. It may be repeated. Raises ApiError, or AbruzziError `pods_live`."""
    found = await look(api, namespace)
    for kind in KINDS:
        for thing in found.get(kind, ()):
            await _delete(api, kind, thing, foreground=True)
    for pod in found.get(PODS, ()):
        await _delete(api, PODS, pod)
    deadline = time.monotonic() + seconds
    while lives := [thing for kind in (*KINDS, PODS) for thing in (await look(api, namespace)).get(kind, ())]:
        if time.monotonic() > deadline:
            names = ", ".join(sorted(thing["metadata"]["name"] for thing in lives[:5]))
            raise AbruzziError(
                "pods_live",
                f"{len(lives)} workloads and pods of {namespace} are still there after {seconds:.0f} s: {names}. The fence stays until they are gone.",
                status=409,
                hint="Are their nodes alive, and does anything make them anew? Then repeat this.",
            )
        await asyncio.sleep(POLL_SECONDS)
    for kind in (SECRETS, NETWORK_POLICIES, CONFIG_MAPS):
        for thing in found.get(kind, ()):
            await _delete(api, kind, thing)
    return found


async def _delete(api: Api, kind: Resource, thing: Object, *, foreground: bool = False) -> None:
    metadata = thing["metadata"]
    with suppress(NotFound):
        await api.delete(
            kind,
            metadata["name"],
            namespace=metadata["namespace"],
            propagation="Foreground" if foreground else "Background",
        )
