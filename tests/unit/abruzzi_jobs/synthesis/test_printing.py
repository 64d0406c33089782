"""Trajectories as pages to read."""

from __future__ import annotations

import json
import re

import pytest
from task_play import converse, some_tasks
from typer import Typer
from typer.testing import CliRunner

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.row_choice import drawn
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.synthesis.judge import checks, judged
from abruzzi_jobs.synthesis.players import ScriptedAgent
from abruzzi_jobs.synthesis.trajectories.printing import markdown, show
from abruzzi_jobs.synthesis.user import UserSimulator


def row_of(task, number=0, error_rate=0.0) -> dict:
    agent = ScriptedAgent(task, error_rate=error_rate)
    episode = converse(task, agent, UserSimulator(task, scripted=True))
    verdicts = checks(task, episode)
    judgement = judged(task, verdicts)
    return {
        "id": f"trajectory-{number}",
        "fate": judgement.fate,
        "score": judgement.score,
        "generator": agent.generator,
        "is_llm": False,
        "generators": {"agent": agent.generator},
        "task": task.model_dump(mode="json"),
        "agent": {"system_prompt": "You help.", "tools": [call.tool.model_dump() for call in task.plan]},
        "messages": episode.messages,
        "calls": [call.model_dump(mode="json") for call in episode.calls],
        "verdicts": [verdict.model_dump() for verdict in verdicts],
        "world": {
            "before": episode.before,
            "after": episode.after,
            "digest_before": "sha256:a",
            "digest_after": "sha256:b",
        },
        "ended_by": "user",
    }


TASK = next(task for task in some_tasks() if any(fact.told == "asked" for fact in task.facts))


def test_a_page_tells_all_that_happened():
    page = markdown(row_of(TASK))
    assert "# trajectory-0: kept, score 1.00" in page
    assert "the rule-based stand-in played the agent" in page
    assert page.count("**Agent calls**") == page.count("**Tool answers**") == len(TASK.plan)
    assert page.count("| ✓ |") == len([clause for clause in TASK.rubric if clause.kind != "judge"])
    for entity in {change.entity for clause in TASK.rubric if clause.kind == "diff" for change in clause.changes}:
        assert f"*{entity.replace('_', chr(92) + '_')}, after*" in page


def test_what_failed_is_seen():
    page = markdown(row_of(TASK, error_rate=1.0))
    assert "rubric\\_failed, score 0.00" in page
    assert "| ✗ |" in page


def test_a_trajectory_cannot_write_on_its_page():
    row = row_of(TASK)
    row["messages"][-1] = {"role": "assistant", "content": "# Verdict\n\n| ✓ | [kept](http://x) <script> |"}
    tool = next(message for message in row["messages"] if message["role"] == "tool")
    tool["content"] = "```\n# Verdict\n```"
    page = markdown(row)
    assert [line for line in page.splitlines() if line.startswith("#")].count(
        "# Verdict"
    ) == 1  # inside of a longer fence
    assert "````\n```\n# Verdict\n```\n````" in page
    assert r"> \# Verdict" in page
    assert r"\[kept\](http" in page
    assert not re.search(r"(?<!\\)\]\(", page)
    assert not re.search(r"(?m)^> [^\n]*(?<!\\)<script", page)


def test_rows_are_drawn_by_seed_fate_and_name():
    rows = [{"id": f"r{n}", "fate": "kept" if n % 2 else "turns"} for n in range(20)]
    assert drawn(rows, sample=4, seed=1) == drawn(rows, sample=4, seed=1) != drawn(rows, sample=4, seed=2)
    assert {row["fate"] for row in drawn(rows, sample=50, seed=0, fate="turns")} == {"turns"}
    assert drawn(rows, ids=["r3", "r7"], sample=1, seed=0) == [rows[3], rows[7]]
    with pytest.raises(AbruzziError, match="no row 'x'"):
        drawn(rows, ids=["x"], sample=1, seed=0)
    with pytest.raises(AbruzziError, match="fate 'lost'"):
        drawn(rows, sample=1, seed=0, fate="lost")


def test_the_command_writes_a_page_a_row(tmp_path):
    (tmp_path / "rows").mkdir()
    writer = RowShardWriter(tmp_path / "rows", "trajectories")
    for number, task in enumerate(some_tasks()[:3]):
        writer.write(row_of(task, number))
    writer.close()
    app = Typer()
    app.command()(show)
    printed = CliRunner().invoke(app, [str(tmp_path / "rows"), "--sample", "2"])
    assert (printed.exit_code, printed.output.count("## Rubric")) == (0, 2)
    rows = json.loads(CliRunner().invoke(app, [str(tmp_path / "rows"), "--sample", "2", "--json"]).output)
    assert [row["id"] in printed.output for row in rows] == [True, True]
    CliRunner().invoke(app, [str(tmp_path / "rows"), "--sample", "3", "--to", str(tmp_path / "pages")])
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == [f"trajectory-{n}.md" for n in range(3)]
