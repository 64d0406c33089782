"""The fence at the apiserver: what was removed is never created again, whoever asks and however late (design section 4.2).

ConfigMap `abruzzi-fence` holds `<run>.<stage>: <lowest number> <unix time>`: attempts of that stage below the number are over. (A run's epochs
would not do: stages run side by side, and the later epoch of one must not fence the other.) A removal raises it before it deletes anything,
and a ValidatingAdmissionPolicy compares every creation with it, so a controller that was stopped in the middle of a create is refused by the
apiserver itself; and so is an operator that still makes pods of a workload that is gone. Values only grow, which another policy holds; entries may go once no create can be on its way any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import AlreadyExists, Denied, Invalid, NotFound
from abruzzi_operators.kubernetes.reflector import Reflector
from abruzzi_operators.kubernetes.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CONFIG_MAPS,
    JOBS,
    PODS,
    PYTORCH_JOBS,
    RAY_JOBS,
    TRAIN_JOBS,
    Object,
    Resource,
)
from abruzzi_operators.renderers.names import (
    ANNOTATION_DIGEST,
    LABEL_ATTEMPT,
    LABEL_EPOCH,
    LABEL_RUN,
    LABEL_STAGE,
    MANAGED_BY,
    MANAGER,
)

NAME = "abruzzi-fence"
IDENTITY = "abruzzi-identity"
KEEP_SECONDS = 3600.0
"""A create that is on its way for longer than this does not exist: every call has a deadline of seconds."""
MOST_ENTRIES = 4000
SHORT_KEEP_SECONDS = 300.0
"""Of the oldest, where there are more than MOST_ENTRIES: a ConfigMap holds 1 MiB, and each removal writes all of it. What a controller that
was stopped for longer than this still creates then, the collector of orphans finds within a minute, and its epoch is over in any case."""
KINDS = (JOBS, PYTORCH_JOBS, TRAIN_JOBS, RAY_JOBS)


class Fence:
    """Reads from a watch, so a look costs no call; writes of several removals share one patch."""

    def __init__(self, api: Api, namespace: str, *, now: Callable[[], float]) -> None:
        self._api, self._namespace, self._now = api, namespace, now
        self._raised: dict[str, int] = {}
        """By this process; the watch will say so too."""
        self._waiting: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self.reflector: Reflector[Mapping[str, str]] = Reflector(
            api,
            CONFIG_MAPS,
            project=lambda thing: dict(thing.get("data") or {}),
            namespace=namespace,
            field_selector=f"metadata.name={NAME}",
        )

    def is_removed(self, attempt_id: str) -> bool:
        key, number = _place_of(attempt_id)
        return number < self._known(key)

    def _known(self, key: str) -> int:
        return max(self._raised.get(key, 0), lowest(self._data().get(key)))

    async def remove(self, attempt_id: str, *, anew: bool = False) -> None:
        """Returns when the apiserver has it. `anew`: also where it is known to be there, for a restored etcd may have forgotten it. Raises ApiError."""
        key, number = _place_of(attempt_id)
        if not anew and self.is_removed(attempt_id):
            return
        # As high as it is known to be, at least: it is only raised, and an older attempt may outlive a newer one.
        self._waiting[key] = max(self._waiting.get(key, 0), number + 1, self._known(key))
        async with self._lock:
            if self._waiting:  # else the one before us took ours along
                await self._write()
        self._raised[key] = max(self._known(key), number + 1)

    async def _write(self) -> None:
        wanted, self._waiting = self._waiting, {}
        now = self._now()
        data: dict[str, str | None] = {key: f"{number} {int(now)}" for key, number in wanted.items()}
        for key in _over(self._data(), now):
            if key not in data:
                data[key] = None
                self._raised.pop(key, None)
        try:
            await self._patch(data)
        except BaseException:
            for key, number in wanted.items():
                self._waiting[key] = max(self._waiting.get(key, 0), number)
            raise

    async def _patch(self, data: Mapping[str, str | None]) -> None:
        try:
            await self._api.patch(CONFIG_MAPS, NAME, {"data": data}, namespace=self._namespace)
        except NotFound:
            body = CONFIG_MAPS.new(NAME, self._namespace, data={k: v for k, v in data.items() if v is not None})
            body["metadata"]["labels"] = {MANAGED_BY: MANAGER}
            try:
                await self._api.create(CONFIG_MAPS, body)
            except AlreadyExists:
                await self._api.patch(CONFIG_MAPS, NAME, {"data": data}, namespace=self._namespace)

    def _data(self) -> Mapping[str, str]:
        return self.reflector.get(NAME, self._namespace) or {}


def refused(error: Denied | Invalid) -> bool:
    """Whether it was the fence that said no. (An apiserver that has just started also refuses what its policies are not loaded for yet.)"""
    return f"{NAME}: attempt" in error.message


def was_removed(attempt_id: str, namespace: str) -> str:
    """Why an attempt that should live is never made: the database has forgotten that it was over."""
    return (
        f"Attempt {attempt_id} was removed from namespace {namespace!r} before, and nothing of that name is made there again. "
        f"If the database was restored to an older state: `abruzzi backup clear {namespace}`."
    )


def lowest(value: str | None) -> int:
    return int(value.split(" ")[0]) if value else 0


def _over(entries: Mapping[str, str], now: float) -> list[str]:
    """Keys of those that no create on its way can need any more."""
    oldest_first = sorted((_written_at(value), key) for key, value in entries.items())
    spare = max(0, len(entries) - MOST_ENTRIES)
    return [
        key
        for place, (at, key) in enumerate(oldest_first)
        if now - at > (SHORT_KEEP_SECONDS if place < spare else KEEP_SECONDS)
    ]


def _written_at(value: str) -> float:
    return float(value.split(" ")[1])


def _place_of(attempt_id: str) -> tuple[str, int]:
    """(`<run>.<stage>`, number)"""
    run_id, rest = attempt_id.split("-", 1)
    stage_id, number = rest.rsplit("-", 1)
    return f"{run_id}.{stage_id}", int(number)


def policies(namespace: str) -> list[Object]:
    """What an administrator installs once (the Helm chart does): two policies and their bindings, for the namespace of the stages.

    They are objects of the cluster, so each namespace has its own, by name: two platforms in a cluster don't replace each other's.
    """
    in_namespace = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    fence, identity = f"{NAME}-{namespace}", f"{IDENTITY}-{namespace}"
    return [
        _policy(fence, [_rules("CREATE", *KINDS, PODS)], [_NOT_REMOVED], variables=_VARIABLES, parameter=True),
        _binding(fence, in_namespace, parameter=namespace),
        _policy(identity, [_rules("UPDATE", *KINDS), _FENCE_UPDATES], [_SAME_IDENTITY, _ONLY_GROWS]),
        _binding(identity, in_namespace),
    ]


def _rules(operation: str, *kinds: Resource) -> list[Object]:
    return [
        {"apiGroups": [kind.group], "apiVersions": ["*"], "operations": [operation], "resources": [kind.plural]}
        for kind in kinds
    ]


_FENCE_UPDATES: list[Object] = [
    {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["configmaps"],
        "resourceNames": [NAME],
    }
]
_IS_ATTEMPT = f"has(object.metadata.labels) && '{LABEL_ATTEMPT}' in object.metadata.labels"
_LABELS = "object.metadata.labels"
_VARIABLES: list[Object] = [
    {"name": "attempt", "expression": f"{_IS_ATTEMPT} ? {_LABELS}['{LABEL_ATTEMPT}'] : ''"},
    {
        "name": "key",
        "expression": f"{_IS_ATTEMPT} ? {_LABELS}['{LABEL_RUN}'] + '.' + {_LABELS}['{LABEL_STAGE}'] : ''",
    },
    {
        "name": "lowest",
        "expression": "params != null && has(params.data) && variables.key in params.data ? int(params.data[variables.key].split(' ')[0]) : 0",
    },
]
_NOT_REMOVED: Object = {
    "expression": "variables.attempt == '' || int(variables.attempt.substring(variables.attempt.lastIndexOf('-') + 1)) >= variables.lowest",
    "messageExpression": f"'{NAME}: attempt ' + variables.attempt + ' was removed and never comes back'",
    "reason": "Forbidden",
}
_SAME_IDENTITY: Object = {
    "expression": (
        f"object.kind == 'ConfigMap' || !has(oldObject.metadata.labels) || !('{LABEL_ATTEMPT}' in oldObject.metadata.labels) || "
        f"(has(object.metadata.labels) && ['{LABEL_ATTEMPT}', '{LABEL_EPOCH}'].all(l, l in object.metadata.labels && "
        f"object.metadata.labels[l] == oldObject.metadata.labels[l]) && "
        f"object.metadata.annotations['{ANNOTATION_DIGEST}'] == oldObject.metadata.annotations['{ANNOTATION_DIGEST}'])"
    ),
    "message": f"{IDENTITY}: a workload stands for one attempt, epoch and spec for ever",
    "reason": "Forbidden",
}
_ONLY_GROWS: Object = {
    "expression": (
        "object.kind != 'ConfigMap' || !has(oldObject.data) || oldObject.data.all(k, !has(object.data) || !(k in object.data) || "
        "int(object.data[k].split(' ')[0]) >= int(oldObject.data[k].split(' ')[0]))"
    ),
    "message": f"{IDENTITY}: the fence is only raised",
    "reason": "Forbidden",
}


def _policy(
    name: str,
    rules: list[list[Object]],
    validations: list[Object],
    *,
    variables: list[Object] | None = None,
    parameter: bool = False,
) -> Object:
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule for group in rules for rule in group]},
        "validations": validations,
    }
    if variables:
        spec["variables"] = variables
    if parameter:
        spec["paramKind"] = {"apiVersion": "v1", "kind": "ConfigMap"}
    return ADMISSION_POLICIES.new(name, spec=spec)


def _binding(name: str, in_namespace: Object, *, parameter: str | None = None) -> Object:
    spec: dict[str, Any] = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": in_namespace},
    }
    if parameter is not None:
        spec["paramRef"] = {"name": NAME, "namespace": parameter, "parameterNotFoundAction": "Allow"}
    return ADMISSION_POLICY_BINDINGS.new(name, spec=spec)
