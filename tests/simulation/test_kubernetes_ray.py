"""A stage on Ray: its RayJob, and an end that is its head's alone. (tests/cluster/test_cluster_ray.py runs one on a real RayCluster.)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place
from simulation.memory_cluster import NAMESPACE

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi.engine.view import Phase
from abruzzi_operators.executors.assess import Facts, assess
from abruzzi_operators.executors.node_words import UNKNOWN, NodeWord
from abruzzi_operators.executors.pod_ends import PodEnd, pod_end
from abruzzi_operators.kubernetes.resources import PODS, RAY_JOBS, Object


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        yield made


def on_ray(place: ClusterPlace, **manner: Any) -> StageSpec:
    config = {"resources": {"framework": "ray", "ranks": 2}}
    return place.spec(**manner, kind=StageKind.TOKENIZE, config=config, world_size=2)


async def rayjob_of(place: ClusterPlace, spec: StageSpec) -> Object:
    return await place.cluster.api.get(RAY_JOBS, f"abruzzi-{spec.attempt_id}", namespace=NAMESPACE)


async def make_pod(place: ClusterPlace, rayjob: Object, part: str, template: Object) -> None:
    """As KubeRay does (by way of a RayCluster, whose name the pod has)."""
    pod = PODS.new(f"{rayjob['metadata']['name']}-x-{part}", NAMESPACE, spec=template["spec"])
    pod["metadata"]["labels"] = {**template["metadata"]["labels"], "ray.io/node-type": part}
    owner = {"apiVersion": RAY_JOBS.api_version, "kind": "RayJob", "uid": rayjob["metadata"]["uid"]}
    pod["metadata"]["ownerReferences"] = [{**owner, "name": rayjob["metadata"]["name"], "controller": True}]
    await place.cluster.api.create(PODS, pod)


async def make_cluster(place: ClusterPlace, rayjob: Object) -> None:
    spec = rayjob["spec"]["rayClusterSpec"]
    await make_pod(place, rayjob, "head", spec["headGroupSpec"]["template"])
    await make_pod(place, rayjob, "worker", spec["workerGroupSpecs"][0]["template"])


def say(place: ClusterPlace, rayjob: Object, job: str, deployment: str = "Running") -> None:
    status = {"jobStatus": job, "jobDeploymentStatus": deployment}
    place.cluster.api.put_status(RAY_JOBS, rayjob["metadata"]["name"], status, namespace=NAMESPACE)


@pytest.mark.parametrize("exit_code", [0, 65])
async def test_a_stage_on_ray_ends_as_its_head_says(place: ClusterPlace, exit_code: int) -> None:
    spec = on_ray(place, exit_code=exit_code)
    await place.executor.create(spec)
    await place.executor.create(spec)
    rayjob = await rayjob_of(place, spec)
    assert rayjob["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert (await place.look(spec)).phase is Phase.PENDING
    await make_cluster(place, rayjob)
    await place.until(spec, lambda seen: len(place.cluster.started) == 2 and seen.phase is Phase.PENDING)
    say(place, rayjob, "RUNNING")
    assert (await place.until_working(spec)).ended_ranks == {1}, "a rank that never speaks is no hang"
    await place.cluster.api.delete(PODS, f"{rayjob['metadata']['name']}-x-worker", namespace=NAMESPACE, grace_seconds=0)
    assert (await place.look(spec)).phase is Phase.RUNNING, "Ray does its tasks again elsewhere"
    place.finish(spec)
    ended = await place.until_exited(spec)
    assert ended.exit_code == exit_code
    await place.executor.remove(spec.attempt_id)
    assert (await place.look(spec)).phase is Phase.GONE
    assert await place.cluster.api.list(RAY_JOBS, namespace=NAMESPACE) == []


async def test_a_head_that_dies_ends_the_attempt_before_kuberay_makes_another(place: ClusterPlace) -> None:
    spec = on_ray(place)
    await place.executor.create(spec)
    rayjob = await rayjob_of(place, spec)
    await make_cluster(place, rayjob)
    say(place, rayjob, "RUNNING")
    await place.until_working(spec)
    head = f"{rayjob['metadata']['name']}-x-head"
    state = {"name": "ray", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    place.cluster.api.put_status(PODS, head, {"phase": "Failed", "containerStatuses": [state]}, namespace=NAMESPACE)
    ended = await place.until_exited(spec)
    assert (ended.exit_code, "ended before the stage's outcome was known (code 1)" in str(ended.reason)) == (None, True)
    assert await place.cluster.api.list(RAY_JOBS, namespace=NAMESPACE) == []


async def test_a_stop_ends_the_whole_ray_cluster(place: ClusterPlace) -> None:
    spec = on_ray(place)
    await place.executor.create(spec)
    rayjob = await rayjob_of(place, spec)
    await make_cluster(place, rayjob)
    say(place, rayjob, "RUNNING")
    await place.until_working(spec)
    await place.executor.stop(spec.attempt_id, grace_seconds=5)
    assert (await place.until_exited(spec)).exit_code == 143


async def test_a_cluster_without_kuberay_refuses_with_a_sentence_before_anything_is_made(place: ClusterPlace) -> None:
    del place.cluster.api.served[RAY_JOBS.full_name]
    with pytest.raises(AbruzziError) as caught:
        await place.executor.create(on_ray(place))
    assert (caught.value.code, caught.value.status) == ("kind_not_served", 422)
    assert "A tokenize stage over 2 nodes on Ray can't run here: the cluster does not serve RayJob (ray.io/v1)" in caught.value.message  # fmt: skip
    assert place.issued == []


def workload(**status: Any) -> Object:
    annotations = {"abruzzi.io/nodes": "2", "abruzzi.io/framework": "ray"}
    return {"metadata": {"name": "w", "uid": "u", "labels": {}, "annotations": annotations}, "status": status}


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ({"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}, 0, "None"),
        (
            {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed", "message": "Job entrypoint command failed with exit code 65, last logs"},
            65,
            "last logs",
        ),
        ({"jobStatus": "", "jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}, None, "SubmissionFailed"),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "a bad name"}, 64, "KubeRay can't take this RayJob: a bad name."),
    ],
)  # fmt: skip
def test_a_rayjob_without_pods_says_by_itself_how_it_ended(status: Object, code: int | None, said: str) -> None:
    seen = assess(Facts(workload(**status), (), {})).seen
    assert seen is not None
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, code)
    assert said in str(seen.reason)


async def test_a_program_that_fails_before_the_launcher_can_speak_is_told_by_the_rayjob(place: ClusterPlace) -> None:
    """KubeRay ends the head of a job that has failed; the head itself knows of no stage."""
    spec = on_ray(place)
    await place.executor.create(spec)
    rayjob = await rayjob_of(place, spec)
    await make_cluster(place, rayjob)
    await place.until(spec, lambda seen: len(place.cluster.started) == 2)
    lines = "Traceback …\n" + "  a line of it\n" * 100 + "ModuleNotFoundError: No module named 'numpyy'"
    message = (
        f"Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n{lines}"
    )
    status = {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed", "message": message}
    place.cluster.api.put_status(RAY_JOBS, rayjob["metadata"]["name"], status, namespace=NAMESPACE)
    state = {"name": "ray", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    head = f"{rayjob['metadata']['name']}-x-head"
    place.cluster.api.put_status(PODS, head, {"phase": "Succeeded", "containerStatuses": [state]}, namespace=NAMESPACE)
    ended = await place.until_exited(spec)
    assert ended.exit_code == 1
    assert "Its RayJob failed: Job entrypoint command failed with exit code 1" in str(ended.reason)
    assert str(ended.reason).endswith("ModuleNotFoundError: No module named 'numpyy'.")


def test_a_node_that_is_lost_with_a_worker_of_ray_is_no_end_of_the_stage() -> None:
    def living(part: str, node: str) -> Object:
        running = [{"name": "ray", "state": {"running": {}}}]
        return {
            "metadata": {"name": part, "uid": part, "labels": {"ray.io/node-type": part}},
            "spec": {"nodeName": node},
            "status": {"phase": "Running", "containerStatuses": running},
        }

    pods = [living("worker", "gone"), living("head", "here")]
    for lost, phase in (("gone", Phase.RUNNING), ("here", Phase.EXITED)):
        words = {lost: NodeWord(lost="It is lost.")}
        facts = Facts(workload(jobStatus="RUNNING"), pods, {}, words=lambda node, known=words: known.get(node, UNKNOWN))
        seen = assess(facts).seen
        assert seen is not None
        assert (seen.phase, seen.node, seen.node_lost) == (phase, "here", phase is Phase.EXITED)


def test_a_rayjob_that_is_not_over_is_waited_for() -> None:
    seen = assess(Facts(workload(jobDeploymentStatus="Initializing"), (), {})).seen
    assert seen is not None
    assert seen.phase is Phase.PENDING


def head(**terminated: Any) -> PodEnd:
    labels = {"ray.io/node-type": "head"}
    state = {"state": {"terminated": {"exitCode": 137, "reason": "Error", **terminated}}}
    found = pod_end(
        {"metadata": {"name": "h", "labels": labels}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed", "containerStatuses": [state]}}
    )  # fmt: skip
    assert found is not None
    return found


def test_the_code_of_rays_own_process_is_not_the_stages() -> None:
    ended = head()
    assert ended.exits == ()
    assert "ended before the stage's outcome was known (code 137)" in str(ended.reason)
    [killed] = head(reason="OOMKilled").exits
    assert killed.out_of_memory
