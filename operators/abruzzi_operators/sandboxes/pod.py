"""The pod of a sandbox, the program that looks whether anything can be reached from it, and who has ended it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from abruzzi.contracts.sandbox import SandboxIn
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
_COPY = "/abruzzi-copy"
_ENDED_BY_ITSELF = re.compile(r"exceed(s|ed) (the|its) ")
"""The kubelet's words where a pod is evicted for its own limits; those of a node that has too little begin otherwise."""
_WAIT = """
import ctypes, signal
ctypes.CDLL(None).prctl(4, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while (told := signal.sigwaitinfo({signal.SIGTERM})).si_pid or told.si_code: pass
"""
"""Reaps what is left behind, and ends when the node tells it to: the first process of a container has no default for that. No program in the pod can end it
(nor open its files: PR_SET_DUMPABLE), for a pod that has ended would look like one that was taken away."""
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
print(json.dumps({"reached": reached, "network": [name for _, name in socket.if_nameindex()] != ["lo"]}))
"""


def sandbox_pod(
    settings: SandboxPods, *, name: str, namespace: str, keeper: str, user: int, owner: Object | None, wanted: SandboxIn = SandboxIn()
) -> Object:  # fmt: skip
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
                "image": wanted.image or settings.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-I", "-S", "-c", _WAIT],
                "resources": {"requests": {**bounds, "cpu": "10m"}, "limits": limits},
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in WRITABLE.items()],
            }
        ],
        "volumes": [{"name": volume, "emptyDir": {"sizeLimit": str(settings.disk)}} for volume in WRITABLE],
    }
    if wanted.folder:
        _copy_folder(spec, wanted.folder, settings)
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


def _copy_folder(spec: dict[str, Any], folder: str, settings: SandboxPods) -> None:
    """What lies there in the image belongs to somebody else, mostly root; the copy is the pod's own, which the volume's root is not."""
    [box] = spec["containers"]
    mount = {"name": "folder", "mountPath": _COPY}
    command = ["cp", "-a", f"{folder}/.", f"{_COPY}/own"]
    same = {key: box[key] for key in ("image", "imagePullPolicy", "resources", "securityContext")}
    spec["initContainers"] = [{"name": "copy", "command": command, "volumeMounts": [mount], **same}]
    box["volumeMounts"].append({"name": "folder", "mountPath": folder, "subPath": "own"})
    spec["volumes"].append({"name": "folder", "emptyDir": {"sizeLimit": str(settings.disk)}})


def taken_away(pod: Object) -> str:
    """Why it has gone without the doing of a program in it; empty where it runs, or has ended by itself, by its own limits or by its time."""
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return "somebody deleted it"
    states = [state for each in status.get("containerStatuses") or () for state in each.get("state", {}).values()]
    if any(state.get("reason") == "OOMKilled" for state in states):
        return ""
    reason, message = status.get("reason", ""), status.get("message", "")
    if not reason or reason == "DeadlineExceeded" or _ENDED_BY_ITSELF.search(message):
        return ""
    return f"{reason}: {message}".rstrip(": ")


def probe(places: Sequence[tuple[str, int]], seconds: float = 1.0) -> list[str]:
    """The command line of a program that prints, as JSON, what it has `reached` of these places or has that it should not have, and whether it has a
    `network` at all: where it has, that nothing answers may be a packet that was lost."""
    program = _PROBE.replace("PLACES", json.dumps([list(place) for place in places])).replace("SECONDS", str(seconds))
    return ["python3", "-I", "-S", "-c", program]
