"""SWE-bench's format over four instances from releases of two small libraries (tests/swe_instances)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from evals_oracle import verdict, wrong
from scripted_model import Scripted, played, said

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.chat.request import ToolCall
from abruzzi_jobs.evals.suites.mounted import edits, repairs, reports
from abruzzi_jobs.evals.suites.registry import open_suite

INSTANCES = Path(__file__).parents[4] / "swe_instances"
HYPHEN, BLANKS = "r1chardj0n3s__parse-1.20.2", "martinblech__xmltodict-0.14.2"
FIX = "strip_whitespace and data:", "strip_whitespace and data and item:"


def opened(name="swe-verified-agentless", *ids, path=INSTANCES, **options):
    return open_suite(
        name, SuiteConfig(path=str(path), options={**options, **({"instances": list(ids)} if ids else {})})
    )


def answered(suite, item, *answers):
    target = Scripted(*answers)
    return *played(suite, item, target), target.asked


def test_the_right_patches_of_four_releases_score_one_and_an_idle_one_zero():
    suite = opened()
    items = list(suite.items())
    assert len(items) == 4
    assert wrong(suite, items) == []


def test_an_idle_patch_fails_what_failed_before_and_nothing_else():
    suite = opened("swe-verified-agentless", BLANKS)
    (item,) = suite.items()
    found = verdict(suite, item, suite.perturbed_answer(item))
    assert found.parts == {"applied": 1.0, "failing_now_pass": 0.0, "passing_still_pass": 1.0}
    assert verdict(suite, item, "").reason == "no patch"
    broken = suite.gold_answer(item).replace("strip_whitespace", "strip_nothing")
    assert verdict(suite, item, broken).reason == "the patch does not apply"


def test_a_patch_of_the_tests_does_not_help_as_they_are_put_back():
    suite = opened("swe-verified-agentless", BLANKS)
    (item,) = suite.items()
    said = "tests/test_xmltodict.py\n<<<<<<< SEARCH\n        self.assertEqual(parse(xml), dict(root=' '))\n=======\n        pass\n>>>>>>> REPLACE\n"
    found = verdict(suite, item, said)
    assert (found.score, found.parts["applied"], found.parts["failing_now_pass"]) == (0.0, 1.0, 0.0)


def test_a_patch_that_keeps_the_tests_from_applying_scores_zero_and_is_not_asked_again(monkeypatch):
    suite = opened("swe-verified-agentless", BLANKS)
    (item,) = suite.items()
    applies, tried = repairs.applies, []

    def after_the_answer(patch, workspace):
        tried.append(workspace)
        return patch != item.meta["tests"] or (workspace is not tried[0] and applies(patch, workspace))

    monkeypatch.setattr(repairs, "applies", after_the_answer)
    found = verdict(suite, item, suite.gold_answer(item))
    assert (found.score, found.reason) == (0.0, "the patch keeps the tests from applying")


def test_tests_that_never_apply_are_no_answers_fault():
    suite = opened("swe-verified-agentless", BLANKS)
    (item,) = suite.items()
    item = item.model_copy(update={"meta": {**item.meta, "tests": item.meta["tests"].replace("assert", "never was")}})
    with pytest.raises(AbruzziError, match="do not apply") as told:
        verdict(suite, item, suite.gold_answer(item))
    assert told.value.code == "bad_data"


def test_single_shot_names_files_sees_them_and_edits_by_search_and_replace():
    suite = opened("swe-verified-agentless", BLANKS)
    (item,) = suite.items()
    right, faulty = FIX
    edit = f"xmltodict.py\n```\n<<<<<<< SEARCH\n            if self.{faulty}\n=======\n            if self.{right}\n>>>>>>> REPLACE\n```"
    transcript, found, asked = answered(suite, item, said("- `xmltodict.py`\n../etc/passwd"), said(edit))
    assert (found.score, len(asked), len(transcript.messages)) == (1.0, 2, 4)
    assert "tests/test_xmltodict.py" in asked[0].messages[-1]["content"]
    assert "class _DictSAXHandler" in asked[1].messages[-1]["content"]
    assert "passwd" not in asked[1].messages[-1]["content"]
    assert suite.settings.max_tokens == 16384


def test_the_files_of_the_right_patch_may_be_given():
    suite = opened("swe-verified-agentless", BLANKS, files="gold")
    (item,) = suite.items()
    _, found, asked = answered(suite, item, said("I cannot."))
    assert (found.score, found.reason, len(asked)) == (0.0, "no patch", 1)
    assert "class _DictSAXHandler" in asked[0].messages[-1]["content"]


def test_with_tools_the_state_of_the_repository_is_the_answer():
    suite = opened("swe-verified", BLANKS)
    (item,) = suite.items()
    right, faulty = FIX
    call = ToolCall("c1", "edit", json.dumps({"path": "xmltodict.py", "old": faulty, "new": right}))
    look = ToolCall("c2", "shell", json.dumps({"command": "python3 -m pytest --version; git commit -qam mended; ls"}))
    transcript, found, asked = answered(suite, item, said("", call), said("", look), said("It is mended."))
    assert found.score == 1.0, found.reason
    assert transcript.state.startswith("diff --git a/xmltodict.py")
    assert {tool["function"]["name"] for tool in asked[0].tools} == {"shell", "edit"}
    assert suite.settings.tools


def test_a_session_that_does_nothing_or_never_ends_scores_zero():
    suite = opened("swe-verified", BLANKS, turns=2)
    (item,) = suite.items()
    again = said("", ToolCall("c", "shell", "{}"))
    for answers in ((said("Done."),), (again, again)):
        assert answered(suite, item, *answers)[1].reason == "no patch"


def test_an_instance_without_its_repository_says_where_its_image_would_be_a_pod(tmp_path):
    row = json.loads((INSTANCES / "swe_bench_verified.jsonl").read_text().splitlines()[0])
    (tmp_path / "swe_bench_verified.jsonl").write_text(json.dumps({**row, "image": "registry.example/eval:1"}) + "\n")
    with pytest.raises(AbruzziError, match=r"snapshots/.*Its image registry.example/eval:1 is a pod of its own"):
        list(opened(path=tmp_path).items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"FAIL_TO_PASS": "[]"}, "no test of it fails before"),
        ({"FAIL_TO_PASS": '["test_a (m.C)"]'}, "not pytest's"),
        ({"instance_id": "../x"}, "no name of a file"),
        ({"log_parser": "maven"}, "log_parser is 'maven'"),
    ],
)
def test_a_malformed_row_is_told(tmp_path, change, told):
    row = json.loads((INSTANCES / "swe_bench_verified.jsonl").read_text().splitlines()[0])
    (tmp_path / "swe_bench_verified.jsonl").write_text(json.dumps({**row, **change}) + "\n")
    with pytest.raises(AbruzziError, match=told):
        list(opened(path=tmp_path).items())


@pytest.mark.parametrize("options", [{"files": "all"}, {"python": "/no/python"}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(AbruzziError) as told:
        opened(**options)
    assert told.value.code == "bad_options"


def test_multi_swe_bench_has_names_of_its_own_and_says_how_its_tests_are_run(tmp_path):
    row = json.loads((INSTANCES / "swe_bench_verified.jsonl").read_text().splitlines()[2])
    theirs = {
        "instance_id": row["instance_id"], "repo": "xmltodict", "fix_patch": row["patch"], "test_patch": row["test_patch"],
        "resolved_issues": [{"title": "Blanks", "body": row["problem_statement"]}],
        "n2p_tests": {}, "s2p_tests": {}, "p2p_tests": {}, "test_cmd": "python3 -m unittest -v tests.test_xmltodict", "log_parser": "unittest",
    }  # fmt: skip
    name = "test_keep_whitespace"
    theirs["f2p_tests"] = {f"{name} (tests.test_xmltodict.XMLToDictTestCase.{name})": {}}
    (tmp_path / "multi_swe_bench.jsonl").write_text(json.dumps(theirs) + "\n")
    (tmp_path / "snapshots").mkdir()
    shutil.copy(INSTANCES / "snapshots" / f"{BLANKS}.tar.gz", tmp_path / "snapshots")
    suite = opened("multi-swe-bench", path=tmp_path)
    (item,) = suite.items()
    assert item.prompt.startswith("Blanks\n\nElements with nothing but blanks")
    assert wrong(suite, [item]) == []


def test_what_runners_print_is_read_as_names_and_whether_they_passed():
    pytest_ = "PASSED t.py::test_a[x - y]\nFAILED t.py::test_b - assert 1 == 2\nXFAIL t.py::test_c\nPASSED t.py::test_d[a b]\n"
    found = reports.outcomes(pytest_, "pytest")
    assert found == {
        "t.py::test_a[x - y]": True,
        "t.py::test_b": False,
        "t.py::test_c": True,
        "t.py::test_d[a b]": True,
    }
    assert reports.passes("t.py::test_d[a", found)
    assert not reports.passes("t.py::test_e", found)
    assert reports.outcomes("=== RUN T\n    --- PASS: T/one (0.00s)\n--- FAIL: U (0.1s)\n", "go") == {
        "T/one": True,
        "U": False,
    }
    assert reports.outcomes("test a::b ... ok\ntest c ... FAILED\n", "cargo") == {"a::b": True, "c": False}


def test_edits_say_where_they_fit_nowhere():
    files = {"a.py": "x = 1\n"}
    block = "### b.py\n<<<<<<< SEARCH\n=======\ny = 2\n>>>>>>> REPLACE\n`a.py`\n```python\n<<<<<<< SEARCH\nx = 1\n=======\nx = 3\n>>>>>>> REPLACE\n```"
    assert edits.edited(edits.edits_of(block), files.get) == {"b.py": "y = 2\n", "a.py": "x = 3\n"}
    for old, path, told in (("z\n", "a.py", "does not stand in a.py"), ("z\n", "c.py", "no file 'c.py'")):
        with pytest.raises(ValueError, match=told):
            edits.edited([edits.Edit(path, old, "")], files.get)
