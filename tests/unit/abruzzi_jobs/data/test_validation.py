"""Validators: right things pass, wrong ones are named, and nothing runs outside of a sandbox."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.documents import Fact
from abruzzi_jobs.data.validation import programs
from abruzzi_jobs.data.validation.knowledge import disagreements, facts_stated, names, numbers
from abruzzi_jobs.data.validation.mathematics import answers_agree, wrong_equations
from abruzzi_jobs.data.validation.programs import compiles, examine

DOUBLE = '''
def double(x):
    """Twice as much.

    >>> double(2)
    {result}
    """
    {body}
    return 2 * x
'''


def test_programs_that_do_not_compile_are_found() -> None:
    assert compiles("x = 1\n\n\ndef f():\n    return '\\d'\n")
    assert not compiles("def f(:\n    pass\n")
    assert not compiles("print 'two'\n")
    assert not compiles("x = " + "(" * 500)
    assert not compiles("x\0y")


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("passed", DOUBLE.format(result=4, body="pass")),
        ("failed", DOUBLE.format(result=5, body="pass")),
        ("failed", DOUBLE.format(result=4, body="raise ValueError")),
        ("failed", DOUBLE.format(result=4, body="import os; os._exit(0)")),
        ("failed", "raise SystemExit\n" + DOUBLE.format(result=4, body="pass")),
        ("not_runnable", "from .sibling import thing\n" + DOUBLE.format(result=4, body="pass")),
        ("no_examples", "x = 1\n"),
        ("no_examples", "x = '>>> 1'\n"),
    ],
)
def test_examples_in_docstrings_are_run(verdict: str, text: str) -> None:
    assert examine(text) == verdict


def test_a_program_that_never_ends_is_stopped() -> None:
    assert examine(DOUBLE.format(result=4, body="while True: pass"), cpu_seconds=1) == "timed_out"


def test_a_program_reaches_no_network_and_none_of_our_files(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    reach = f"""
    >>> import socket
    >>> socket.create_connection(("192.0.2.1", 80), 1)
    Traceback (most recent call last):
        ...
    OSError: [Errno 101] Network is unreachable
    >>> open({str(secret)!r})
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: {str(secret)!r}
    """
    assert examine(f'"""{reach}"""\n') == "passed"


def test_without_a_sandbox_the_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    programs.refuse_without_sandbox()
    monkeypatch.setattr(programs, "isolators", lambda: ())
    with pytest.raises(AbruzziError, match="cannot hold one") as error:
        programs.refuse_without_sandbox()
    assert error.value.code == "no_sandbox"
    assert 'python = "compile"' in (error.value.hint or "")


@pytest.mark.parametrize(
    ("expected", "found", "agree"),
    [
        ("1/2", r"$\frac{1}{2}$", True),
        ("$2\\sqrt{3}$", "$\\sqrt{12}$", True),
        ("42", "The answer is $\\boxed{42}$.", True),
        ("$x^2-1$", "$(x-1)(x+1)$", True),
        ("1/2", "0.25", False),
        ("42", "forty-one", False),
        ("$x^2-1$", "$x^2+1$", False),
    ],
)
def test_answers_are_compared_as_mathematics(expected: str, found: str, agree: bool) -> None:
    assert answers_agree(expected, found) is agree


@pytest.mark.parametrize(
    "text",
    [
        "12 * 7 = 84",
        "Then 3 + 4*5 = 23, and 10 / 4 = 2.5.",
        "22/7 = 3.14 to two places",
        "1 - 2 = -1 and 1/2 + 1/3 = 5/6 = 0.8333",
        "1,000 × 3 = 3,000",
        "x2 + 3 = 9, f(2) + 1 = 4 and 2^3 + 1 = 9",
        "a*3 + 4 = 5; (1 + 2) * 3 = 9; 7 % 3 = 1",
        "5 / 0 = 1 is nonsense, but nothing that is computed",
        "n = 5, on 2020-01-02 = then",
    ],
)
def test_what_is_right_or_not_plain_arithmetic_is_left_alone(text: str) -> None:
    assert wrong_equations(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("as 12 * 7 = 85, we", ["12 * 7 = 85"]),
        ("2 + 2 = 5.", ["2 + 2 = 5"]),
        ("so 10 - 4 = 6 = 2 * 4", ["10 - 4 = 6 = 2 * 4"]),
        ("22 / 7 = 3.15", ["22 / 7 = 3.15"]),
    ],
)
def test_wrong_arithmetic_is_quoted(text: str, wrong: list[str]) -> None:
    assert wrong_equations(text) == wrong


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from("+-*"), st.integers(-3, 3))
def test_sums_and_products_are_wrong_just_when_they_are(a: int, b: int, operator: str, off: int) -> None:
    right = {"+": a + b, "-": a - b, "*": a * b}[operator]
    assert bool(wrong_equations(f"We get {a} {operator} {b} = {right + off}.")) == bool(off)


REFERENCE = (
    "Jon Postel edited the RFC series from 1969 to 1998. At the University of Southern California he published 2,400 documents, "
    "three of them alone. The series is kept by the Internet Society."
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (REFERENCE, set()),
        (
            "From 1969 until 1998 the RFC series had Jon Postel as its editor. The Internet Society keeps it. He published 2400 "
            "documents (3 alone) at the University of Southern California.",
            set(),
        ),
        (REFERENCE.replace("1998", "1999"), {("missing_number", "1998"), ("added_number", "1999")}),
        (REFERENCE.replace(" to 1998", ""), {("missing_number", "1998")}),
        (REFERENCE.replace("Postel", "Crocker"), {("missing_name", "Jon Postel"), ("added_name", "Jon Crocker")}),
        (REFERENCE + " His friend Vint Cerf wrote about him.", {("added_name", "Vint Cerf")}),
    ],
)
def test_what_a_retelling_loses_and_adds_is_named(text: str, found: set[tuple[str, str]]) -> None:
    assert {(d.kind, d.what) for d in disagreements(REFERENCE, text)} == found


def test_numbers_and_names() -> None:
    assert numbers("1,000 and 1000.0, −3.50, 2nd, x86, v1.2.3") >= {Decimal(1000), Decimal("-3.5")}
    assert names("The water rose. Marie Curie left Paris for the Isle of Man; the McDonald house stood.") == {
        "Marie Curie",
        "Paris",
        "Isle of Man",
        "McDonald",
    }


def test_facts_that_a_text_does_not_state() -> None:
    iron = Fact(relation="element.symbol", subject="Iron", answer="Fe", wording=0)
    gold = Fact(relation="element.symbol", subject="Gold", answer="Au", wording=0)
    assert facts_stated("The symbol of iron is Fe.", [iron, gold]) == [gold]
