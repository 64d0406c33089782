"""Renderers: golden files, the operators' own schemas, and what holds for every spec.

Golden files are written anew by `ABRUZZI_UPDATE_GOLDEN=1 .venv/bin/pytest tests/unit/abruzzi_operators/test_renderers.py`.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rendering import h800, mistakes, placement, pods_of, spec

from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi_operators.launcher.node import from_pod
from abruzzi_operators.renderers import Placement, RankResources, WorkloadKind, choose_kind, render
from abruzzi_operators.renderers.pod import pod_template
from abruzzi_operators.renderers.rayjob import RAY_VERSION, rayjob
from abruzzi_operators.renderers.trainjob import training_runtime, trainjob

GOLDEN = Path(__file__).parent / "golden"
FOREIGN = {
    "container": {"command": ["sh", "-c", "echo $LEVEL"], "image": "docker.io/library/busybox:1", "env": {"LEVEL": "2"}}
}
NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
LABEL = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")

CASES: dict[str, dict[str, Any]] = {
    "job-corpus": render(spec(StageKind.CORPUS), placement(), WorkloadKind.JOB),
    "job-indexed-corpus": render(
        spec(StageKind.CORPUS, ranks=4, config={"resources": {"framework": "indexed-job"}}),
        placement(queue="cpu"),
        WorkloadKind.JOB,
    ),
    "job-foreign-image": render(spec(StageKind.CONTAINER, config=FOREIGN), placement(queue="cpu"), WorkloadKind.JOB),
    "pytorchjob-two-nodes": render(spec(ranks=2), placement(queue="cpu"), WorkloadKind.PYTORCH_JOB),
    "pytorchjob-h800": render(spec(ranks=64), h800(), WorkloadKind.PYTORCH_JOB),
    "trainjob-h800": render(spec(ranks=64), h800(), WorkloadKind.TRAIN_JOB),
    "trainingruntime": training_runtime("abruzzi-stages"),
    "rayjob-synthesize": rayjob(
        spec(StageKind.SYNTHESIZE, ranks=4, config={"resources": {"framework": "ray"}}),
        placement(queue="cpu", preferred_topology="topology/rack"),
    ),
    "rayjob-rl-h800": rayjob(
        spec(StageKind.RL, ranks=2, config={"resources": {"framework": "ray", "ranks": 2}}), h800(ranks_per_node=1)
    ),
    "rayjob-rl": rayjob(
        spec(StageKind.RL, ranks=2, config={"resources": {"framework": "ray", "ranks": 2}}),
        placement(queue="cpu", preferred_topology="topology/rack"),
    ),
    "rayjob-tokenize": rayjob(spec(StageKind.TOKENIZE, ranks=2), placement(queue="cpu")),
}


@pytest.mark.parametrize("name", CASES)
def test_the_object_is_the_one_in_the_golden_file(name: str) -> None:
    path, made = GOLDEN / f"{name}.yaml", without_digest(CASES[name])
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump(made, sort_keys=False, width=120))
    assert yaml.safe_load(path.read_text()) == made


def without_digest(made: dict[str, Any]) -> dict[str, Any]:
    """The spec's digest changes with every new field of the stage contract, which is no change of the object."""
    return json.loads(re.sub(r"sha256:[0-9a-f]{64}", "sha256:of-the-spec", json.dumps(made)))


@pytest.mark.parametrize("name", CASES)
def test_the_operators_own_schema_takes_it_and_knows_every_field(name: str) -> None:
    assert mistakes(CASES[name]) == []


def test_the_schemas_refuse_what_no_operator_knows() -> None:
    wrong = json.loads(json.dumps(CASES["pytorchjob-two-nodes"]))
    wrong["spec"]["pytorch_replica_specs"] = wrong["spec"].pop("pytorchReplicaSpecs")
    assert mistakes(wrong)


def test_newer_trainers_get_runtime_patches_of_the_same_content() -> None:
    old = trainjob(spec(ranks=64), h800())["spec"]["podTemplateOverrides"][0]
    new = trainjob(spec(ranks=64), h800(), overrides="runtimePatches")["spec"]
    assert "podTemplateOverrides" not in new
    [job] = new["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["template"] == {"metadata": old["metadata"], "spec": old["spec"]}


@pytest.mark.parametrize(
    ("kind", "ranks", "served", "expected"),
    [
        (StageKind.CORPUS, 1, {"Job", "PyTorchJob"}, "Job"),
        (StageKind.PRETRAIN, 1, {"Job", "PyTorchJob", "TrainJob"}, "PyTorchJob"),
        (StageKind.PRETRAIN, 1, {"Job"}, "Job"),
        (StageKind.PRETRAIN, 4, {"Job", "PyTorchJob", "TrainJob"}, "PyTorchJob"),
        (StageKind.PRETRAIN, 4, {"Job", "TrainJob"}, "TrainJob"),
        (StageKind.CONTAINER, 4, {"Job", "PyTorchJob"}, "PyTorchJob"),
    ],
)
def test_the_kind_follows_from_the_stage_and_from_what_the_cluster_serves(
    kind: StageKind, ranks: int, served: set[str], expected: str
) -> None:
    assert choose_kind(spec(kind, ranks=ranks), placement(), {WorkloadKind(k) for k in served}) == expected


@pytest.mark.parametrize("kind", [StageKind.CORPUS, StageKind.EVALUATE])
def test_indices_are_pods_of_a_job_which_every_cluster_has(kind: StageKind) -> None:
    indexed = spec(kind, ranks=4, config={"resources": {"framework": "indexed-job"}})
    assert choose_kind(indexed, placement(), {WorkloadKind.JOB, WorkloadKind.PYTORCH_JOB}) == "Job"
    made = CASES["job-indexed-corpus"]["spec"]
    assert (made["completions"], made["parallelism"], made["completionMode"]) == (4, 4, "Indexed")
    [environment] = [pod["containers"][0]["env"] for pod in pods_of(CASES["job-indexed-corpus"])]
    plain = {each["name"]: each.get("value") for each in environment}
    node = from_pod({**plain, "JOB_COMPLETION_INDEX": "3"}, world_size=4)
    assert (node.first_rank, node.ranks) == (3, 1)


def test_a_stage_is_told_where_sandboxes_are_and_has_no_right_to_make_any() -> None:
    made = pod_template(spec(), placement(sandboxes_url="http://sandboxes:8602"), container="rank")["spec"]
    assert {"name": "ABRUZZI_SANDBOXES_URL", "value": "http://sandboxes:8602"} in made["containers"][0]["env"]
    assert made["automountServiceAccountToken"] is False


def test_ranks_are_spread_over_as_few_nodes_as_hold_them() -> None:
    made = render(spec(ranks=20), h800(), WorkloadKind.PYTORCH_JOB)
    assert made["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2
    limits = pods_of(made)[0]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "8"


user_text = st.text(min_size=1, max_size=40)
marked = user_text.map(lambda text: f"user-{text}")
stage_ids = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?\Z")
project_ids = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")


@st.composite
def specs(draw: st.DrawFn) -> StageSpec:
    stage, number = draw(stage_ids), draw(st.integers(1, 9999))
    container: dict[str, Any] = {"command": draw(st.lists(marked, min_size=1, max_size=3))}
    container["env"] = draw(st.dictionaries(st.from_regex(r"\A[A-Z_][A-Z0-9_]{0,20}\Z"), marked, max_size=3))
    if draw(st.booleans()):
        container["image"] = draw(marked)
    return spec(StageKind.CONTAINER, ranks=draw(st.integers(1, 64)), config={"container": container}).model_copy(
        update={
            "stage_id": stage,
            "attempt_id": f"k7m2q9x4ab-{stage}-{number}",
            "project_id": draw(project_ids),
            "epoch": number,
        }
    )


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    resources = RankResources(draw(st.floats(0.1, 64)), draw(st.integers(1 << 20, 1 << 40)), draw(st.integers(0, 1)))
    changes: dict[str, Any] = {"resources": resources, "ranks_per_node": draw(st.integers(1, 8))}
    return replace(draw(st.sampled_from([placement(), h800()])), **changes)


@given(specs(), placements(), st.sampled_from(WorkloadKind))
def test_whatever_the_spec_says_the_object_keeps_the_rules(
    spec: StageSpec, where: Placement, kind: WorkloadKind
) -> None:
    made = render(spec, where, kind)
    metadata = made["metadata"]
    assert NAME.match(metadata["name"])
    assert all(LABEL.match(value) for value in metadata["labels"].values())
    assert mistakes(made) == []
    body = made["spec"]
    assert body.get("backoffLimit", body.get("runPolicy", {}).get("backoffLimit", 0)) == 0
    assert body.get("suspend", body.get("runPolicy", {}).get("suspend")) == bool(where.queue)
    for pod in pods_of(made):
        assert_restricted(pod)
    own = spec.config["container"]
    allowed = {*own["command"], *own["env"].values(), own.get("image")}
    assert user_strings(made) <= allowed
    assert user_strings({**made, "spec": without_commands(made["spec"])}) == set(), (
        "only command, image and values of env"
    )


def test_the_ray_of_the_cluster_is_the_ray_of_the_lock_file() -> None:
    lock = tomllib.loads((Path(__file__).parents[3] / "uv.lock").read_text())
    assert [package["version"] for package in lock["package"] if package["name"] == "ray"] == [RAY_VERSION]


def test_every_other_object_asks_for_restricted_pods_too() -> None:
    for name in ("trainingruntime", "rayjob-tokenize", "rayjob-synthesize", "rayjob-rl-h800"):
        for pod in pods_of(CASES[name]):
            assert_restricted(pod)


@pytest.mark.parametrize(("name", "mounts"), [("rayjob-rl", 0), ("rayjob-rl-h800", 1)])
def test_trainer_and_engine_of_an_rl_stage_share_a_pod_and_its_memory_and_are_let_in_as_one_group(
    name: str, mounts: int
) -> None:
    """/dev/shm is KubeRay's, as large as the container's memory, unless the pool has one: a smaller one of ours stopped Ray's head from 50 GB on."""
    made = CASES[name]
    head, (workers,) = (
        made["spec"]["rayClusterSpec"]["headGroupSpec"],
        made["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    )
    assert (made["spec"]["suspend"], workers["replicas"]) == (True, 1), (
        "one pod a node, and nobody begins before all may"
    )
    for group in (head, workers):
        [container] = group["template"]["spec"]["containers"]
        shared = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        assert shared == ["shm"] * mounts
    groups = [
        each["template"]["metadata"]["annotations"]["kueue.x-k8s.io/podset-group-name"] for each in (head, workers)
    ]
    assert groups == ["ranks", "ranks"]


def assert_restricted(pod: dict[str, Any]) -> None:
    """Pod Security `restricted`, a single try, no credentials of the cluster."""
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert "privileged" not in security
    for volume in pod.get("volumes", []):
        assert volume.keys() <= {"name", "secret", "emptyDir", "downwardAPI"}


def user_strings(value: Any) -> set[str]:
    """All strings that came from a recipe, wherever they ended up: as keys too."""
    if isinstance(value, dict):
        return {text for pair in value.items() for part in pair for text in user_strings(part)}
    if isinstance(value, list):
        return {text for part in value for text in user_strings(part)}
    return {value} if isinstance(value, str) and value.startswith("user-") else set()


def without_commands(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: without_commands(v)
            for k, v in value.items()
            if k not in ("command", "image") and not (k == "value" and "name" in value)
        }
    return [without_commands(part) for part in value] if isinstance(value, list) else value
