"""Trajectories of an rl stage as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.rl.rollout.command import app


def row_of(number: int, *, reward: float | None = 1.0, fate: str = "kept") -> dict[str, Any]:
    policy = {"source": "policy", "temperature": 0.8, "mean_logprob": -0.51234}
    return {
        "id": f"g0000012/{number}",
        "fate": fate,
        "iteration": 4,
        "group": "g0000012",
        "member": number,
        "family": "addition",
        "environment": "arithmetic@1",
        "task": "train-17",
        "reward": reward,
        "components": {} if reward is None else {"correct": reward, "format": 1.0},
        "detail": "TimeoutError: late\x1b[2J" if reward is None else "",
        "turns": 1,
        "policy_tokens": 5,
        "versions": [3, 4],
        "segments": [
            {"source": "prompt", "text": "What is 3 + 4?", "tokens": 9},
            policy | {"text": "The\x1b[31m sum", "tokens": 2, "policy_version": 3, "ending": "paused"},
            policy | {"text": " is 7.", "tokens": 3, "policy_version": 4, "ending": "stop"},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = RowShardWriter(tmp_path, "rollouts")
    for one in (row_of(0), row_of(1, reward=0.0), row_of(2, reward=None, fate="environment_error")):
        writer.write(one)
    writer.close()
    return tmp_path


def shown(folder: Path, *options: str, color: bool = False) -> str:
    result = CliRunner().invoke(app, ["show", str(folder), *options], color=color)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_segments_are_told_apart_by_version_and_nothing_steers_the_terminal(folder: Path) -> None:
    assert shown(folder, "--row", "g0000012/0") == (
        "g0000012/0  arithmetic@1 train-17 (addition), iteration 4: 1 turns, 5 tokens of policy version 3, 4\n"
        "kept, reward 1 (correct 1, format 1)\n"
        "── prompt, 9 tokens\nWhat is 3 + 4?\n"
        "── policy, version 3, 2 tokens, temperature 0.8, mean log-probability -0.512: paused\nThe\ufffd[31m sum\n"
        "── policy, version 4, 3 tokens, temperature 0.8, mean log-probability -0.512: stop\n is 7.\n"
    )
    coloured = shown(folder, "--row", "g0000012/0", color=True)
    assert "\x1b[32mThe\ufffd[31m sum\x1b[0m" in coloured
    assert "\x1b[34m is 7.\x1b[0m" in coloured


def test_members_of_a_group_are_compared_and_an_error_has_no_advantage(folder: Path) -> None:
    text = shown(folder, "--group", "g0000012")
    assert "group g0000012: task train-17, mean reward 0.5\n" in text
    assert "  g0000012/1  reward      0  advantage   -0.5       5 tokens  1 turns  kept\n" in text
    assert "  g0000012/2  reward   none  advantage   none       5 tokens  1 turns  environment_error\n" in text
    assert "TimeoutError: late\ufffd[2J" in text


def test_rows_come_as_json_too_and_what_is_not_there_is_said(folder: Path) -> None:
    assert [row["member"] for row in json.loads(shown(folder, "--fate", "environment_error", "--json"))] == [2]
    missing = CliRunner().invoke(app, ["show", str(folder), "--group", "g9"])
    assert "There is no group 'g9'" in str(missing.exception)
