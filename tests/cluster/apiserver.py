"""A real etcd and a real kube-apiserver on free loopback ports: ready in about three seconds, without root, bridge or cluster lock.

    with ApiServer(tmp_path, crds=[...]) as server:
        api = RestApi(Access(kubeconfig=server.kubeconfig))

What is not here: no kubelet, no scheduler, and no controllers unless asked for (`controllers=("job",)`), so pods stay as the test writes
them, owned objects stay when their owner goes, and namespaces never finish ending. Pods need no service account.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cluster.binaries import Toolbox
from cluster.certificates import CLIENT, SERVER, Authority
from ports import free_ports

from abruzzi_operators.kubernetes.resources import Resource
from abruzzi_operators.supervisor import guarded_exec

BINARIES = ("etcd", "kube-apiserver")
READY_SECONDS = 240.0
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML has it: a CRD is a megabyte."""
APPLY = "application/apply-patch+yaml"


needs_apiserver = pytest.mark.skipif(
    bool(Toolbox().missing(BINARIES)),
    reason="no etcd and kube-apiserver here: set ABRUZZI_CLUSTER_TOOLS, or build them once with `make cluster-tools`",
)


class ApiServer:
    """Context manager. `state` is an empty folder; everything is below it, logs too."""

    def __init__(self, state: Path, *, crds: Sequence[Path] = (), controllers: Sequence[str] = ()) -> None:
        self.state = state
        self._crds = crds
        self._controllers = controllers
        self._tools = Toolbox()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # The kernel ends a guarded child with the *thread* that started it, so one thread starts them all and lives as long as they may.
        self._starter = ThreadPoolExecutor(1, "apiserver-starter")
        self.port, self._etcd_port, self._peer_port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd_url = f"http://127.0.0.1:{self._etcd_port}"
        self.kubeconfig = state / "admin.conf"
        """Of a cluster administrator."""

    def __enter__(self) -> ApiServer:
        pki = self.state / "pki"
        pki.mkdir(parents=True)
        self._authority = Authority(pki)
        self._authority.issue("apiserver", "kube-apiserver", [SERVER], names=["127.0.0.1", "localhost"])
        self._authority.issue("accounts", "accounts", [CLIENT])  # only its key pair is used, for service account tokens
        self.kubeconfig = self.kubeconfig_as("admin", group="system:masters")
        self._client = self._admin_client()
        try:
            self.start_etcd()
            self.start_api()
            if self._controllers:
                self._start("controllers", self._controllers_command())
            for path in self._crds:
                self.apply_crds(path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._processes)):
            self.stop(name, kill=True)
        self._client.close()
        self._starter.shutdown()

    def kubeconfig_as(self, user: str, *, group: str = "") -> Path:
        """For another identity (a client certificate); without RBAC rules it may do nothing."""
        self._authority.issue(user, user, [CLIENT], group=group)
        pki = self.state / "pki"
        return self._write_kubeconfig(
            user, {"client-certificate": str(pki / f"{user}.crt"), "client-key": str(pki / f"{user}.key")}
        )

    def kubeconfig_with_token(self, token_file: Path) -> Path:
        """For whoever the token in that file says, whenever it is read."""
        return self._write_kubeconfig(token_file.name, {"tokenFile": str(token_file)})

    def account_token(self, name: str, *, namespace: str = "default", seconds: int = 600) -> str:
        """A bound token of a service account, which is made if it is missing. At least 600 s."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        self.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}", account)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        answer = self._client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", json=request)
        return _good(answer)["status"]["token"]

    def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply by path, for a test's own ground."""
        query = {"fieldManager": "test", "force": "true"}
        return _good(self._client.patch(path, params=query, content=json.dumps(body), headers={"Content-Type": APPLY}))

    def apply_crds(self, path: Path) -> None:
        """All CRDs of a YAML file, or of the `*.yaml` files below a folder; returns when they are served."""
        files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
        documents = [
            document for file in files for document in yaml.load_all(file.read_text(), Loader=_LOADER) if document
        ]
        self._apply_crds([document for document in documents if document.get("kind") == "CustomResourceDefinition"])

    def serve(self, *kinds: Resource, spec_fields: Sequence[str] = ()) -> None:
        """CRDs of these kinds that take any content and have a status subresource: the paths of an operator that is not here."""
        self._apply_crds([permissive_crd(kind, spec_fields) for kind in kinds])

    def _apply_crds(self, crds: Sequence[dict[str, Any]]) -> None:
        base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            # Conversion needs the operator's webhook, which does not run here; the stored version is served as it is.
            crd["spec"].pop("conversion", None)
            self.apply(f"{base}/{crd['metadata']['name']}", crd)
        for crd in crds:
            group, names = crd["spec"]["group"], crd["spec"]["names"]
            versions = [version["name"] for version in crd["spec"]["versions"] if version["served"]]
            for version in versions:
                self._until(lambda at=f"/apis/{group}/{version}/{names['plural']}": self._client.get(at).is_success, f"{names['kind']} is not served")  # fmt: skip

    def openapi(self) -> dict[str, Any]:
        """Its own description, OpenAPI V2: all kinds that it serves."""
        return _good(self._client.get("/openapi/v2"))

    def start_etcd(self) -> None:
        peers = f"http://127.0.0.1:{self._peer_port}"
        self._start(
            "etcd",
            [
                *(
                    self._tools.path("etcd"),
                    "--data-dir",
                    self.state / "etcd",
                    "--unsafe-no-fsync",
                    "--log-level=error",
                ),
                *("--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url),
                *(
                    "--listen-peer-urls",
                    peers,
                    "--initial-advertise-peer-urls",
                    peers,
                    "--initial-cluster",
                    f"default={peers}",
                ),
            ],
        )
        self._until(lambda: httpx.get(f"{self.etcd_url}/health", trust_env=False).is_success, "etcd is not healthy")

    def start_api(self) -> None:
        pki = self.state / "pki"
        self._start(
            "apiserver",
            [
                *(self._tools.path("kube-apiserver"), f"--etcd-servers={self.etcd_url}"),
                *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
                *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
                *(f"--client-ca-file={pki}/ca.crt", "--authorization-mode=RBAC", "--allow-privileged=true"),
                *(
                    f"--service-account-key-file={pki}/accounts.crt",
                    f"--service-account-signing-key-file={pki}/accounts.key",
                ),
                *("--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16"),
                # There is no controller that makes default service accounts, and no endpoint that anybody needs.
                *("--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"),
                # Compaction happens when a test asks for it.
                "--etcd-compaction-interval=0",
            ],
        )
        self._until(lambda: self._client.get("/readyz").is_success, "the apiserver is not ready")

    def stop(self, name: str, *, kill: bool = False) -> None:
        """`etcd`, `apiserver` or `controllers`; an apiserver that is not killed takes seconds to end its watches."""
        process = self._processes.pop(name)
        (process.kill if kill else process.terminate)()
        process.wait(timeout=60)

    def signal(self, name: str, number: int) -> None:
        """SIGSTOP makes every connection half-open; SIGCONT ends that."""
        self._processes[name].send_signal(number)

    def restart_api(self) -> None:
        """Killed and started: every connection breaks, the watch cache is new."""
        self.stop("apiserver", kill=True)
        self.start_api()

    def revision(self) -> int:
        """etcd's; the next write gets the next."""
        answer = self.etcd("/v3/kv/range", {"key": base64.b64encode(b"\0").decode(), "count_only": True})
        return int(answer["header"]["revision"])

    def compact(self) -> int:
        """Drop etcd's history up to now and the apiserver's memory of it; returns the revision. Older resource versions are 410 then."""
        revision = self.revision()
        self.etcd("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        self.restart_api()
        return revision

    def snapshot(self) -> Path:
        """A copy of etcd's data as of now."""
        self.stop("etcd", kill=True)
        target = self.state / f"snapshot-{len(list(self.state.glob('snapshot-*')))}"
        shutil.copytree(self.state / "etcd", target)
        self.start_etcd()
        self._until(lambda: self._client.get("/readyz").is_success, "the apiserver does not find etcd again")
        return target

    def restore(self, snapshot: Path) -> None:
        """As an operator does after a disaster: everything after the snapshot never happened, revisions are given out again."""
        self.stop("apiserver", kill=True)
        self.stop("etcd", kill=True)
        shutil.rmtree(self.state / "etcd")
        shutil.copytree(snapshot, self.state / "etcd")
        self.start_etcd()
        self.start_api()

    def log(self, name: str) -> str:
        return (self.state / f"{name}.log").read_text(errors="replace")

    def _controllers_command(self) -> list[object]:
        return [
            *(self._tools.path("kube-controller-manager"), f"--kubeconfig={self.kubeconfig}", "--leader-elect=false"),
            *(
                f"--controllers={','.join(self._controllers)}",
                "--secure-port=0",
                "--kube-api-qps=300",
                "--kube-api-burst=500",
            ),
        ]

    def _start(self, name: str, command: Sequence[object]) -> None:
        guard = [sys.executable, "-I", "-S", guarded_exec.__file__, str(os.getpid()), "9", "same", "--"]
        with (self.state / f"{name}.log").open("ab") as log:
            start = partial(subprocess.Popen, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.state)
            self._processes[name] = self._starter.submit(start, [*guard, *map(str, command)]).result()

    def _write_kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.state / "pki" / "ca.crt")}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
        }  # fmt: skip
        path = self.state / f"{name}.conf"
        path.write_text(yaml.safe_dump(document))
        path.chmod(0o600)
        return path

    def _admin_client(self) -> httpx.Client:
        pki = self.state / "pki"
        trust = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        trust.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        return httpx.Client(base_url=self.url, verify=trust, trust_env=False, timeout=120.0)

    def etcd(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A call to etcd itself, by its JSON gateway; keys and values in base64."""
        return _good(httpx.post(f"{self.etcd_url}{path}", json=body, trust_env=False, timeout=120.0))

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                last_words = "\n".join(f"--- {name}\n{self.log(name)[-2000:]}" for name in dead or self._processes)
                raise AssertionError(f"{otherwise}\n{last_words}")
            time.sleep(0.05)


def permissive_crd(kind: Resource, spec_fields: Sequence[str] = ()) -> dict[str, Any]:
    """`spec_fields` are named in its schema, beside everything else that it takes."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {**anything, "properties": {name: {"x-kubernetes-preserve-unknown-fields": True} for name in spec_fields}}
    schema = {"type": "object", "properties": {"spec": spec, "status": anything}}
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"plural": kind.plural, "singular": kind.kind.lower(), "kind": kind.kind, "listKind": f"{kind.kind}List"}
    crd: dict[str, Any] = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    if kind.group.endswith(".k8s.io"):  # such groups ask for a link to a review
        crd["metadata"] = {"annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}}
    crd["metadata"] = {"name": kind.full_name, **crd.get("metadata", {})}
    return {
        **crd,
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def _good(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    return answer.json()
