"""Who may do what, and who reaches whom: least privilege, as the code's own calls need it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chart_render import SETS, environment, needs_helm, of_kind, rendered, template

from abruzzi_operators.executors import ground

pytestmark = needs_helm


def rules(things: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Of the controller. Other roles are aggregated into those of people, or the service of sandboxes'."""
    roles = [thing for thing in things if thing["kind"] in ("Role", "ClusterRole")]
    ours = [role for role in roles if not is_aggregated(role) and role["metadata"]["name"].endswith("-controller")]
    return [(role["kind"], rule) for role in ours for rule in role["rules"]]


def is_aggregated(role: dict[str, Any]) -> bool:
    return any(label.startswith("rbac.authorization.k8s.io/aggregate-to-") for label in role["metadata"]["labels"])


@pytest.mark.parametrize("name", SETS)
def test_no_rule_has_a_wildcard(name: str) -> None:
    for _, rule in rules(rendered(name)):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_the_rights_are_those_that_the_code_names() -> None:
    things = rendered("production")
    assert [r for kind, r in rules(things) if kind == "Role"] == [*ground.rules(), *ground.lease_rules()]
    assert [r for kind, r in rules(things) if kind == "ClusterRole"] == ground.cluster_rules()


def test_the_service_of_sandboxes_may_make_end_and_enter_pods_of_its_own_namespace_and_nothing_else() -> None:
    things = [t for t in rendered("production") if t["metadata"]["name"] == "abz-abruzzi-sandboxes"]
    [role] = of_kind([t for t in things if "Role" in t["kind"]], "Role").values()
    assert role["rules"] == ground.sandbox_rules()
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"pods", "pods/exec"}
    assert {t["metadata"]["namespace"] for t in things} == {"abz-sandboxes"}
    [binding] = of_kind(things, "RoleBinding").values()
    assert [subject["namespace"] for subject in binding["subjects"]] == ["abz-sandboxes"]


def test_sandboxes_reach_nothing_and_only_stages_reach_their_service() -> None:
    found = stages_policies("production")
    assert found["sandboxes-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    door = found["sandboxes"]
    assert door["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "sandboxes"
    [rule] = door["ingress"]
    [peer] = rule["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "abz-stages"}
    assert peer["podSelector"] == {"matchExpressions": [{"key": "abruzzi.io/attempt", "operator": "Exists"}]}


def test_stages_are_told_of_sandboxes_where_there_are_some() -> None:
    def told(name: str) -> object:
        controller = of_kind(rendered(name), "Deployment")["abz-abruzzi-controller"]
        return environment(controller["spec"]["template"]["spec"]).get("ABRUZZI_SANDBOXES_URL")

    assert told("production") == "http://abz-abruzzi-sandboxes.abz-sandboxes.svc:8602"
    assert told("small") is None
    assert not any("sandboxes" in thing["metadata"]["name"] for thing in rendered("small"))


def test_secrets_are_never_listed_and_nothing_runs_in_a_pod_or_escalates() -> None:
    found = rules(rendered("production"))
    secrets = [(kind, rule) for kind, rule in found if "secrets" in rule["resources"]]
    assert [kind for kind, _ in secrets] == ["Role"]
    assert not {"list", "watch"} & set(secrets[0][1]["verbs"])
    touched = {resource for _, rule in found for resource in rule["resources"]}
    assert not touched & {
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "serviceaccounts/token",
        "roles",
        "rolebindings",
        "nodes/proxy",
        "nodes/status",
    }
    assert not {"escalate", "bind", "impersonate"} & {verb for _, rule in found for verb in rule["verbs"]}


def test_people_edit_runs_where_they_may_edit_and_never_their_status() -> None:
    roles = {n: r for n, r in of_kind(rendered("production"), "ClusterRole").items() if is_aggregated(r)}
    assert sorted(roles) == ["abruzzi-abz-abruzzi-runs-edit", "abruzzi-abz-abruzzi-runs-view"]
    assert {resource for role in roles.values() for rule in role["rules"] for resource in rule["resources"]} == {"runs"}
    view = roles["abruzzi-abz-abruzzi-runs-view"]
    assert view["rules"][0]["verbs"] == ["get", "list", "watch"]
    edit = {label for label in roles["abruzzi-abz-abruzzi-runs-edit"]["metadata"]["labels"] if "aggregate" in label}
    assert edit == {f"rbac.authorization.k8s.io/aggregate-to-{who}" for who in ("admin", "edit")}


def test_on_the_cluster_it_writes_nothing_but_queues_of_kueue_marks_of_nodes_and_the_status_of_runs() -> None:
    wide = [rule for kind, rule in rules(rendered("production")) if kind == "ClusterRole"]
    writes = [rule for rule in wide if set(rule["verbs"]) - {"get", "list", "watch"}]
    assert {group for rule in writes for group in rule["apiGroups"]} == {"", "kueue.x-k8s.io", "abruzzi.io"}
    assert {resource for rule in writes for resource in rule["resources"]} == {
        "clusterqueues",
        "resourceflavors",
        "topologies",
        "nodes",
        "runs/status",
    }
    [nodes] = [rule for rule in writes if rule["resources"] == ["nodes"]]
    assert nodes["verbs"] == ["get", "list", "watch", "patch"], "no node is made or removed"


def test_two_releases_in_a_cluster_do_not_share_an_object() -> None:
    def wide(release: str) -> set[tuple[str, str]]:
        return {
            (thing["kind"], thing["metadata"]["name"])
            for thing in template("production", release=release)
            if thing["kind"].startswith(("Cluster", "Validating", "Namespace"))
        }

    assert len(wide("one")) == 10
    assert not wide("one") & wide("two")


def test_only_who_speaks_to_the_apiserver_has_a_token() -> None:
    tokens = {
        name: deployment["spec"]["template"]["spec"]["automountServiceAccountToken"]
        for name, deployment in of_kind(rendered("production"), "Deployment").items()
    }
    assert [name for name, has in tokens.items() if has] == ["abz-abruzzi-controller", "abz-abruzzi-sandboxes"]
    accounts = of_kind(rendered("production"), "ServiceAccount")
    assert {account["automountServiceAccountToken"] for account in accounts.values()} == {False}
    bound = {
        subject["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for binding in of_kind(rendered("production"), kind).values()
        for subject in binding["subjects"]
    }
    assert bound == {"abz-abruzzi-controller", "abz-abruzzi-sandboxes"}


def test_the_namespace_of_stages_enforces_restricted_pod_security_and_outlives_the_release() -> None:
    found = of_kind(rendered("production"), "Namespace")
    assert sorted(found) == ["abz-sandboxes", "abz-stages"]
    for each in found.values():
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    namespace = found["abz-stages"]
    assert namespace["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert of_kind(rendered("small"), "Namespace") == {}


def stages_policies(name: str) -> dict[str, dict[str, Any]]:
    found = of_kind([t for t in rendered(name) if t["metadata"].get("namespace")], "NetworkPolicy")
    return {key.removeprefix("abz-abruzzi-"): policy["spec"] for key, policy in found.items()}


def test_stages_reach_the_api_their_store_and_names_and_not_each_other() -> None:
    found = stages_policies("production")
    assert found["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    attempts = {"matchExpressions": [{"key": "abruzzi.io/attempt", "operator": "Exists"}]}
    stages = found["stages"]
    assert stages["podSelector"] == attempts
    assert "ingress" not in stages, "the controller lets the pods of one attempt meet"
    api, sandboxes, names, store = stages["egress"]
    assert api["ports"] == [{"port": 8600}]
    assert api["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "api"
    assert sandboxes["ports"] == [{"port": 8602}]
    assert sandboxes["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "sandboxes"
    assert {port["port"] for port in names["ports"]} == {53}
    assert store == {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 9000}]}


def test_the_controller_lets_pods_of_one_attempt_meet_where_the_namespace_keeps_all_apart() -> None:
    def setting(*settings: str) -> str:
        controller = of_kind(template("production", *settings), "Deployment")["abz-abruzzi-controller"]
        return environment(controller["spec"]["template"]["spec"])["ABRUZZI_PEER_POLICIES"]

    assert setting() == "true"
    assert setting("networkPolicy.enabled=false") == "false"


def test_kuberay_reaches_the_heads_of_ray_clusters_and_nothing_else() -> None:
    ray = stages_policies("production")["ray"]
    assert ray["podSelector"]["matchLabels"] == {"ray.io/node-type": "head"}
    [rule] = ray["ingress"]
    assert rule["ports"] == [{"port": 8265}]
    assert rule["from"][0]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}


def test_the_stores_port_is_its_endpoints_or_what_is_said() -> None:
    assert stages_policies("small")["stages"]["egress"][-1]["ports"] == [{"port": 9000}]
    for endpoint, secure, port in (
        ("s3.example.org", "true", 443),
        ("s3.example.org", "false", 80),
        ("s3:9443", "true", 9443),
    ):
        things = template("production", f'store.endpoint="{endpoint}"', f"store.secure={secure}")
        [stages] = [t for t in things if t["kind"] == "NetworkPolicy" and t["metadata"]["name"].endswith("-stages")]
        assert stages["spec"]["egress"][-1]["ports"] == [{"port": port}]


@needs_helm
def test_stages_reach_the_language_models_that_an_operator_names() -> None:
    peer = {"ipBlock": {"cidr": "10.30.0.7/32"}}
    things = template("small", f"networkPolicy.endpoints=[{json.dumps({'to': [peer], 'ports': [443, 8000]})}]")
    [stages] = [t for t in things if t["kind"] == "NetworkPolicy" and t["metadata"]["name"].endswith("-stages")]
    assert stages["spec"]["egress"][-1] == {"to": [peer], "ports": [{"port": 443}, {"port": 8000}]}


def test_the_api_is_reached_by_whom_the_values_name_by_stages_and_by_who_asks_whose_a_token_is() -> None:
    [policy] = [
        t for t in rendered("production") if t["kind"] == "NetworkPolicy" and t["metadata"]["name"] == "abz-abruzzi-api"
    ]
    [rule] = policy["spec"]["ingress"]
    names = [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]]
    assert names == ["ingress", "abz-stages", "abz-sandboxes"]
