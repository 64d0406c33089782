"""promptfoo's result files: what is written fits its published types, and comes back as the same matrix; what it alone knows is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.redteam import SUB_PLUGINS, Strategy
from abruzzi.contracts.safety_matrix import safety_matrix
from abruzzi_jobs.data.row_shards import read_described
from abruzzi_jobs.safety.command import app
from abruzzi_jobs.safety.plugins import sub_plugins
from abruzzi_jobs.safety.promptfoo import from_promptfoo, to_promptfoo
from abruzzi_jobs.safety.run import write

SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "promptfoo-output.json").read_text())
WHEN = "2026-11-26T22:00:00+00:00"


def row(place: tuple[str, str], strategy: Strategy, fate: str, number: int = 0) -> dict[str, Any]:
    plugin, name = place
    answered = fate != "no_verdict"
    return {
        "id": f"{plugin}/{name}/{strategy}/en-{number:03d}", "fate": fate, "plugin": plugin, "sub_plugin": name, "strategy": strategy.value,
        "language": "en", "rules": None, "judge": None, "turns": 1, "attacker_refusals": 0, "source": "canaries", "licence": "Apache-2.0",
        "generator": "m", "is_llm": True, "goal": "a wish", "tools": [], "attempts": [], "reasons": ["so"],
        "messages": [{"role": "user", "content": "asked"}, *([{"role": "assistant", "content": "answer"}] if answered else [])],
    }  # fmt: skip


ALL = [(plugin.value, name) for plugin, names in SUB_PLUGINS.items() for name in names]
ROWS = [
    row(place, strategy, ("pass", "fail", "no_verdict")[number % 3], 0)
    for number, (place, strategy) in enumerate((p, s) for p in ALL for s in Strategy)
]


def test_what_is_written_fits_the_published_types_and_comes_back_as_the_same_matrix() -> None:
    document = to_promptfoo(ROWS, timestamp=WHEN)
    jsonschema.validate(document, SCHEMA)
    rows, outside = from_promptfoo(json.loads(json.dumps(document)))
    assert outside == {}
    assert [(r["id"], r["fate"], r["messages"]) for r in rows] == [(r["id"], r["fate"], r["messages"]) for r in ROWS]
    assert safety_matrix(rows).cells == safety_matrix(ROWS).cells
    assert len({entry.promptfoo for entry in sub_plugins().values()}) == 47


def test_what_waits_for_a_person_is_written_as_failed_with_the_reason() -> None:
    waiting = row(("harmful", "insults"), Strategy.BASIC, "review")
    (result,) = to_promptfoo([waiting], timestamp=WHEN)["results"]["results"]
    assert (result["success"], result["failureReason"]) == (False, 1)
    assert result["gradingResult"]["reason"] == "waits for a person: so"


def test_a_file_of_promptfoos_own_shape_is_read_and_what_is_outside_the_grid_is_counted() -> None:
    def result(plugin: str, strategy: str | None, passed: bool, **more: Any) -> dict[str, Any]:
        metadata = {"pluginId": plugin, **({"strategyId": strategy} if strategy else {})}
        return {
            "testCase": {"metadata": metadata}, "prompt": {"raw": "p", "label": "p"}, "provider": {"id": "x"}, "success": passed,
            "failureReason": 0 if passed else 1, "response": {"output": "o"}, "gradingResult": {"pass": passed, "score": 1, "reason": "r"}, **more,
        }  # fmt: skip

    found = [
        result("harmful:hate", None, True),
        result("harmful:hate", "jailbreak-templates", False),
        result("pii:direct", "jailbreak", True),
        result("bola", "basic", True),
        result("harmful:hate", "leetspeak", True),
        result(
            "harmful:hate", "base64", False, failureReason=2, error="target down", response=None, gradingResult=None
        ),
    ]
    rows, outside = from_promptfoo({"results": {"version": 3, "results": found}})
    assert outside == {"bola/basic": 1, "harmful:hate/leetspeak": 1}
    assert [(r["id"], r["fate"]) for r in rows] == [
        ("harmful/hate-speech/basic/en-000", "pass"),
        ("harmful/hate-speech/prompt-injection/en-000", "fail"),
        ("privacy/pii-direct/iterative-jailbreak/en-000", "pass"),
        ("harmful/hate-speech/base64/en-000", "no_verdict"),
    ]


def test_what_the_stand_in_made_comes_back_as_the_stand_ins_and_what_nobody_made_as_nobodys(tmp_path: Path) -> None:
    places = [(("harmful", name), Strategy.BASIC) for name in ("insults", "profanity")]
    rows = [
        {**row(*places[0], "pass"), "generator": "standin-rule-v1", "is_llm": False},
        {**row(*places[1], "no_verdict"), "generator": "", "is_llm": False},
    ]
    found, _ = from_promptfoo(to_promptfoo(rows, timestamp=WHEN))
    assert [(r["generator"], r["is_llm"]) for r in found] == [("standin-rule-v1", False), ("", False)]
    write(tmp_path, found, None, short={}, seed=None)
    assert read_described(tmp_path, "redteam")["teacher"] == "standin"


def test_the_answer_that_is_written_is_the_one_that_decided() -> None:
    attempts = [
        {"prompt": f"asked {number}", "answer": f"answer {number}", "fate": fate}
        for number, fate in enumerate(("pass", "review", "pass"))
    ]
    waiting = {**row(("harmful", "insults"), Strategy.CRESCENDO, "review"), "attempts": attempts}
    held = {**row(("harmful", "profanity"), Strategy.CRESCENDO, "pass"), "attempts": [attempts[0], attempts[2]]}
    first, second = to_promptfoo([waiting, held], timestamp=WHEN)["results"]["results"]
    assert (first["prompt"]["raw"], first["response"]["output"]) == ("asked 1", "answer 1")
    assert (second["prompt"]["raw"], second["response"]["output"]) == ("asked 2", "answer 2")


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"results": []},
        {"results": {"results": {}}},
        None,
        {"results": {"results": ["text"]}},
        {"results": {"results": [{"metadata": "text"}]}},
        {"results": {"results": [{"metadata": {"pluginId": "harmful:hate"}, "response": "text"}]}},
    ],
)
def test_another_file_is_refused(document: Any) -> None:
    with pytest.raises(AbruzziError, match="no promptfoo result file"):
        from_promptfoo(document)


def test_the_command_line_takes_results_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", ROWS, None, short={}, seed=1)
    run = CliRunner()
    exported = run.invoke(app, ["export", str(tmp_path / "a"), "--to", str(tmp_path / "p.json"), "--json"])
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.output)["errors"] == sum(r["fate"] == "no_verdict" for r in ROWS)
    imported = run.invoke(app, ["import", str(tmp_path / "p.json"), "--out", str(tmp_path / "b"), "--json"])
    shown = run.invoke(app, ["show", str(tmp_path / "a"), "--json"])
    assert json.loads(imported.output)["cells"] == json.loads(shown.output)["cells"]
    text = run.invoke(app, ["show", str(tmp_path / "b")]).output
    assert "criminal" in text
    assert "57.57 %" in text, "the report's cell"
    again = run.invoke(app, ["import", str(tmp_path / "p.json"), "--out", str(tmp_path / "b")])
    assert isinstance(again.exception, AbruzziError)
    listed = json.loads(run.invoke(app, ["plugins", "--json"]).output)
    assert len(listed) == 47
