"""The sft stage as a process: what it makes, what it refuses, and the same bits after kill -9."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tuning_lab import TuningLab, chat

from abruzzi.client.stage import Reporter, StageContext, exit_code_of
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import SftStage
from abruzzi.contracts.states import ExitCode
from abruzzi.store import list_manifests
from abruzzi_jobs.data.corpus import silent
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.sft.tuning import FineTuning
from abruzzi_jobs.train.training import build_model

pytestmark = pytest.mark.slow


def output(lab: TuningLab, name: str, *, epoch: int = 1) -> Manifest:
    prefix = lab.tuning().output_prefix
    return next(m for _, m in list_manifests(lab.store, prefix) if m.name == name and m.epoch == epoch)


def examples(lab: TuningLab) -> list[dict[str, Any]]:
    manifest = output(lab, "examples")
    folder = lab.root / "examples"
    folder.mkdir(exist_ok=True)
    for entry in manifest.files:
        (folder / entry.path).write_bytes(lab.blob(manifest, entry.path).read_bytes())
    return list(read_rows(folder, "examples"))


def test_killed_and_resumed_it_ends_with_the_bits_of_an_undisturbed_run(
    lab: TuningLab, tmp_path: Path, tuning_inputs: Path
) -> None:
    (tmp_path / "whole").mkdir()
    whole = TuningLab(tmp_path / "whole", made=tuning_inputs)
    chats = lab.chats(chat(number) for number in range(30))
    changes = {"data": {"sources": [chats]}, "batch": {"sequence_length": 511}, "schedule": {"epochs": 6.0}}
    points = whole.run(whole.tuning(changes)).points()
    assert points["valid/loss"], "on conversations that were held out"
    assert points["train/loss"][1] > points["train/loss"][max(points["train/loss"])]
    attempt = lab.start(lab.tuning(changes), hold_at=6)
    attempt.until_held(6, lab.checkpoints)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    reached = lab.checkpoints()[0].step or 0
    assert 0 < reached < (whole.checkpoints()[0].step or 0)
    again = lab.run(lab.tuning(changes, epoch=2))
    assert f"at step {reached}" in again.log()
    assert lab.digests() == whole.digests(), "weights, optimizer and state"
    assert output(lab, "tokenizer").files == output(whole, "tokenizer").files
    state = json.loads(lab.blob(lab.checkpoints()[0], "state.json").read_text())
    assert state["config"]["model"]["vocab_size"] == output(lab, "tokenizer").meta["vocab_size"]


def test_each_row_is_written_down_with_its_provenance_and_why_it_was_not_learned(lab: TuningLab) -> None:
    contaminated = chat(1)
    contaminated["messages"][3]["content"] = (
        "Check if in given list of numbers, are any two numbers closer to each other than given threshold."
    )
    own = [{**chat(0), "licence": "CC0-1.0"}, chat(0), contaminated, {"messages": chat(2)["messages"][:1]}]
    long = chat(3)
    long["messages"][0]["content"] = "snow " * 400
    made = [
        {"id": "a", "fate": "kept", **chat(4), "source": "world", "licence": "MIT", "generator": "m", "is_llm": True},
        {"id": "b", "fate": "judge", **chat(5), "generator": "m", "is_llm": True},
        {"id": "c", "fate": "kept", "messages": [{"role": "tool", "tool_call_id": "x", "content": ""}], "is_llm": True},
        {"id": "d", "fate": "review", **chat(6), "generator": "m", "is_llm": True},
    ]
    spec = lab.tuning(
        {"data": {"sources": [lab.chats([*own, long])], "held_out_fraction": 0.0}, "schedule": {"epochs": 1.0}},
        inputs={"trajectories": lab.made("trajectories", made)},
    )
    lab.run(spec)
    rows = {row["id"]: row for row in examples(lab)}
    assert {name: row["fate"] for name, row in rows.items()} == {
        "trajectories/a": "kept", "trajectories/b": "judge", "trajectories/c": "unknown_call", "trajectories/d": "review",
        "chats.jsonl:1": "kept", "chats.jsonl:2": "duplicate", "chats.jsonl:3": "contaminated",
        "chats.jsonl:4": "no_answer", "chats.jsonl:5": "too_long",
    }  # fmt: skip
    assert (rows["chats.jsonl:1"]["licence"], rows["chats.jsonl:2"]["licence"]) == ("CC0-1.0", "the user's own")
    assert rows["chats.jsonl:3"]["evaluation_set"] == "humaneval"
    kept = rows["trajectories/a"]
    assert (kept["source"], kept["licence"], kept["generator"], kept["is_llm"]) == ("world", "MIT", "m", True)
    assert 0 < kept["learned_tokens"] < kept["tokens"]
    assert output(lab, "examples").meta["fates"]["kept"] == 2


BAD: dict[str, tuple[list[Any], str]] = {
    "a role of nobody": ([chat(0), {"messages": [{"role": "bot", "content": "x"}]}], r"chats\.jsonl:2: message 0 has the role 'bot'"),
    "no messages": ([{"text": "x"}], r"chats\.jsonl:1: there are no messages"),
    "a result without a call": (
        [{"messages": [{"role": "tool", "tool_call_id": "z", "content": ""}]}],
        r"chats\.jsonl:1: message 0 is the result of 'z', which no assistant has called",
    ),
    "nothing to learn from": ([{"messages": [{"role": "user", "content": "x"}]}], r"No conversation is left.*1 no_answer"),
    "two teachers": (
        [{**chat(0), "is_llm": True, "generator": "m"}, {**chat(1), "is_llm": False, "generator": "standin-rule-v1"}],
        r"does not belong into data whose manifest says teacher: llm",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "sentence"), BAD.values(), ids=list(BAD))
def test_bad_conversations_end_the_stage_with_a_sentence(lab: TuningLab, rows: list[Any], sentence: str) -> None:
    spec = lab.tuning({"data": {"sources": [lab.chats(rows)], "held_out_fraction": 0.0}})
    context = StageContext(spec, 0, 1, lab.root / "attempt", lab.store)
    stage = SftStage.model_validate(spec.config)
    alone = Ranks(0, 1, torch.device("cpu"))
    with pytest.raises(AbruzziError, match=sentence) as caught:
        FineTuning(context, Reporter.from_context(context), stage, alone, silent)
    assert exit_code_of(caught.value) in (ExitCode.BAD_DATA, ExitCode.USER_ERROR)


@pytest.mark.parametrize("parallel", [{"pp": 2}, {"ep": 2}])
def test_parallelism_that_fine_tuning_does_not_execute_is_refused_by_its_key(
    lab: TuningLab, parallel: dict[str, int]
) -> None:
    spec = lab.tuning({"parallel": parallel, "resources": {"pool": "h800", "ranks": 2}})
    stage = SftStage.model_validate(spec.config)
    (key,) = parallel
    with pytest.raises(AbruzziError, match=rf"parallel\.{key} = 2 is not executed by stages of kind sft") as refused:
        build_model(stage, Ranks(0, 2, torch.device("cpu")), {}, seed=0)
    assert refused.value.code == "invalid_config"
    assert exit_code_of(refused.value) == ExitCode.USER_ERROR


def test_environments_teach_their_answers_each_once_and_never_a_held_out_task(lab: TuningLab) -> None:
    taught = {"name": "arithmetic", "families": ["addition"], "conversations": 300}
    lab.run(lab.tuning({"data": {"gyms": [taught], "held_out_fraction": 0.0}, "schedule": {"epochs": 1.0}}))
    rows = examples(lab)
    assert 60 < len(rows) < 100, "of a hundred sums of two digits, less those that are held out"
    assert {row["fate"] for row in rows} == {"kept"}
    assert {(row["source"], row["generator"], row["is_llm"]) for row in rows} == {
        ("arithmetic@1", "arithmetic@1", False)
    }
    held_out = {task.id for task in gym("arithmetic").tasks(0, 10, split="held_out", family="addition")}
    assert not held_out & {row["id"].rpartition("/")[2] for row in rows}
