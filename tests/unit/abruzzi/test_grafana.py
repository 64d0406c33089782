"""Dashboards: what is committed is what the code makes, sound by Grafana's own schema classes; pushing them is idempotent."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from grafana_client.client import GrafanaServerError, GrafanaUnauthorizedError
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from grafana_stub import GrafanaStub
from pydantic import SecretStr

from abruzzi.contracts.errors import AbruzziError
from abruzzi.kit.settings import Settings
from abruzzi.workers import grafana

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "charts/abruzzi/dashboards").glob("*.json"))
TOKEN = "glsa_token"


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in FILES]


def settings_for(stub: GrafanaStub, **changed: Any) -> Settings:
    return Settings(grafana_url=stub.url, grafana_token=SecretStr(TOKEN)).model_copy(update=changed)


def test_the_committed_dashboards_are_what_the_code_makes() -> None:
    specification = importlib.util.spec_from_file_location("dashboards", ROOT / "scripts/dashboards.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["dashboards"] = module
    specification.loader.exec_module(module)
    assert {path.name: path.read_text() for path in FILES} == module.build(), "run `make dashboards`"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_sound_by_grafanas_schema(path: Path) -> None:
    """Read into the classes that are generated from Grafana's schemas and written again: an unknown or misplaced key would be lost."""
    register_default_plugins()
    read = Dashboard.from_json(json.loads(path.read_text()))
    again = json.loads(JSONEncoder(sort_keys=True).encode(read))
    assert again == json.loads(path.read_text())


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda d: d["uid"])
def test_panels_have_ids_of_their_own_fit_the_grid_and_ask_our_source(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    sources = {json.dumps(panel["datasource"], sort_keys=True) for panel in panels if panel["type"] != "row"}
    assert sources == {json.dumps({"type": "prometheus", "uid": grafana.DATASOURCE_UID}, sort_keys=True)}


def test_a_first_push_makes_everything_and_a_second_changes_nothing() -> None:
    with GrafanaStub(TOKEN) as stub:
        count = len(FILES)
        assert grafana.push(settings_for(stub)) == {"dashboards": count, "changed": count + 2}
        assert stub.datasources["abruzzi"]["url"] == "http://prometheus:9090"
        assert {d["meta"]["folderUid"] for d in stub.dashboards.values()} == {"abruzzi"}
        made = list(stub.changes)
        assert grafana.push(settings_for(stub)) == {"dashboards": count, "changed": 0}
        assert stub.changes == made
        assert {d["dashboard"]["version"] for d in stub.dashboards.values()} == {1}


def test_what_somebody_has_changed_is_put_right_and_nothing_else_is_touched() -> None:
    with GrafanaStub(TOKEN) as stub:
        grafana.push(settings_for(stub))
        stub.dashboards["own"] = {"dashboard": {"uid": "own", "version": 7, "id": 99}, "meta": {"folderUid": ""}}
        stub.dashboards["abruzzi-training"]["dashboard"]["title"] = "Mine"
        stub.folders["abruzzi"]["title"] = "Moved"
        stub.datasources["abruzzi"]["jsonData"] = {"timeInterval": "15s"}
        assert grafana.push(settings_for(stub, prometheus_url="http://elsewhere:9090"))["changed"] == 3
        assert stub.dashboards["abruzzi-training"]["dashboard"]["title"] == "Abruzzi: training"
        assert stub.folders["abruzzi"]["title"] == "Abruzzi"
        assert stub.datasources["abruzzi"]["url"] == "http://elsewhere:9090"
        assert stub.datasources["abruzzi"]["jsonData"] == {"timeInterval": "15s"}, "what is not ours stays"
        assert stub.dashboards["own"]["dashboard"]["version"] == 7


def test_a_push_that_was_cut_off_is_completed_by_the_next() -> None:
    with GrafanaStub(TOKEN) as stub:
        grafana.push(settings_for(stub))
        del stub.dashboards["abruzzi-training"]
        assert grafana.push(settings_for(stub))["changed"] == 1


def test_a_wrong_token_or_a_grafana_that_is_down_is_said() -> None:
    with GrafanaStub("another") as stub, pytest.raises(GrafanaUnauthorizedError):
        grafana.push(settings_for(stub))
    with GrafanaStub(TOKEN) as stub:
        stub.is_down = True
        with pytest.raises(GrafanaServerError, match="503"):
            grafana.push(settings_for(stub))


def test_a_missing_token_is_said_and_ends_no_worker() -> None:
    with GrafanaStub(TOKEN) as stub, pytest.raises(AbruzziError, match="ABRUZZI_GRAFANA_TOKEN is not set"):
        grafana.push(settings_for(stub, grafana_token=None))


def test_no_dashboards_where_they_should_be_is_said(tmp_path: Path) -> None:
    with GrafanaStub(TOKEN) as stub, pytest.raises(AbruzziError, match="holds no dashboards") as refused:
        grafana.push(settings_for(stub, dashboards_dir=tmp_path))
    assert "ABRUZZI_DASHBOARDS_DIR" in str(refused.value.hint)
