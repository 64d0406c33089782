"""The pod of a sandbox, and the program that looks whether anything can be reached from it. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from abruzzi.kit.settings import SandboxPods
from abruzzi_operators.kubernetes.resources import PODS, Object
from abruzzi_operators.renderers.pod import CONTAINER_SECURITY, cpu_quantity

LABEL_KEEPER = "abruzzi.io/sandbox-keeper"
"""Which process of the service made it: what that one does not know is a leak."""
LABEL_SANDBOX = "abruzzi.io/sandbox"
CONTAINER = "box"
GRACE_SECONDS = 5
FIRST_USER = 1_000_000
"""Each pod's processes have a user of their own: the kernel counts processes by user, over all pods of a node."""
USERS = 1_000_000_000
WRITABLE = {"workspace": "/workspace", "tmp": "/tmp", "attempt": "/abruzzi"}
"""/abruzzi is where a stage keeps its files: folders of them that a program is to see appear under their own path."""
_WAIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.sigwait({signal.SIGTERM})"
"""Reaps what is left behind, and ends when it is told to: the first process of a container has no default for that."""
_PROBE = """
import json, os, socket, sys, threading
reached = []
def reach(host, port):
    try:
        socket.create_connection((host, port), SECONDS).close()
        reached.append(f"{host}:{port}")
    except OSError:
        pass
threads = [threading.Thread(target=reach, args=place) for place in PLACES]
[thread.start() for thread in threads], [thread.join() for thread in threads]
if os.geteuid() == 0:
    reached.append("the rights of root")
if os.path.exists("/var/run/secrets/kubernetes.io"):
    reached.append("a token of the cluster")
print(json.dumps(reached))
"""


def sandbox_pod(
    settings: SandboxPods, *, name: str, namespace: str, keeper: str, user: int, owner: Object | None
) -> Object:
    """`owner`: the service's own pod, in the same namespace; with it its sandboxes go."""
    bounds = {"memory": str(settings.memory), "ephemeral-storage": str(settings.disk)}
    limits = {"cpu": cpu_quantity(settings.cpu_cores), **bounds}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": settings.lifetime_seconds,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostname": "box",
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-I", "-S", "-c", _WAIT],
                "resources": {"requests": {**bounds, "cpu": "10m"}, "limits": limits},
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in WRITABLE.items()],
            }
        ],
        "volumes": [{"name": volume, "emptyDir": {"sizeLimit": str(settings.disk)}} for volume in WRITABLE],
    }
    if settings.runtime_class:
        spec["runtimeClassName"] = settings.runtime_class
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    pod = PODS.new(name, namespace, spec=spec)
    pod["metadata"]["labels"] = {LABEL_SANDBOX: "true", LABEL_KEEPER: keeper}
    if owner is not None:
        about = {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        pod["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", **about}]
    return pod


def probe(places: Sequence[tuple[str, int]], seconds: float = 1.0) -> list[str]:
    """The command line of a program that prints, as JSON, what it has reached of these places, and what it has that it should not have."""
    program = _PROBE.replace("PLACES", json.dumps([list(place) for place in places])).replace("SECONDS", str(seconds))
    return ["python3", "-I", "-S", "-c", program]
