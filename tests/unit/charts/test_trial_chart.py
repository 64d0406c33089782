"""The trial chart: what Abruzzi asks for is all in its Secret, its pods are as restricted as the platform's, and nobody else reaches them."""

from __future__ import annotations

import re
from typing import Any

import chart_render
import pytest
import yaml
from chart_render import NAMESPACE, ChartError, environment, helm, needs_helm, of_kind, pods
from cluster.binaries import KUBERNETES_VERSION, MINIO

CHART = chart_render.CHART.parent / "abruzzi-trial"

pytestmark = needs_helm


def trial(*settings: str) -> list[dict[str, Any]]:
    more = [part for setting in settings for part in ("--set-json", setting)]
    text = helm("template", "trial", str(CHART), "-n", NAMESPACE, "--kube-version", KUBERNETES_VERSION, *more)
    return [thing for thing in yaml.safe_load_all(text) if thing]


def test_lint_has_nothing_to_say() -> None:
    said = helm("lint", "--strict", str(CHART))
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


def test_kubernetes_models_know_every_field_and_miss_none() -> None:
    assert [mistake for thing in trial() for mistake in chart_render.unknown_fields(thing)] == []


def test_it_says_that_it_is_for_trials() -> None:
    assert "FOR TRIALS ONLY" in (CHART / "templates/NOTES.txt").read_text()
    assert "FOR TRIALS ONLY" in (CHART / "values.yaml").read_text()


def test_its_secret_has_every_key_that_the_platform_reads() -> None:
    [secret] = of_kind(trial(), "Secret").values()
    asked = {
        value["secretKeyRef"]["key"]
        for _, pod in pods(chart_render.rendered("production"))
        if "env" in pod["containers"][0]
        for value in environment(pod).values()
        if isinstance(value, dict)
    }
    assert asked - set(secret["stringData"]) == {"GRAFANA_TOKEN", "OIDC_CLIENT_SECRET", "SMTP_PASSWORD"}, (
        "which a trial does not use"
    )
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert re.fullmatch("abruzzi_[0-9a-z]{12}_[A-Za-z0-9]{43}", secret["stringData"].pop("ADMIN_TOKEN"))
    for key, value in secret["stringData"].items():
        if not key.endswith("_URL"):
            assert re.fullmatch("[A-Za-z0-9]{40}", value), "it stands in addresses and in SQL"


def test_pods_are_restricted_and_have_no_token() -> None:
    found = dict(pods(trial()))
    assert set(found) == {"trial-postgres", "trial-redis", "trial-s3"}
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"readinessProbe", "livenessProbe"} <= set(container)
        assert "memory" in container["resources"]["limits"]


def test_only_the_platform_reaches_them_and_stages_the_store() -> None:
    policies = of_kind(trial(), "NetworkPolicy")
    platform = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "abruzzi"}}}
    peers = {name: policy["spec"]["ingress"][0]["from"] for name, policy in policies.items()}
    assert peers["trial-postgres"] == peers["trial-redis"] == [platform]
    assert peers["trial-s3"][0] == platform
    assert peers["trial-s3"][1]["podSelector"]["matchExpressions"][0]["key"] == "abruzzi.io/attempt"
    assert all("egress" not in policy["spec"] for policy in policies.values()), "they call nobody"
    assert trial('networkPolicy={"enabled": false}') != []
    assert of_kind(trial('networkPolicy={"enabled": false}'), "NetworkPolicy") == {}


def test_without_persistence_there_is_no_claim() -> None:
    def claims(things: list[dict[str, Any]]) -> set[str]:
        return {
            name for name, thing in of_kind(things, "StatefulSet").items() if "volumeClaimTemplates" in thing["spec"]
        }

    assert claims(trial()) == {"trial-postgres", "trial-s3"}
    assert claims(trial('persistence={"enabled": false}')) == set()


def test_nonsense_is_refused() -> None:
    with pytest.raises(ChartError, match="values don't meet the specifications of the schema"):
        trial('persistence={"postgres": "much"}')


def test_its_store_is_the_version_that_the_test_cluster_uses() -> None:
    assert f"{MINIO.path}@{MINIO.version}" in (CHART / "images/s3/Containerfile").read_text()


def test_its_images_are_those_of_its_containerfiles() -> None:
    built = {path.parent.name for path in CHART.glob("images/*/Containerfile")}
    assert {container["image"] for _, pod in pods(trial()) for container in pod["containers"]} == {
        f"abruzzi-trial-{name}:0.1.0" for name in built
    }


def test_the_platforms_values_for_a_trial_name_what_this_chart_makes() -> None:
    things, platform = trial(), chart_render.template("trial")
    values = yaml.safe_load(chart_render.values("trial").read_text())
    assert values["existingSecret"] in of_kind(things, "Secret")
    assert values["store"]["endpoint"] == f"trial-s3.{NAMESPACE}.svc:9000"
    assert "trial-s3" in of_kind(things, "Service")
    [peer] = values["networkPolicy"]["store"]["to"]
    labels = of_kind(things, "StatefulSet")["trial-s3"]["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert of_kind(platform, "Deployment") != {}
