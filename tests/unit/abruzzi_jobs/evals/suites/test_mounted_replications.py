"""PaperBench's Code-Dev over a paper and a rubric of ours."""

from __future__ import annotations

import json

import pytest
from scripted_model import Scripted, played, said

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import ItemStatus, SuiteConfig
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, ToolCall
from abruzzi_jobs.evals.suites.registry import open_suite


def node(requirement, weight, *below, category="Code Development"):
    kind = {} if below else {"task_category": category}
    return {"id": requirement, "requirements": requirement, "weight": weight, "sub_tasks": list(below), **kind}


RUBRIC = node(
    "whole", 1,
    node("model", 3, node("layers", 1), node("norm", 2)),
    node("loss", 1),
    node("figures", 9, node("it runs", 1, category="Code Execution")),
)  # fmt: skip


def mounted(folder, rubric=RUBRIC, **options):
    row = {"id": "tiny", "paper": "We add numbers.", "addendum": "Twice.", "rubric": rubric}
    (folder / "paperbench.jsonl").write_text(json.dumps(row) + "\n")
    return open_suite("paperbench-code", SuiteConfig(path=str(folder), options=options))


class Judge:
    """Finds the requirements that the code names."""

    def __init__(self, nonsense=False):
        self.nonsense = nonsense

    async def complete(self, request: ChatRequest) -> ChatResponse:
        shown = request.messages[1]["content"]
        wanted = shown.partition("<requirement>\n")[2].partition("\n")[0]
        met = f"def {wanted}" in shown.partition("<code>")[2]
        return said("Well." if self.nonsense else f"Verdict: {'met' if met else 'unmet'}")


def scored(suite, judge, *answers):
    (item,) = suite.items()
    return played(suite, item, Scripted(*answers), judge=judge)[1]


def wrote(text):
    return said("", ToolCall("c", "edit", json.dumps({"path": "model.py", "old": "", "new": text})))


def test_leaves_that_ask_for_code_share_the_weight_of_their_branch(tmp_path):
    (item,) = mounted(tmp_path).items()
    assert item.gold == [["layers", 0.25], ["norm", 0.5], ["loss", 0.25]]
    assert item.meta["context"] == "Twice."


def test_all_that_the_rubric_asks_for_scores_one_and_nothing_zero(tmp_path):
    suite = mounted(tmp_path)
    whole = "def layers(): ...\ndef norm(): ...\ndef loss(): ...\n"
    assert scored(suite, Judge(), wrote(whole), said("Done.")).score == 1.0
    assert scored(suite, Judge(), said("I cannot.")).reason == "nothing was written"
    found = scored(suite, Judge(), wrote("def norm(): ...\n"), said("Done."))
    assert (found.score, found.parts["leaves"]) == (0.5, pytest.approx(1 / 3))
    assert scored(suite, Judge(nonsense=True), wrote(whole), said("Done.")).status is ItemStatus.GRADER_ERROR


def test_a_rubric_without_code_and_turns_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(AbruzziError, match="asks for no code"):
        list(mounted(tmp_path, node("it runs", 1, category="Code Execution")).items())
    with pytest.raises(AbruzziError, match="turns is 0"):
        mounted(tmp_path, turns=0)
