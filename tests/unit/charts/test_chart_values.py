"""values.schema.json: complete, self-contained, and it refuses nonsense before anything reaches a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from chart_render import CHART, SETS, ChartError, needs_helm, template, values
from jsonschema import Draft7Validator

from abruzzi.contracts.retention import RetentionPolicy
from abruzzi.kit.settings import OidcSettings

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base.get(key), over[key]) if key in over else base[key] for key in {**base, **over}}
    return over


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from nodes(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from nodes(inner)


def test_it_is_draft_7_and_refers_to_nothing_outside() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    references = [node["$ref"] for node in nodes(SCHEMA) if isinstance(node.get("$ref"), str)]
    assert references
    assert [reference for reference in references if not reference.startswith("#/definitions/")] == []


def test_it_knows_every_value_and_no_other() -> None:
    def names(schema: dict[str, Any], at: str = "") -> set[str]:
        inner = schema.get("properties", {})
        return {f"{at}{key}" for key in inner} | {n for key, s in inner.items() for n in names(s, f"{at}{key}.")}

    def given(value: Any, at: str = "") -> set[str]:
        if not isinstance(value, dict):
            return set()
        return {f"{at}{key}" for key in value} | {n for key, v in value.items() for n in given(v, f"{at}{key}.")}

    free = ("oidc.", "retention.", "stages.placement.", "stages.podTemplate.", "sandboxes.pods.")  # empty by default
    known = {name for name in names(SCHEMA) - {"global"} if not name.startswith(free)}
    inside = ("resources.", "labels.")
    assert known == {name for name in given(DEFAULTS) if not any(part in name for part in inside)}
    assert set(SCHEMA["properties"]["retention"]["properties"]) == set(RetentionPolicy.model_fields)
    assert set(SCHEMA["properties"]["oidc"]["properties"]) == set(OidcSettings.model_fields)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"publicUrl": ""}, "publicUrl"),
        ({"oidc": {"issuer": "https://id.example.org", "client_id": "abruzzi"}}, "grants"),
        ({"oidc": {"grants": [{"group": "ml", "role": "root"}]}}, "oidc"),
    ],
)
def test_a_provider_needs_an_address_to_come_back_to_and_grants_with_roles_that_exist(
    changed: dict[str, Any], said: str
) -> None:
    whole = {**merged(DEFAULTS, yaml.safe_load(values("production").read_text())), **changed}
    found = [f"{list(error.path)} {error.message}" for error in Draft7Validator(SCHEMA).iter_errors(whole)]
    assert any(said in text for text in found)


@pytest.mark.parametrize("name", SETS)
def test_the_sets_of_values_are_valid(name: str) -> None:
    whole = merged(DEFAULTS, yaml.safe_load(values(name).read_text()))
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(whole)] == []


def test_what_has_no_default_is_asked_for() -> None:
    found = "\n".join(str(list(error.path)) for error in Draft7Validator(SCHEMA).iter_errors(DEFAULTS))
    for name in ("existingSecret", "endpoint", "bucket"):
        assert name in found


NONSENSE = {
    "an executor that there is not": 'executor="ray"',
    "a directory for a cluster": 'store={"kind": "directory"}',
    "a bucket in capitals": 'store.bucket="Abruzzi"',
    "an endpoint with a scheme": 'store.endpoint="https://s3.example.org"',
    "no Secret": 'existingSecret=""',
    "a typing mistake": "api.replica=3",
    "no replicas": "api.replicas=0",
    "a port beyond": "api.port=70000",
    "a quantity that is none": 'api.resources.limits.memory="1 gigabyte"',
    "a tag with a space": 'images.tag="0.1 0"',
    "a webhook over FTP": 'webhooks.schemes=["ftp"]',
    "mail without a port": "smtp.port=0",
    "retention below zero": "retention.log_days=-1",
    "retention of what there is not": "retention.run_days=1",
    "a user's container in the pod template": 'stages.podTemplate.containers=[{"name": "x"}]',
    "a pool in capitals": 'stages.defaultPool="H800"',
    "a namespace with a dot": 'stages.namespace.name="a.b"',
    "a peer that is everybody": "networkPolicy.store.to=[{}]",
    "nowhere to ask for names": "networkPolicy.dnsTo=[]",
    "a backup to nowhere": 'backup.claim=""',
    "a variable with a space": 'pods.env={"A B": "c"}',
    "a mount of nothing": 'pods.volumeMounts=[{"name": "ca"}]',
    "a toleration of no effect": 'tolerations=[{"effect": "Never"}]',
}


@needs_helm
@pytest.mark.parametrize("setting", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_refused_with_its_place(setting: str) -> None:
    with pytest.raises(ChartError, match="values don't meet the specifications of the schema") as refused:
        template("production", setting)
    assert setting.partition("=")[0].split(".")[0] in str(refused.value)


@needs_helm
def test_two_controllers_with_stages_inside_them_are_refused() -> None:
    with pytest.raises(ChartError, match="replicas"):
        template("local", "controller.replicas=2")
