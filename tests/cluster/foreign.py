"""A cluster that somebody already has, which the suite knows by KUBECONFIG and a prefix of images."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from cluster.components import wait_until
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl

KUBECONFIG, IMAGE_PREFIX, POD_TEMPLATE = "KUBECONFIG", "ABRUZZI_TEST_IMAGE_PREFIX", "ABRUZZI_POD_TEMPLATE"
PULL_SECONDS = 600.0
"""An image of stages has gigabytes."""
_TRIED, _PAUSES, _NEVER = "ErrImagePull", "ImagePullBackOff", "InvalidImageName"
"""What the kubelet says after each failed try, until the next one, and of what it does not try at all."""


def named() -> tuple[Path, str] | None:
    """Kubeconfig and prefix, where both are given. KUBECONFIG alone is not taken: a developer's shell has one for other reasons, and this suite deletes
    things. Raises ClusterError for a prefix alone."""
    prefix, kubeconfig = os.environ.get(IMAGE_PREFIX), os.environ.get(KUBECONFIG)
    if not prefix:
        return None
    if not kubeconfig:
        raise ClusterError(
            f"{IMAGE_PREFIX} names images for a cluster that {KUBECONFIG} does not name: set both or neither"
        )
    return Path(kubeconfig), prefix


def own_address(kubectl: Kubectl) -> str:
    """Of this machine, in the network of the nodes."""
    addresses = [each for node in kubectl.json("get", "nodes")["items"] for each in node["status"]["addresses"]]
    internal = next((each["address"] for each in addresses if each["type"] == "InternalIP"), None)
    if internal is None:
        raise ClusterError(
            "no node of this cluster tells an InternalIP, so nobody knows where its pods reach this machine"
        )
    with socket.socket(socket.AF_INET6 if ":" in internal else socket.AF_INET, socket.SOCK_DGRAM) as towards:
        towards.connect((internal, 9))  # chooses a route and sends nothing
        return str(towards.getsockname()[0])


def pod_template() -> dict[str, Any]:
    """As the platform takes it, from the file that the platform's own variable names."""
    path = os.environ.get(POD_TEMPLATE)
    return json.loads(Path(path).read_text()) if path else {}


def try_image(kubectl: Kubectl, image: str, namespace: str) -> None:
    """Starts a pod of it. Raises ClusterError, with the kubelet's words, when a second try to pull it has failed (half a minute): the first may have met a
    registry or a network that hesitated."""
    container = {"name": "main", "image": image, "command": ["sh", "-c", "exit 0"]}
    spec = {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False}
    kubectl.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pull"}, "spec": spec}, namespace=namespace)
    has_paused = False

    def is_there() -> bool:
        nonlocal has_paused
        status = kubectl.json("get", "pod", "pull", "-n", namespace)["status"]
        for each in status.get("containerStatuses", ()):
            waiting = each["state"].get("waiting", {})
            reason = waiting.get("reason")
            has_paused = has_paused or reason == _PAUSES
            if reason == _NEVER or (reason == _TRIED and has_paused):
                raise ClusterError(
                    f"this cluster cannot pull {image} ({reason}: {waiting.get('message', 'it says no more')}). "
                    f"Push it there, or see that {IMAGE_PREFIX} is where its images are (docs/how-to/test-on-a-cluster.md)"
                )
        return status["phase"] in ("Running", "Succeeded", "Failed")

    def last_words() -> str:
        return kubectl.try_run("describe", "pod", "pull", "-n", namespace).stdout

    wait_until(f"a pod of {image} has started", is_there, seconds=PULL_SECONDS, last_words=last_words)
