"""Aider's polyglot benchmark over exercises of ours, in its owner's layout."""

from __future__ import annotations

import json

import pytest
from evals_oracle import wrong
from scripted_model import Scripted, played

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.evals.suites.mounted import programs
from abruzzi_jobs.evals.suites.registry import open_suite

WRITTEN = {
    "python": {
        "double.py": "def double(number):\n    pass\n",
        "double_test.py": "from double import double\n\n\ndef test_double():\n    assert double(4) == 8\n",
        ".meta/example.py": "def double(number):\n    return 2 * number\n",
    },
    "go": {
        "double.go": "package double\n\nfunc Double(n int) int {\n\tpanic(\"to do\")\n}\n",
        "double_test.go": 'package double\n\nimport "testing"\n\nfunc TestDouble(t *testing.T) {\n\tif Double(4) != 8 {\n\t\tt.Fatal("not 8")\n\t}\n}\n',
        "go.mod": "module double\n\ngo 1.18\n",
        ".meta/example.go": "package double\n\nfunc Double(n int) int {\n\treturn 2 * n\n}\n",
    },
    "java": {"Double.java": "class Double {}\n", ".meta/src/Example.java": "class Double {}\n"},
}  # fmt: skip


def mounted(folder, *languages, edits="whole", named=None, **more):
    for language in languages:
        place = folder / "polyglot-benchmark" / language / "exercises/practice/double"
        files = WRITTEN[language]
        for path, text in {**files, ".docs/instructions.md": "# Instructions\n\nDouble a number.\n"}.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
        solution = [next(iter(files))]
        config = {"files": {"solution": solution, "test": [], "example": [path for path in files if ".meta" in path]}}
        (place / ".meta/config.json").write_text(json.dumps(config))
    options = {"edits": edits, **({"languages": named} if named is not None else {}), **more}
    return open_suite("aider-polyglot", SuiteConfig(path=str(folder), options=options))


HERE = [
    "python",
    # Go compiles its library first.
    *([pytest.param("go", marks=pytest.mark.prove)] if programs.tool_in_box("go") else []),
]


@pytest.mark.parametrize("language", HERE)
def test_an_example_scores_one_and_the_stub_zero(tmp_path, language):
    suite = mounted(tmp_path, language)
    (item,) = suite.items()
    assert (item.id, item.subtask) == (f"{language}/double", language)
    assert wrong(suite, [item]) == []


def answered(suite, item, *answers):
    target = Scripted(*answers)
    return played(suite, item, target)[1], target.asked


def test_the_second_try_sees_what_the_tests_said_of_the_first(tmp_path):
    suite = mounted(tmp_path, "python", edits="diff")
    (item,) = suite.items()
    block = "double.py\n```python\n<<<<<<< SEARCH\n    {}\n=======\n    {}\n>>>>>>> REPLACE\n```"
    found, asked = answered(
        suite, item, block.format("pass", "return 3 * number"), block.format("return 3 * number", "return 2 * number")
    )
    assert (found.score, found.parts) == (1.0, {"first_try": 0.0, "well_formed": 1.0})
    assert "assert 12 == 8" in asked[1].messages[-1]["content"]
    assert "<<<<<<< SEARCH" in asked[0].messages[-1]["content"]


def test_a_first_try_that_is_right_is_the_last_and_two_that_are_not_score_zero(tmp_path):
    suite = mounted(tmp_path, "python")
    (item,) = suite.items()
    found, asked = answered(suite, item, suite.gold_answer(item))
    assert (found.parts["first_try"], len(asked)) == (1.0, 1)
    tests = "double_test.py\n```python\ndef test_double():\n    pass\n```"
    found, asked = answered(suite, item, tests + "\n" + suite.perturbed_answer(item), "I cannot.")
    assert (found.score, found.parts["well_formed"], len(asked)) == (0.0, 0.0, 2)


def test_a_language_that_no_box_can_run_is_told_and_may_be_left_out(tmp_path):
    with pytest.raises(AbruzziError, match="language 'java' cannot be run in a box without a network") as told:
        mounted(tmp_path, "java", "python")
    assert told.value.code == "no_tool"
    assert [item.id for item in mounted(tmp_path, "java", "python", named=["python"]).items()] == ["python/double"]
    suite = mounted(tmp_path, "java", "python", lacking="leave-out")
    assert [item.id for item in suite.items()] == ["python/double"]
    assert suite.left_out == ("java (cannot be run in a box without a network; there are cpp, go, python, rust)",)
    with pytest.raises(AbruzziError, match="edits is not 'patch'"):
        mounted(tmp_path, "python", edits="patch", named=["python"])


def test_an_exercise_without_its_settings_is_malformed(tmp_path):
    suite = mounted(tmp_path, "python")
    (tmp_path / "polyglot-benchmark/python/exercises/practice/double/.meta/config.json").write_text("{}")
    with pytest.raises(AbruzziError, match="the exercise is malformed"):
        list(suite.items())
