"""The chart renders what a cluster takes: golden files, Kubernetes' own models, and what must hold for every set of values.

Golden files are written anew by `ABRUZZI_UPDATE_GOLDEN=1 .venv/bin/pytest tests/unit/charts`.
"""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import chart_render
import compose_file
import pytest
import yaml
from chart_render import CHART, SETS, environment, helm, needs_helm, of_kind, pods, rendered, template, values
from rendering import mistakes

from abruzzi.kit.settings import PlacementDefaults, SandboxPods, Settings
from abruzzi_operators.executors.fence import policies
from abruzzi_operators.executors.placing import PodTemplate

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"

pytestmark = needs_helm
each_set = pytest.mark.parametrize("name", SETS)


def without_dashboards(name: str) -> list[chart_render.Object]:
    things = rendered(name)
    for thing in things:
        if thing["metadata"]["name"].endswith("-dashboards"):
            thing["data"] = sorted(thing["data"])
    return things


@each_set
def test_the_objects_are_those_in_the_golden_file(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(without_dashboards(name), sort_keys=False, width=120))
    assert list(yaml.safe_load_all(path.read_text())) == without_dashboards(name)


@each_set
def test_lint_has_nothing_to_say(name: str) -> None:
    said = helm("lint", "--strict", str(CHART), "--values", str(values(name)))
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


@each_set
def test_kubernetes_models_know_every_field_and_miss_none(name: str) -> None:
    others = {"ServiceMonitor"}  # of the Prometheus operator
    found = [
        mistake
        for thing in rendered(name)
        if thing["kind"] not in others
        for mistake in chart_render.unknown_fields(thing)
    ]
    assert found == []


def test_the_models_refuse_what_kubernetes_does_not_know() -> None:
    [job] = of_kind(rendered("production"), "Job").values()
    assert mistakes(job) == [], "the schema of the apiserver itself takes it, too"
    job["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFilesystem"] = True
    job["spec"]["backoffLimit"] = "3"
    del job["spec"]["template"]["spec"]["containers"][0]["name"]
    found = "\n".join(chart_render.unknown_fields(job))
    assert "readOnlyRootFilesystem: V1Container has no such field" in found
    assert "'3' is no int" in found
    assert "Invalid value for `name`" in found


@each_set
def test_names_are_unique_and_in_one_of_three_namespaces_or_where_kubelets_lease(name: str) -> None:
    things = rendered(name)
    keys = [(t["kind"], t["metadata"].get("namespace"), t["metadata"]["name"]) for t in things]
    assert len(keys) == len(set(keys))
    assert {namespace for _, namespace, _ in keys} <= {
        None,
        "abz-stages",
        "abz-sandboxes",
        "training",
        "kube-node-lease",
    }


@each_set
def test_nothing_is_open_to_the_outside(name: str) -> None:
    services = of_kind(rendered(name), "Service")
    assert services
    assert {service["spec"]["type"] for service in services.values()} == {"ClusterIP"}
    assert of_kind(rendered(name), "Ingress") == {}


@each_set
def test_every_pod_passes_restricted_pod_security_and_asks_for_what_it_needs(name: str) -> None:
    for pod_name, pod in pods(rendered(name)):
        assert pod["securityContext"]["runAsNonRoot"] is True, pod_name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {kind for volume in pod.get("volumes", ()) for kind in volume} <= {
            "name", "emptyDir", "persistentVolumeClaim", "configMap",
        }  # fmt: skip
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@each_set
def test_what_serves_has_probes(name: str) -> None:
    for _, pod in pods(rendered(name)):
        for container in pod["containers"]:
            assert ("readinessProbe" in container) == ("ports" in container)
            assert ("livenessProbe" in container) == ("ports" in container)


@each_set
def test_every_setting_is_one_that_the_processes_read(name: str) -> None:
    known = {f"ABRUZZI_{field.upper()}" for field in Settings.model_fields} | {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }
    for pod_name, pod in pods(rendered(name)):
        if pod_name.endswith("-ready"):
            continue
        assert set(environment(pod)) <= known, pod_name
        names = [e["name"] for c in pod["containers"] for e in c["env"]]
        assert len(names) == len(set(names)), pod_name


@each_set
def test_the_settings_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod_name, pod in pods(rendered(name)):
        if pod_name.endswith("-ready"):
            continue
        with monkeypatch.context() as patch:
            for variable in [v for v in os.environ if v.startswith("ABRUZZI_")]:
                patch.delenv(variable)
            for variable, value in environment(pod).items():
                patch.setenv(variable, value if isinstance(value, str) else "secret")
            assert Settings().executor in ("kubernetes", "local"), pod_name


def test_passwords_reach_only_the_processes_that_use_them() -> None:
    found = {
        pod_name: environment(pod) for pod_name, pod in pods(rendered("production")) if "env" in pod["containers"][0]
    }
    having = {
        variable: {name.removeprefix("abz-abruzzi-") for name, given in found.items() if variable in given}
        for variable in (
            "ABRUZZI_OWNER_DATABASE_URL",
            "ABRUZZI_CONTROLLER_DATABASE_URL",
            "ABRUZZI_ADMIN_TOKEN",
            "ABRUZZI_GRAFANA_TOKEN",
        )
    }
    assert having == {
        "ABRUZZI_OWNER_DATABASE_URL": {"migrate-1", "backup"},
        "ABRUZZI_CONTROLLER_DATABASE_URL": {"migrate-1", "backup", "controller", "worker"},
        "ABRUZZI_ADMIN_TOKEN": {"api"},
        "ABRUZZI_GRAFANA_TOKEN": {"worker"},
    }
    assert {
        variable
        for given in found.values()
        for variable, value in given.items()
        if isinstance(value, str) and ("PASSWORD" in variable or "TOKEN" in variable or "KEY" in variable)
    } == set()


def test_commands_are_those_of_docker_compose() -> None:
    compose = compose_file.load({name: value or "x" for name, value in compose_file.example().items()})["services"]
    deployments = of_kind(rendered("production"), "Deployment")
    for part in ("api", "controller", "worker", "beat"):
        [container] = deployments[f"abz-abruzzi-{part}"]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == compose[part]["command"]
    [migrate] = of_kind(rendered("production"), "Job").values()
    assert migrate["spec"]["template"]["spec"]["containers"][0]["command"] == compose["migrate"]["command"]
    assert migrate["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_images_are_those_of_the_containerfiles() -> None:
    built = {
        name.split(":")[0]
        for path in ROOT.glob("*/Containerfile")
        for name in path.read_text().split()
        if name.startswith("abruzzi-") and name.endswith(":0.1.0")
    }
    used = {c["image"] for _, pod in pods(rendered("production")) for c in pod["containers"]}
    controller = of_kind(rendered("production"), "Deployment")["abz-abruzzi-controller"]
    used.add(environment(controller["spec"]["template"]["spec"])["ABRUZZI_STAGE_IMAGE"])
    assert used == {f"registry.example.org/ml/{name}:0.1.0" for name in built}


@pytest.mark.parametrize(("name", "namespace"), [("production", "abz-stages"), ("small", "training")])
def test_the_fence_is_the_one_that_the_executor_relies_on(name: str, namespace: str) -> None:
    wanted = policies(namespace)
    assert [thing for thing in rendered(name) if thing["apiVersion"] == wanted[0]["apiVersion"]] == sorted(
        wanted, key=lambda thing: thing["kind"]
    )


def test_what_the_chart_takes_from_the_code_is_what_the_code_says() -> None:
    files = runpy.run_path(str(ROOT / "scripts/chart_from_code.py"))["files"]
    for path, text in files().items():
        assert path.read_text() == text, "run `make chart`"


def test_the_pod_template_is_one_that_the_controller_reads() -> None:
    text = of_kind(rendered("production"), "ConfigMap")["abz-abruzzi-pod-template"]["data"]["pod-template.json"]
    template = PodTemplate.model_validate_json(text)
    assert template.service_account == "abz-abruzzi-stage"
    assert template.image_pull_secrets == ("registry",)
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["stages"]["properties"]
    assert set(schema["podTemplate"]["properties"]) == set(PodTemplate.model_fields)
    assert set(schema["placement"]["properties"]) == set(PlacementDefaults.model_fields)


def test_what_a_sandbox_is_are_settings_that_the_service_reads() -> None:
    pod = of_kind(rendered("production"), "Deployment")["abz-abruzzi-sandboxes"]["spec"]["template"]["spec"]
    found = SandboxPods.model_validate_json(environment(pod)["ABRUZZI_SANDBOXES"])
    assert (found.image, found.ready) == ("registry.example.org/ml/abruzzi-jobs:0.1.0", 8)
    assert (found.most, found.per_attempt) == (200, 64), "no attempt takes all"
    assert found.runtime_class == "gvisor", "unless somebody says otherwise"
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["sandboxes"]["properties"]
    assert set(schema["pods"]["properties"]) == set(SandboxPods.model_fields)


def test_dashboards_are_shipped_whole() -> None:
    shipped = of_kind(rendered("production"), "ConfigMap")["abz-abruzzi-dashboards"]["data"]
    assert shipped == {path.name: path.read_text() for path in (CHART / "dashboards").glob("*.json")}


def test_a_budget_holds_what_has_two_replicas_and_nothing_else() -> None:
    assert set(of_kind(rendered("production"), "PodDisruptionBudget")) == {
        f"abz-abruzzi-{part}" for part in ("api", "controller", "worker")
    }
    assert of_kind(rendered("small"), "PodDisruptionBudget") == {}
    assert set(of_kind(rendered("local"), "PodDisruptionBudget")) == {"abz-abruzzi-api", "abz-abruzzi-worker"}


def test_an_autoscaler_and_the_chart_do_not_both_set_the_replicas() -> None:
    api = of_kind(rendered("production"), "Deployment")["abz-abruzzi-api"]
    assert "replicas" not in api["spec"]
    assert "abz-abruzzi-api" in of_kind(rendered("production"), "HorizontalPodAutoscaler")


def test_without_workers_the_controllers_do_the_side_work_and_no_redis_is_needed() -> None:
    deployments = of_kind(rendered("small"), "Deployment")
    assert set(deployments) == {"abz-abruzzi-api", "abz-abruzzi-controller"}
    given = environment(deployments["abz-abruzzi-controller"]["spec"]["template"]["spec"])
    assert "ABRUZZI_REDIS_URL" not in given
    assert "ABRUZZI_SIGNING_KEY" in given


def test_local_stages_end_with_their_controller_and_share_its_node() -> None:
    things = rendered("local")
    deployments = of_kind(things, "Deployment")
    controller = deployments["abz-abruzzi-controller"]["spec"]
    assert controller["replicas"] == 1
    assert controller["strategy"] == {"type": "Recreate"}
    pod = controller["template"]["spec"]
    assert pod["containers"][0]["image"] == "abruzzi:0.1.0", "the image that holds the stages"
    assert pod["terminationGracePeriodSeconds"] >= 75
    assert pod["shareProcessNamespace"] is True, "the pause container reaps what stages leave"
    assert pod["automountServiceAccountToken"] is False
    assert environment(pod)["ABRUZZI_STAGES_END_WITH_CONTROLLER"] == "true"
    for part in ("api", "worker"):
        where = deployments[f"abz-abruzzi-{part}"]["spec"]["template"]["spec"]
        [beside] = where["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert beside["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "controller"
        assert {"claimName": "abz-abruzzi-state"} in [v.get("persistentVolumeClaim") for v in where["volumes"]]
    [claim] = of_kind(things, "PersistentVolumeClaim").values()
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    kinds = {thing["kind"] for thing in things}
    assert not kinds & {"Role", "ClusterRole", "Namespace", "ValidatingAdmissionPolicy"}


def test_a_change_of_the_pod_template_restarts_the_controllers() -> None:
    def checksum(*settings: str) -> str:
        pod = of_kind(template("production", *settings), "Deployment")["abz-abruzzi-controller"]["spec"]["template"]
        return pod["metadata"]["annotations"]["checksum/pod-template"]

    assert checksum() != checksum('stages.podTemplate.env={"LEVEL": "2"}')


def test_what_the_installation_adds_is_in_every_pod_of_the_platform() -> None:
    added = {
        "annotations": {"example.org/owner": "ml"},
        "env": {"SSL_CERT_FILE": "/ca/ca.crt"},
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    }
    things = template("production", f"pods={json.dumps(added)}")
    found = dict(pods(things))
    assert len(found) == 8
    for name, pod in found.items():
        [container] = pod["containers"]
        assert environment(pod)["SSL_CERT_FILE"] == "/ca/ca.crt", name
        assert {"name": "ca", "mountPath": "/ca"} in container["volumeMounts"], name
        assert {"name": "ca", "configMap": {"name": "ca"}} in pod["volumes"], name
    for thing in things:
        spec = thing.get("spec", {})
        metadata = thing["metadata"] if thing["kind"] == "Pod" else spec.get("template", {}).get("metadata")
        if metadata and thing["metadata"]["name"] in found:
            assert metadata["annotations"]["example.org/owner"] == "ml", thing["metadata"]["name"]


def test_the_api_takes_no_new_requests_before_it_ends() -> None:
    pod = of_kind(rendered("production"), "Deployment")["abz-abruzzi-api"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5, (
        "endpoints are told from all nodes meanwhile"
    )
