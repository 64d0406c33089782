"""What an administrator lays once for the executor: the fence's policies, and the least rights that the controller can do its work with.

`python -m abruzzi_operators.executors.ground NAMESPACE SERVICE_ACCOUNT_NAMESPACE SERVICE_ACCOUNT | kubectl apply -f -`
"""

from __future__ import annotations

import json
import sys
from typing import Any

from abruzzi_operators.executors.fence import NAME as FENCE
from abruzzi_operators.executors.fence import policies
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    CONFIG_MAPS,
    CRDS,
    EVENTS,
    JOBS,
    LEASES,
    LOCAL_QUEUES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    PYTORCH_JOBS,
    RAY_JOBS,
    RESOURCE_FLAVORS,
    RUNS,
    SECRETS,
    TOPOLOGIES,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    WORKLOADS,
    Object,
    Resource,
)

NAME = "abruzzi-controller"
ROLES = "rbac.authorization.k8s.io"
VISIBILITY_GROUP = "visibility.kueue.x-k8s.io"
LEASE_NAMESPACE = "kube-node-lease"
"""Kubernetes' own: a lease for each node, by its name."""
WORKLOAD_VERBS = ("get", "list", "watch", "create", "delete")


def rules() -> list[Object]:
    """In the namespace of the stages. No `*`, no list of Secrets, no exec: a request for stacks is an annotation."""
    return [
        *(_rule(kind, *WORKLOAD_VERBS) for kind in (JOBS, PYTORCH_JOBS, TRAIN_JOBS, RAY_JOBS)),
        _rule(PODS, "list", "watch", "patch", "delete"),
        _rule(PODS, "get", subresource="log"),
        _rule(EVENTS, "list", "watch"),  # why pods can't be made
        _rule(SECRETS, "get", "create", "patch", "delete"),
        {**_rule(CONFIG_MAPS, "list", "watch", "patch"), "resourceNames": [FENCE]},
        _rule(CONFIG_MAPS, "create"),  # what is being created has no name yet that a rule could hold
        _rule(NETWORK_POLICIES, "create", "delete"),
        _rule(TRAINING_RUNTIMES, "get", "create", "patch"),
        _rule(WORKLOADS, "list", "watch"),
        _rule(LOCAL_QUEUES, "create", "patch", "delete"),
    ]


def cluster_rules() -> list[Object]:
    """The shape of TrainJob is told by its CRD; pools are objects of the cluster. (/version and /apis are open to every account: system:discovery.)"""
    return [
        {**_rule(CRDS, "get"), "resourceNames": [TRAIN_JOBS.full_name]},
        _rule(CLUSTER_QUEUES, "get", "list", "create", "patch", "delete"),
        *(_rule(kind, "list", "create", "patch", "delete") for kind in (RESOURCE_FLAVORS, TOPOLOGIES)),
        _rule(LOCAL_QUEUES, "list"),
        # Runs are submitted from any namespace; its labels say to which project.
        _rule(RUNS, "get", "list", "watch"),
        _rule(RUNS, "patch", subresource="status"),
        _rule(NAMESPACES, "list", "watch"),
        # Kueue's word on positions; without it they are told by priority and age.
        {"apiGroups": [VISIBILITY_GROUP], "resources": ["clusterqueues/pendingworkloads"], "verbs": ["get"]},
        _rule(NODES, "get", "list", "watch", "patch"),  # cordon and our own taints
    ]


def sandbox_rules() -> list[Object]:
    """Of the service of sandboxes, in the namespace of its pods alone. A WebSocket's exec is a `get`, and newer apiservers ask for `create`, too."""
    return [_rule(PODS, "get", "list", "create", "delete"), _rule(PODS, "get", "create", subresource="exec")]


def lease_rules() -> list[Object]:
    """In kube-node-lease: which kubelets are heard."""
    return [_rule(LEASES, "get", "list", "watch")]


def manifests(namespace: str, subject: Object) -> list[Object]:
    """`subject` is whom the controller runs as, in RBAC's words."""
    role = {"apiGroup": ROLES, "kind": "Role", "name": NAME}
    return [
        *policies(namespace),
        _object("Role", namespace, rules=rules()),
        _object("RoleBinding", namespace, roleRef=role, subjects=[subject]),
        _object("Role", LEASE_NAMESPACE, rules=lease_rules()),
        _object("RoleBinding", LEASE_NAMESPACE, roleRef=role, subjects=[subject]),
        _object("ClusterRole", None, rules=cluster_rules()),
        _object("ClusterRoleBinding", None, roleRef={**role, "kind": "ClusterRole"}, subjects=[subject]),
    ]


def _rule(kind: Resource, *verbs: str, subresource: str = "") -> Object:
    what = f"{kind.plural}/{subresource}" if subresource else kind.plural
    return {"apiGroups": [kind.group], "resources": [what], "verbs": list(verbs)}


def _object(kind: str, namespace: str | None, **fields: Any) -> Object:
    metadata = {"name": NAME} if namespace is None else {"name": NAME, "namespace": namespace}
    return {"apiVersion": f"{ROLES}/v1", "kind": kind, "metadata": metadata, **fields}


if __name__ == "__main__":
    where, account_namespace, account = sys.argv[1:4]
    who = {"kind": "ServiceAccount", "namespace": account_namespace, "name": account}
    things = {"apiVersion": "v1", "kind": "List", "items": manifests(where, who)}
    sys.stdout.write(json.dumps(things, indent=2) + "\n")
