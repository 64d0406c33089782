"""The Kubernetes executor keeps the contract of all executors on a real node: real kubelet, real Jobs, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.register_assert_rewrite("simulation.executor_contract")
from cluster.handle import ClusterHandle  # noqa: E402
from cluster.pod_mounts import pod_template  # noqa: E402
from executor_bench import WAITS_FOR_FILE, LogApi  # noqa: E402
from simulation.executor_contract import EndContract, LifeContract, Manner  # noqa: E402

from abruzzi.contracts.reason import Reason  # noqa: E402
from abruzzi.contracts.stage import DirectoryStore, StageSpec  # noqa: E402
from abruzzi.contracts.states import StageKind  # noqa: E402
from abruzzi.engine.view import Phase, Seen  # noqa: E402
from abruzzi_operators.executors.fence import policies  # noqa: E402
from abruzzi_operators.executors.kubernetes import KubernetesExecutor  # noqa: E402
from abruzzi_operators.kubernetes.access import Access  # noqa: E402
from abruzzi_operators.kubernetes.rest_api import RestApi  # noqa: E402
from abruzzi_operators.renderers import Placement, PodAdditions, RankResources, WorkloadKind  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.serial]

DEADLINE_SECONDS = 240.0
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"


class NodePlace:
    """Processes in pods of this machine's own node, so that a test can touch their files and kill them."""

    numbers = iter(range(1, 1000))

    def __init__(self, cluster: ClusterHandle, namespace: str, rest: RestApi, logs: LogApi) -> None:
        self._cluster, self._namespace, self._rest, self.logs = cluster, namespace, rest, logs
        template = pod_template()
        self._placement = Placement(
            namespace=namespace,
            image=cluster.image("busybox"),
            api_url=logs.url,
            ranks_per_node=1,
            # The kubelet does not hear of a grace that is shortened while it waits: what then ends the ranks is their launcher, 5 s before this.
            grace_seconds=20,
            resources=RankResources(cpu_cores=0.05, memory_bytes=256 << 20),
            additions=PodAdditions(
                volumes=tuple(template["volumes"]), volume_mounts=tuple(template["volume_mounts"]), env=template["env"]
            ),
        )
        self.executors: list[KubernetesExecutor] = []
        self.renew()

    def renew(self) -> None:
        async def place(spec: StageSpec, excluded: Sequence[str]) -> Placement:
            return self._placement

        async def issue(spec: StageSpec) -> str:
            return f"token-of-{spec.attempt_id}"

        async def no_credentials(spec: StageSpec) -> None:
            return None

        async def keep_log(attempt_id: str, rank: int, text: bytes) -> None:
            raise AssertionError("its launcher ships its log")

        self.executor = KubernetesExecutor(
            self._rest,
            namespace=self._namespace,
            place=place,
            issue_token=issue,
            make_credentials=no_credentials,
            keep_log=keep_log,
        )
        self.executors.append(self.executor)

    def placement_of(self, **resources: Any) -> Placement:
        return replace(self._placement, resources=replace(self._placement.resources, **resources))

    def spec(self, manner: Manner = "works", *, exit_code: int = 0) -> StageSpec:
        number = next(self.numbers)
        code = DEAF if manner == "deaf" else f"{WAITS_FOR_FILE}\nraise SystemExit({exit_code})"
        return StageSpec(
            project_id="default", run_id="0123456789", stage_id="work", attempt_id=f"0123456789-work-{number}", epoch=number,
            kind=StageKind.CONTAINER, config={"container": {"command": ["python", "-u", "-c", code]}},
            store=DirectoryStore(root="/nowhere"), output_prefix="projects/default/runs/0123456789/work/",
        )  # fmt: skip

    def finish(self, spec: StageSpec) -> None:
        for pod in self._pods(spec):
            (self._attempt_dir(pod["metadata"]["uid"]) / "go").touch()

    async def kill(self, spec: StageSpec) -> None:
        [rank] = self._ranks(spec)
        rank.send_signal(signal.SIGKILL)

    def starts(self, spec: StageSpec) -> int:
        return self.logs.of(spec.attempt_id).count("ready")

    async def until_working(self, spec: StageSpec) -> Seen:
        await self._until(lambda: "ready" in self.logs.of(spec.attempt_id))
        return await self._until_phase(spec, Phase.RUNNING)

    async def until_exited(self, spec: StageSpec) -> Seen:
        return await self._until_phase(spec, Phase.EXITED)

    async def look(self, spec: StageSpec) -> Seen:
        return (await self.executor.observe([spec.attempt_id]))[spec.attempt_id]

    async def until_told(self, spec: StageSpec) -> Seen:
        """Why it waits."""
        return await self._until_seen(spec, lambda seen: seen.reason is not None)

    async def _until_phase(self, spec: StageSpec, phase: Phase) -> Seen:
        return await self._until_seen(spec, lambda seen: seen.phase is phase)

    async def _until_seen(self, spec: StageSpec, condition: Callable[[Seen], bool]) -> Seen:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition(seen := await self.look(spec)):
            assert time.monotonic() < deadline, f"still {seen}\n{self._cluster.what_happened(self._namespace)}"
            await asyncio.sleep(0.05)
        return seen

    async def _until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self._cluster.what_happened(self._namespace)
            await asyncio.sleep(0.05)

    def _pods(self, spec: StageSpec) -> list[dict]:  # type: ignore[type-arg]
        selector = f"abruzzi.io/attempt={spec.attempt_id}"
        return self._cluster.kubectl.json("get", "pods", "-n", self._namespace, "-l", selector)["items"]

    def _attempt_dir(self, uid: str) -> Path:
        return self._cluster.local.layout.kubelet / "pods" / uid / "volumes" / "kubernetes.io~empty-dir" / "attempt"

    @staticmethod
    def _ranks(spec: StageSpec) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                environment, command = process.environ(), process.cmdline()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            is_rank = environment.get("ABRUZZI_ATTEMPT") == spec.attempt_id and "RANK" in environment
            if is_rank and not any("shim.py" in word for word in command) and process.pid != os.getpid():
                found.append(process)
        return found


@pytest.fixture(scope="module")
def stages(cluster: ClusterHandle) -> Iterator[str]:
    with cluster.new_namespace() as name:
        cluster.kubectl.apply(*policies(name))
        yield name


@pytest.fixture
async def place(cluster: ClusterHandle, stages: str) -> AsyncIterator[NodePlace]:
    logs = LogApi(cluster.local.address)
    async with RestApi(Access(kubeconfig=cluster.kubeconfig)) as rest:
        made = NodePlace(cluster, stages, rest, logs)
        try:
            yield made
            for attempt_id in await made.executor.list_attempts():
                await made.executor.remove(attempt_id)
        finally:
            for executor in made.executors:
                await executor.close()
            logs.close()


ALL_REDUCE = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(os.environ["RANK"]) + 1])
dist.all_reduce(total)
print("ready: the sum is", total.item(), flush=True)
dist.destroy_process_group()
"""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", [WorkloadKind.PYTORCH_JOB, WorkloadKind.TRAIN_JOB])
async def test_ranks_on_two_pods_meet_over_the_pod_network(
    kind: WorkloadKind, cluster: ClusterHandle, place: NodePlace
) -> None:
    """Trainer v2 is used where v1 is not served; here both are, so the kind is chosen by hand."""
    cluster.install("trainer" if kind is WorkloadKind.TRAIN_JOB else "training-operator")
    place.renew()
    spec = place.spec().model_copy(
        update={"world_size": 2, "config": {"container": {"command": ["python", "-u", "-c", ALL_REDUCE]}}}
    )
    await place.executor.start()
    await place.executor._ensure_secret(spec)
    assert await place.executor._create_workload(spec, place.placement_of(memory_bytes=1 << 30), kind)
    seen = await place.until_exited(spec)
    assert (seen.exit_code, seen.reason) == (0, None)
    assert [place.logs.of(spec.attempt_id, rank).splitlines()[-1] for rank in (0, 1)] == ["ready: the sum is 3.0"] * 2
    await place.executor.remove(spec.attempt_id)
    assert (await place.look(spec)).phase is Phase.GONE


async def test_a_job_whose_pods_a_quota_refuses_says_so(cluster: ClusterHandle, place: NodePlace, stages: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    cluster.kubectl.create(quota, namespace=stages)
    try:
        cluster.kubectl.wait("resourcequota/none", "jsonpath={.status.hard.pods}=0", namespace=stages, seconds=240)
        spec = place.spec()
        await place.executor.create(spec)
        seen = await place.until_told(spec)
        assert (seen.phase, seen.waits_for) == (Phase.PENDING, Reason.WAITS_FOR_PODS)
        assert str(seen.reason).startswith("The cluster refuses its pods: pods ")
        assert "exceeded quota: none" in str(seen.reason)
    finally:
        cluster.kubectl("delete", "resourcequota", "none", "-n", stages)


class TestLife(LifeContract):
    pass


class TestEnd(EndContract):
    pass
