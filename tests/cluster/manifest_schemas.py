"""JSON Schemas for kubeconform, made from what a real apiserver says of itself (/openapi/v2): one file for each kind, with all that it refers to.

Strict, so that a field that there is not is a mistake: https://kubernetes.io/docs/reference/using-api/api-concepts/ (OpenAPI V2).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.binaries import KUBERNETES_VERSION, Toolbox

Definitions = Mapping[str, Mapping[str, Any]]

_BEGINS = "#/definitions/"
_EITHER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
}
"""OpenAPI V2 has no word for one of two types, and calls both strings."""
_LOCATION = "{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}.json"


@dataclass(frozen=True)
class Findings:
    valid: int
    skipped: int
    mistakes: tuple[str, ...]


def write_schemas(openapi: Mapping[str, Any], folder: Path) -> int:
    """Into a folder that is there; returns of how many kinds."""
    definitions = {name: strict(name, definition) for name, definition in openapi["definitions"].items()}
    written = 0
    for name, definition in openapi["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            parts = {each: definitions[each] for each in sorted(_reached(name, definitions))}
            schema = {"$ref": f"{_BEGINS}{name}", "definitions": parts}
            group = kind["group"] or kind["version"]  # kubeconform's name for the core group
            (folder / f"{group}_{kind['version']}_{kind['kind'].lower()}.json").write_text(json.dumps(schema))
            written += 1
    return written


def strict(name: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    """What has named fields has no others."""
    found = {key: value for key, value in definition.items() if not key.startswith("x-") and key != "description"}
    if name in _EITHER:
        return {"type": _EITHER[name]}
    if "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def _reached(name: str, definitions: Definitions) -> set[str]:
    found, beyond = {name}, [name]
    while beyond:
        new = set(_references(definitions[beyond.pop()])) - found
        found |= new
        beyond += new
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(_BEGINS)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def check(text: str, schemas: Path, *, skip: str = "") -> Findings:
    """What kubeconform finds in YAML; `skip`: kinds that no schema is for."""
    command = [
        str(Toolbox().path("kubeconform")), "-strict", "-output", "json", "-summary", "-kubernetes-version",
        KUBERNETES_VERSION, "-schema-location", f"{schemas}/{_LOCATION}", "-skip", skip, "-",
    ]  # fmt: skip
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    mistakes = tuple(f"{each['kind']} {each['name']}: {each['msg']}" for each in said["resources"] or ())
    return Findings(said["summary"]["valid"], said["summary"]["skipped"], mistakes)
