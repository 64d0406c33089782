"""Keeps a Grafana up to date with the dashboards that ship, by its HTTP API. Each part is asked for first and written only when it differs,
so that a repeated push adds no version to a dashboard's history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.kit.settings import Settings

FOLDER = {"uid": "abruzzi", "title": "Abruzzi"}
DATASOURCE_UID = "abruzzi"
TIMEOUT_SECONDS = 10.0
_OWN = ("id", "version")
"""What Grafana adds to a dashboard."""


async def provision(ground: Ground, budget: Budget) -> Outcome:
    """Datasource, folder, dashboards. Raises what Grafana says: the chore keeps it and tries again."""
    return Outcome(await asyncio.to_thread(push, ground.settings))


def push(settings: Settings) -> dict[str, int]:
    """{"dashboards": how many ship, "changed": how many parts were written}. Blocking."""
    assert settings.grafana_url is not None
    api = GrafanaApi.from_url(
        settings.grafana_url, credential=settings.secret("grafana_token"), timeout=TIMEOUT_SECONDS
    )
    dashboards = shipped(settings)
    changed = _datasource(api, settings.prometheus_url) + _folder(api)
    changed += sum(_dashboard(api, dashboard) for dashboard in dashboards)
    return {"dashboards": len(dashboards), "changed": changed}


def shipped(settings: Settings) -> list[dict[str, Any]]:
    """Raises AbruzziError `no_dashboards`."""
    folder = settings.dashboards_dir or Path(__file__).resolve().parents[3] / "charts/abruzzi/dashboards"
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise AbruzziError(
            "no_dashboards", f"{folder} holds no dashboards.", status=500, hint="Set ABRUZZI_DASHBOARDS_DIR."
        )
    return found


def _datasource(api: GrafanaApi, url: str) -> bool:
    wanted = {"uid": DATASOURCE_UID, "name": "Abruzzi", "type": "prometheus", "access": "proxy", "url": url}
    there = _found(lambda: api.datasource.get_datasource_by_uid(DATASOURCE_UID))
    if there is None:
        api.datasource.create_datasource(wanted)
    elif _differs(wanted, there):
        api.datasource.update_datasource_by_uid(DATASOURCE_UID, {**there, **wanted})
    else:
        return False
    return True


def _folder(api: GrafanaApi) -> bool:
    there = _found(lambda: api.folder.get_folder(FOLDER["uid"]))
    if there is None:
        api.folder.create_folder(FOLDER["title"], uid=FOLDER["uid"])
    elif _differs(FOLDER, there):
        api.folder.update_folder(FOLDER["uid"], title=FOLDER["title"], overwrite=True)
    else:
        return False
    return True


def _dashboard(api: GrafanaApi, dashboard: dict[str, Any]) -> bool:
    there = _found(lambda: api.dashboard.get_dashboard(dashboard["uid"]))
    if there is not None:
        kept = {name: value for name, value in there["dashboard"].items() if name not in _OWN}
        if kept == dashboard and there["meta"].get("folderUid") == FOLDER["uid"]:
            return False
    told = {"dashboard": dashboard, "folderUid": FOLDER["uid"], "overwrite": True, "message": "Provisioned by Abruzzi"}
    api.dashboard.update_dashboard(told)
    return True


def _differs(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    return any(there.get(name) != value for name, value in wanted.items())


def _found(ask: Callable[[], Any]) -> Any:
    """None for what is not there."""
    try:
        return ask()
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise
