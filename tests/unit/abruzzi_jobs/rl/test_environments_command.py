from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from abruzzi.environments.service import shipped
from abruzzi_jobs.rl.environments.registry import SHIPPED
from abruzzi_jobs.rl.environments_command import app

SHIPPED_FILE = Path(__file__).parents[4] / "platform/abruzzi/environments/shipped.json"

RUN = CliRunner().invoke


def test_list_names_the_shipped_environments() -> None:
    found = json.loads(RUN(app, ["list", "--json"]).stdout)
    names = [one["environment"] for one in found]
    assert {"arithmetic@1", "logic@1", "tools@1", "coding@1", "software@1", "safety@1"} <= set(names)
    assert "arithmetic@1" in RUN(app, ["list"]).stdout


def test_the_platform_tells_of_the_shipped_environments_as_they_are() -> None:
    listed = [one for one in json.loads(RUN(app, ["list", "--json"]).stdout) if one["environment"] in SHIPPED]
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        SHIPPED_FILE.write_text(json.dumps(listed, indent=1) + "\n")
    told = [kind.model_dump(mode="json") for kind in shipped()]
    assert told == listed, "ABRUZZI_UPDATE_GOLDEN=1 writes it anew"


def test_show_tells_how_a_task_begins_and_its_solution() -> None:
    asked = ["show", "arithmetic", "--family", "addition", "--count", "2", "--options", '{"digits": 2}']
    [first, second] = json.loads(RUN(app, [*asked, "--json"]).stdout)
    assert first["task"]["id"] != second["task"]["id"]
    told = RUN(app, asked).stdout
    assert first["messages"][0]["content"] in told
    assert f"→ assistant: {first['solution'][0]['content']}" in told
    assert "functions" not in RUN(app, ["show", "tools", "--options", '{"tools": 2}']).stdout


def test_score_is_computed_as_in_training() -> None:
    [one] = json.loads(RUN(app, ["show", "arithmetic", "--json"]).stdout)
    said = RUN(app, ["score", "arithmetic", one["solution"][0]["content"]]).stdout
    assert "ok: reward 1 (correct 1, format 1)" in said
    found = json.loads(RUN(app, ["score", "arithmetic", "none", "--json"]).stdout)
    assert found["outcome"]["reward"] == 0.0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_serve_listens_until_it_is_told_to_end(ending: signal.Signals) -> None:
    command = [sys.executable, "-c", "from abruzzi_jobs.rl.environments_command import app; app()", "serve", "logic"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    child.send_signal(ending)
    assert re.fullmatch(r"logic@1 is served at (http://127\.0\.0\.1:\d+) \(WebSocket \1/ws\)\n", line)
    assert child.wait(120) == 0, os.times()
