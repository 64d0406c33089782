"""`python tests/cluster/crds/update.py`: writes the schemas beside it from the operators' own modules, of the versions that the test cluster runs.

Each is the operator's CRD as JSON Schema, without descriptions (they are nine tenths of it). Licence of all of these projects: Apache-2.0.
Needs Go, for `go mod download`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
CRDS = {
    "github.com/kubeflow/training-operator@v1.9.3": ["manifests/base/crds/kubeflow.org_pytorchjobs.yaml"],
    "github.com/kubeflow/trainer/v2@v2.1.0": [
        "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
        "manifests/base/crds/trainer.kubeflow.org_trainingruntimes.yaml",
    ],
    "github.com/ray-project/kuberay/ray-operator@v1.5.1": ["config/crd/bases/ray.io_rayjobs.yaml"],
    "sigs.k8s.io/kueue@v0.16.2": [
        f"config/components/crd/bases/kueue.x-k8s.io_{kind}.yaml"
        for kind in ("clusterqueues", "localqueues", "resourceflavors", "topologies")
    ],
}
KUBERNETES = "k8s.io/kubernetes@v1.34.4"


def main() -> None:
    for module, paths in CRDS.items():
        folder = module_folder(module)
        for path in paths:
            crd = yaml.safe_load((folder / path).read_text())
            version = next(v for v in crd["spec"]["versions"] if v["storage"])
            write(crd["spec"]["names"]["kind"], module, strict(version["schema"]["openAPIV3Schema"]))
    write("Job", KUBERNETES, job_schema())


def module_folder(module: str) -> Path:
    answer = subprocess.run(
        ["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True, cwd="/"
    )
    return Path(json.loads(answer.stdout)["Dir"])


def job_schema() -> dict[str, Any]:
    """batch/v1 Job from the apiserver's OpenAPI, with what it refers to."""
    path = module_folder(KUBERNETES) / "api/openapi-spec/v3/apis__batch__v1_openapi.json"
    schemas = json.loads(path.read_text())["components"]["schemas"]
    wanted, found = ["io.k8s.api.batch.v1.Job"], {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = strict(schemas[name])
            wanted += references(found[name])
    return {"$ref": "#/$defs/io.k8s.api.batch.v1.Job", "$defs": found}


def references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
        return own + [name for value in schema.values() for name in references(value)]
    return [name for value in schema for name in references(value)] if isinstance(schema, list) else []


def strict(schema: Any) -> Any:
    """JSON Schema of an OpenAPI schema: no descriptions, unknown fields refused as by `fieldValidation=Strict`."""
    if isinstance(schema, list):
        return [strict(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema and isinstance(schema["properties"], dict):
        made = {k: v for k, v in schema.items() if not dropped(k)}
        made["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
        return made
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    made = {k: strict(v) for k, v in schema.items() if not dropped(k)}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = made["$ref"].replace("#/components/schemas/", "#/$defs/")
    return made


def dropped(key: str) -> bool:
    return key in ("description", "default", "format") or key.startswith("x-kubernetes-")


def write(kind: str, module: str, schema: dict[str, Any]) -> None:
    content = {"$comment": f"{kind}, from {module} (Apache-2.0); made by update.py", **schema}
    (FOLDER / f"{kind}.json").write_text(json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
