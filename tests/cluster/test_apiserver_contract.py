"""A real apiserver, spoken to by RestApi, keeps the contract that the fake keeps."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

pytest.register_assert_rewrite("simulation.api_contract")
from cluster.apiserver import ApiServer, needs_apiserver  # noqa: E402
from simulation.api_contract import ApiContract, Ground  # noqa: E402

from abruzzi_operators.kubernetes.access import Access  # noqa: E402
from abruzzi_operators.kubernetes.resources import NAMESPACES  # noqa: E402
from abruzzi_operators.kubernetes.rest_api import RestApi  # noqa: E402

pytestmark = needs_apiserver
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("apiserver") / "state") as server:
        yield server


class TestRestApi(ApiContract):
    @pytest.fixture
    async def ground(self, server: ApiServer) -> AsyncIterator[Ground]:
        self.server = server
        async with RestApi(Access(kubeconfig=server.kubeconfig)) as api:
            namespace = f"test-{next(_numbers)}"
            await api.create(NAMESPACES, NAMESPACES.new(namespace))
            yield Ground(api, namespace)

    async def compact(self, ground: Ground) -> None:
        self.server.compact()
