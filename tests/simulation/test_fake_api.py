"""The fake apiserver keeps the contract that the real one keeps (tests/cluster/test_apiserver_contract.py)."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("simulation.api_contract")
from simulation.api_contract import ApiContract, Ground  # noqa: E402
from simulation.fake_api import FakeApi  # noqa: E402

from abruzzi_operators.kubernetes.errors import Denied, NotFound, Unreachable  # noqa: E402
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, JOBS, PODS  # noqa: E402


class TestFakeApi(ApiContract):
    @pytest.fixture
    def ground(self) -> Ground:
        return Ground(FakeApi(), "default")

    async def compact(self, ground: Ground) -> None:
        assert isinstance(ground.api, FakeApi)
        ground.api.compact()


async def test_a_rule_of_admission_denies_with_its_reason() -> None:
    api = FakeApi()
    api.admission.append(lambda verb, resource, new, old: "no jobs today" if resource.kind == "Job" else None)
    with pytest.raises(Denied, match="no jobs today"):
        await api.create(JOBS, JOBS.new("one", "default"))
    await api.create(CONFIG_MAPS, CONFIG_MAPS.new("one", "default"))


async def test_owned_objects_go_when_their_owner_is_gone_and_garbage_is_collected() -> None:
    api = FakeApi()
    job = await api.create(JOBS, JOBS.new("one", "default"))
    pod = PODS.new("one-0", "default", spec={})
    pod["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "one", "uid": job["metadata"]["uid"]}
    ]
    await api.create(PODS, pod)
    assert api.collect_garbage() == 0
    await api.delete(JOBS, "one", namespace="default")
    assert api.collect_garbage() == 1
    with pytest.raises(NotFound):
        await api.get(PODS, "one-0", namespace="default")


async def test_an_apiserver_that_is_down_breaks_calls_and_watches() -> None:
    api = FakeApi()
    stream = api.watch(PODS, resource_version="1")
    api.fail(Unreachable("it is down"))
    with pytest.raises(Unreachable):
        await api.list(PODS)
    with pytest.raises(Unreachable):
        await anext(stream)
    api.fail(None)
    assert await api.list(PODS) == []
