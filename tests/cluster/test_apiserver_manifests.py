"""What helm writes, before kubeconform with the schemas of Kubernetes 1.34, which are taken from a real apiserver: text, so that a key that is given twice is
found, too, which nobody who parses it first can see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chart_render import CHART, NAMESPACE, SETS, helm, needs_helm, values
from cluster.apiserver import ApiServer, needs_apiserver
from cluster.binaries import KUBERNETES_VERSION, Toolbox
from cluster.manifest_schemas import check, write_schemas

needs_kubeconform = pytest.mark.skipif(
    Toolbox().find("kubeconform") is None,
    reason="no kubeconform here: set ABRUZZI_CLUSTER_TOOLS, or build it once with `make cluster-tools`",
)
pytestmark = [needs_apiserver, needs_helm, needs_kubeconform]

TRIAL = CHART.parent / "abruzzi-trial"
NOT_OURS = "ServiceMonitor"
"""Of the Prometheus operator."""
CHARTS = [*((CHART, ("--values", str(values(name)))) for name in (*SETS, "trial")), (TRIAL, ())]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schemas")
    with ApiServer(tmp_path_factory.mktemp("apiserver")) as server:
        assert write_schemas(server.openapi(), folder) > 50
    return folder


def written(chart: Path, *words: str) -> str:
    where = ["--namespace", NAMESPACE, "--kube-version", KUBERNETES_VERSION, "--include-crds"]
    return helm("template", "abz", str(chart), *where, *words)


@pytest.mark.parametrize(("chart", "words"), CHARTS, ids=[*SETS, "before the trial chart", "the trial chart"])
def test_kubeconform_knows_every_field_of_both_charts(schemas: Path, chart: Path, words: tuple[str, ...]) -> None:
    text = written(chart, *words)
    kinds = re.findall(r"^kind: (\w+)$", text, re.MULTILINE)
    found = check(text, schemas, skip=NOT_OURS)
    assert found.mistakes == ()
    assert (found.valid, found.skipped) == (len(kinds) - kinds.count(NOT_OURS), kinds.count(NOT_OURS))


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("      containers:\n", "      contaners: []\n      containers:\n", "contaners"),
        ("  replicas: 1\n", '  replicas: "1"\n', "replicas"),
        ("  replicas: 1\n", "  replicas: 1\n  replicas: 1\n", "already set"),
    ],
    ids=["a field that there is not", "a value of another type", "a key given twice"],
)
def test_it_finds(schemas: Path, right: str, wrong: str, complaint: str) -> None:
    text = written(TRIAL)
    assert right in text
    found = check(text.replace(right, wrong, 1), schemas)
    assert len(found.mistakes) == 1
    assert complaint in found.mistakes[0]
