"""The service of sandboxes in front of a test cluster, with the rights that the chart gives it, for tests and for bench/sandbox_pods.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml
from cluster.errors import ClusterError
from cluster.handle import ClusterHandle
from cluster.layout import APISERVER_PORT
from ports import free_port

from abruzzi_operators.executors.ground import sandbox_rules
from abruzzi_operators.sandboxes.pod import LABEL_SANDBOX

GVISOR = "gvisor"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SECONDS = 240.0
READY = 2
TOKEN = "of-an-attempt"


class Service:
    """A process of this machine, as its Deployment's would be: killed, it is started again under the same name."""

    def __init__(self, cluster: ClusterHandle, folder: Path, namespace: str, runtime_class: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self._folder, self._api, self._port = folder, _Platform(), free_port()
        self._settings = {
            "image": cluster.python_image(),
            "runtime_class": runtime_class,
            "ready": READY,
            "most": 6,
            "images": ["docker.io/library/"],
            "memory": "1 GB",
        }
        self._kubeconfig = _as_the_chart_lets_it(cluster, folder, namespace)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        environment = os.environ | {
            "KUBECONFIG": str(self._kubeconfig), "ABRUZZI_SANDBOXES": json.dumps(self._settings), "ABRUZZI_URL": self._api.url,
            "ABRUZZI_HOST": "0.0.0.0", "ABRUZZI_PORT": str(self._port),
        }  # fmt: skip
        with (self._folder / "service.log").open("ab") as log:
            command = [sys.executable, "-m", "abruzzi_operators.sandboxes.main"]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What it says of itself."""
        end, said = time.monotonic() + SECONDS, {}
        while time.monotonic() < end:
            try:
                said = httpx.get(f"{self.url}/healthz", trust_env=False).json()
                if condition(said):
                    return said
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        log = (self._folder / "service.log").read_text()
        pods = self.cluster.kubectl.try_run("describe", "pods", "-n", self.namespace).stdout[-4000:]
        raise ClusterError(f"{said}\n{log}\n{pods}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(SECONDS)
        self._api.close()

    def pods(self) -> set[str]:
        """That are not on their way out."""
        found = self.cluster.kubectl.json("get", "pods", "-n", self.namespace, "-l", LABEL_SANDBOX)["items"]
        return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def delete_pod(self, *, user: int) -> None:
        """The one whose programs have this user id."""
        found = self.cluster.kubectl.json("get", "pods", "-n", self.namespace, "-l", LABEL_SANDBOX)["items"]
        [name] = [p["metadata"]["name"] for p in found if p["spec"]["securityContext"]["runAsUser"] == user]
        self.cluster.kubectl("delete", "pod", name, "-n", self.namespace, "--wait=false")


class _Platform:
    """The one question that the service asks the API."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                role = "attempt" if self.headers["Authorization"] == f"Bearer {TOKEN}" else "viewer"
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps({"name": "run-stage-1", "role": role}).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _as_the_chart_lets_it(cluster: ClusterHandle, folder: Path, namespace: str) -> Path:
    """A kubeconfig of a service account with the Role of the chart, and nothing else."""
    name, group = "sandboxes", "rbac.authorization.k8s.io"
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}, "rules": sandbox_rules()},
        {
            "apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
        namespace=namespace,
    )  # fmt: skip
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = (
        f"https://{cluster.host_address}:{APISERVER_PORT}"  # as pods would reach it
    )
    config["users"][0]["user"] = {"token": cluster.kubectl("create", "token", name, "-n", namespace).strip()}
    config["contexts"][0]["context"]["namespace"] = namespace
    (path := folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return path


@contextmanager
def open_service(cluster: ClusterHandle, folder: Path, runtime_class: str) -> Iterator[Service]:
    with cluster.new_namespace(RESTRICTED) as namespace:
        service = Service(cluster, folder, namespace, runtime_class)
        try:
            service.start()
            yield service
        finally:
            service.stop()


def offer_gvisor(cluster: ClusterHandle) -> None:
    """Raises ClusterError where the tools hold none."""
    _ = cluster.local.tools.path("runsc")
    metadata = {"name": GVISOR}
    cluster.kubectl.apply(
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": metadata, "handler": "runsc"}
    )
