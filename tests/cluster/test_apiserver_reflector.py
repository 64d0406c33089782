"""The reflector's contract over a real kube-apiserver and its etcd: real watches, compactions, restarts, a restored snapshot, bound tokens."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("simulation.reflector_contract")
from cluster.apiserver import ApiServer, needs_apiserver  # noqa: E402
from simulation.reflector_contract import Place, ReflectorContract, kubeconfig  # noqa: E402
from simulation.tcp_proxy import TcpProxy  # noqa: E402

from abruzzi_operators.kubernetes.access import Access  # noqa: E402
from abruzzi_operators.kubernetes.resources import NAMESPACES, SERVICE_ACCOUNTS  # noqa: E402
from abruzzi_operators.kubernetes.rest_api import RestApi  # noqa: E402

pytestmark = needs_apiserver
READER = "reader"
_numbers = itertools.count()


class RealPlace(Place):
    def __init__(self, server: ApiServer, writer: RestApi, namespace: str, proxy: TcpProxy, folder: Path) -> None:
        super().__init__(writer, namespace, proxy, folder / "token")
        self._server = server
        self._kubeconfig = kubeconfig(
            folder / "config", server=f"https://127.0.0.1:{proxy.port}", token_file=self.token_file,
            authority=server.state / "pki" / "ca.crt",
        )  # fmt: skip

    def kubeconfig(self) -> Path:
        return self._kubeconfig

    async def compact(self) -> None:
        await asyncio.to_thread(self._server.compact)

    async def restart(self) -> None:
        await asyncio.to_thread(self._server.restart_api)

    async def snapshot(self) -> object:
        return await asyncio.to_thread(self._server.snapshot)

    async def restore(self, snapshot: object) -> None:
        assert isinstance(snapshot, Path)
        await asyncio.to_thread(self._server.restore, snapshot)

    async def replace_token(self) -> str:
        """A bound token dies with its service account; the next one of that name is another."""
        await self.writer.delete(SERVICE_ACCOUNTS, READER, namespace=self.namespace)
        return await asyncio.to_thread(self._server.account_token, READER, namespace=self.namespace)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("apiserver") / "state") as server:
        yield server


@pytest.fixture
async def place(server: ApiServer, tmp_path: Path) -> AsyncIterator[RealPlace]:
    async with RestApi(Access(kubeconfig=server.kubeconfig)) as writer, TcpProxy(server.port) as proxy:
        namespace = f"test-{next(_numbers)}"
        await writer.create(NAMESPACES, NAMESPACES.new(namespace))
        may_read(server, namespace)
        token = await asyncio.to_thread(server.account_token, READER, namespace=namespace)
        (tmp_path / "token").write_text(token)
        yield RealPlace(server, writer, namespace, proxy, tmp_path)


def may_read(server: ApiServer, namespace: str) -> None:
    base, name = "/apis/rbac.authorization.k8s.io/v1", f"{READER}-{namespace}"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
    subject = {"kind": "ServiceAccount", "name": READER, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    for plural, kind, fields in (
        ("clusterroles", "ClusterRole", {"rules": rules}),
        ("clusterrolebindings", "ClusterRoleBinding", {"roleRef": role, "subjects": [subject]}),
    ):
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, **fields}
        server.apply(f"{base}/{plural}/{name}", body)


class TestReflectorOverRealApiserver(ReflectorContract):
    pass
