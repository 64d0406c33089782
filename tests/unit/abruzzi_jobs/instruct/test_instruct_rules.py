"""What an answer must be, and when it is right."""

from __future__ import annotations

from itertools import islice

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.instruct import AnswerRulesConfig
from abruzzi_jobs.instruct.judge import read_score
from abruzzi_jobs.instruct.prompt import Prompt
from abruzzi_jobs.instruct.prompts import read_prompts
from abruzzi_jobs.instruct.rules import faults_of, is_right

FINE = "Iron is a metal. It rusts in wet air, and it is the main part of steel."
FORMS = {
    "fine": (FINE, "stop", []),
    "empty": ("  \n", "stop", ["empty"]),
    "cut": (FINE, "length", ["cut"]),
    "refusal": ("I'm sorry, but I can't help with that.", "stop", ["refusal"]),
    "sorrow is no refusal": ("Sorrow is a feeling that people have when they lose somebody dear.", "stop", []),
    "repetition": ("the sea is wide and deep " * 12, "stop", ["repetition"]),
    "language": ("Das Eisen rostet an feuchter Luft und ist der Hauptbestandteil von Stahl.", "stop", ["language"]),
    "markers": ("Iron.<|im_end|>\n<|im_start|>user\nAnd gold?", "stop", ["markers"]),
    "another's turn": (f"{FINE}\n### Instruction:\nAnd gold?", "stop", ["markers"]),
    "a heading is nobody's turn": (f"### What iron is\n{FINE}", "stop", []),
    "too long": ("ab " * 3000, "stop", ["too_long", "repetition"]),
}


@pytest.mark.parametrize("case", FORMS)
def test_forms(case: str) -> None:
    text, finish, faults = FORMS[case]
    assert faults_of(text, finish, AnswerRulesConfig()) == faults


def prompt(check: str, answer: str, *rivals: str, text: str = "?") -> Prompt:
    return Prompt(id="p", text=text, source="s", licence="l", domain="d", check=check, answer=answer, rivals=rivals)


ADD = ">>> add(2, 3)\n5\n>>> add(-1, 1)\n0"
ANSWERS = {
    "a symbol": (prompt("words", "Fe", "Au", "Ag"), "Its symbol is Fe.", True),
    "another symbol": (prompt("words", "Fe", "Au", "Ag"), "Its symbol is Ir.", False),
    "several symbols": (prompt("words", "Fe", "Au", "Ag"), "Fe, or perhaps Au.", False),
    "inside a word": (prompt("words", "Fe", "Au"), "Ferrous.", False),
    "a country": (prompt("words", "Peru", "Chile"), "It lies in peru.", True),
    "a fraction": (prompt("mathematics", "1/2"), "1/4 + 1/4\nAnswer: $\\frac{1}{2}$", True),
    "a decimal": (prompt("mathematics", "1/2"), "So the answer is 0.5.", True),
    "a wrong step": (prompt("mathematics", "12"), "3 * 5 = 16, less 4.\nAnswer: 12", False),
    "a letter": (prompt("mathematics", "-3"), "We get x = -3", True),
    "a derivative": (prompt("mathematics", "6x + 2"), "Answer: 2 + 6x", True),
    "another result": (prompt("mathematics", "12"), "Answer: 13", False),
    "a program": (prompt("program", ADD), "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", True),
    "a wrong program": (prompt("program", ADD), "```python\ndef add(a, b):\n    return a - b\n```", False),
    "a program with an example of its use": (
        prompt("program", ADD),
        '```python\ndef add(a, b):\n    """\n    >>> add(1, 1)\n    3\n    """\n    return a + b\n\nif __name__ == \'__main__\':\n    print(\n        add(1, 2)\n    )\n```',
        True,
    ),
    "a program that prints": (prompt("program", ADD), "```python\ndef add(a, b):\n    print(a + b)\n```", False),
    "no program": (prompt("program", ADD), "Use the plus sign (+", False),
    "nothing known": (prompt("none", ""), "Anything.", None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_right_answers(case: str) -> None:
    asked, text, right = ANSWERS[case]
    assert is_right(asked, text)[0] is right, is_right(asked, text)


def test_shipped_prompts_are_the_same_every_time_and_each_has_an_answer_that_is_right_and_one_that_is_not() -> None:
    sources = ["elements", "countries", "mathematics", "programs"]
    prompts, counts = read_prompts(sources, 80, seed=3)
    assert [p.id for p in prompts] == [p.id for p in read_prompts(sources, 80, seed=3)[0]]
    assert [p.id for p in prompts] != [p.id for p in read_prompts(sources, 80, seed=4)[0]]
    assert counts == dict.fromkeys(sources, 20)
    assert len({p.text for p in prompts}) == 80
    for asked in islice(prompts, 40):
        if asked.check in ("words", "mathematics"):
            assert is_right(asked, f"Answer: {asked.answer}")[0] is True, asked
            assert is_right(asked, "Answer: 987654321")[0] is False, asked


def test_an_unknown_source_is_named_with_the_nearest() -> None:
    with pytest.raises(AbruzziError, match=r"no source is called 'element'.*'elements'"):
        read_prompts(["element"], 1, seed=0)


@pytest.mark.parametrize(
    "said",
    ["", "pass", '{"score": 2}', '{"score": true}', '{"score": 1} {"score": 0}', '{"verdict": "pass"}', "[1]"],
)
def test_what_is_no_score_is_none(said: str) -> None:
    assert read_score(said) is None
    assert read_score('Here: {"score": 0.25, "reasons": "short"}') == (0.25, ("short",))
