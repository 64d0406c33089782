"""The Helm chart as a cluster would get it, and Kubernetes' own models to check its objects with."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
import yaml
from cluster.binaries import KUBERNETES_VERSION, Toolbox

CHART = Path(__file__).parents[1] / "charts/abruzzi"
RELEASE, NAMESPACE = "abz", "abruzzi"
SETS = ("production", "small", "local")
"""charts/abruzzi/ci/*-values.yaml."""

needs_helm = pytest.mark.skipif(
    Toolbox().find("helm") is None,
    reason="no helm here: put it on the PATH, set ABRUZZI_CLUSTER_TOOLS, or build it once with `make cluster-tools`",
)

Object = dict[str, Any]


class ChartError(Exception):
    """What helm said."""


def helm(*arguments: str) -> str:
    """Raises ChartError."""
    command = [str(Toolbox().path("helm")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChartError(done.stdout + done.stderr)
    return done.stdout


def values(name: str) -> Path:
    return CHART / "ci" / f"{name}-values.yaml"


def template(name: str, *settings: str, release: str = RELEASE) -> list[Object]:
    """Objects of a set of values, with `--set-json` settings. Raises ChartError."""
    more = [part for setting in settings for part in ("--set-json", setting)]
    where = ["--namespace", NAMESPACE, "--kube-version", KUBERNETES_VERSION]
    text = helm("template", release, str(CHART), *where, "--values", str(values(name)), *more)
    return [thing for thing in yaml.safe_load_all(text) if thing]


@cache
def _rendered(name: str) -> str:
    return json.dumps(template(name))


def rendered(name: str) -> list[Object]:
    return json.loads(_rendered(name))


def of_kind(things: list[Object], kind: str) -> dict[str, Object]:
    return {thing["metadata"]["name"]: thing for thing in things if thing["kind"] == kind}


def pods(things: list[Object]) -> Iterator[tuple[str, Object]]:
    """(name, pod spec) of everything that makes pods."""
    for thing in things:
        if thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing["spec"]
        elif thing["kind"] == "CronJob":
            yield thing["metadata"]["name"], thing["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        elif "template" in thing.get("spec", {}):
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]


def environment(pod: Object) -> dict[str, Any]:
    """Variable → value, or the key of the Secret."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for c in pod["containers"] for e in c["env"]}


def unknown_fields(thing: Object) -> list[str]:
    """Mistakes by the models of the pinned Kubernetes client: fields that there are not, values of a wrong type, required fields that are missing."""
    group, _, version = thing["apiVersion"].rpartition("/")
    name = f"{version[0].upper()}{version[1:]}{thing['kind']}"
    model = getattr(kubernetes.client, name, None)
    if model is None:
        return [f"Kubernetes has no {group} {name}"]
    return list(_mistakes(thing, name, thing["kind"]))


def _mistakes(value: Any, kind: str, where: str) -> Iterator[str]:
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where}: no list"
            return
        for number, item in enumerate(value):
            yield from _mistakes(item, inner[1], f"{where}[{number}]")
    elif inner := re.fullmatch(r"dict\(?\[?str, (.+?)[\])]", kind):
        if not isinstance(value, dict):
            yield f"{where}: no map"
            return
        for key, item in value.items():
            yield from _mistakes(item, inner[1], f"{where}.{key}")
    elif kind in _PLAIN:
        if not isinstance(value, _PLAIN[kind]) or (kind != "bool" and kind != "object" and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {kind}"
    else:
        yield from _model_mistakes(value, getattr(kubernetes.client, kind), where)


def _model_mistakes(value: Any, model: Any, where: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{where}: no {model.__name__}"
        return
    fields = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    for key, item in value.items():
        if key not in fields:
            yield f"{where}.{key}: {model.__name__} has no such field"
        else:
            yield from _mistakes(item, fields[key], f"{where}.{key}")
    try:
        model(**{names[key]: item for key, item in value.items() if key in names})  # demands what is required
    except ValueError as error:
        yield f"{where}: {error}"


_PLAIN: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "object": (object,),
    "datetime": (str,),
}
