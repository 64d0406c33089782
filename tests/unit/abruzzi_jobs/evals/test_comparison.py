"""Arms compared over seeds: the table and the picture to the letter, and what is refused because figures would say nothing.

Golden files are written anew by `ABRUZZI_UPDATE_GOLDEN=1 .venv/bin/pytest tests/unit/abruzzi_jobs/evals/test_comparison.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.comparison.arms import Arm, compare
from abruzzi_jobs.evals.comparison.picture import svg
from abruzzi_jobs.evals.comparison.table import markdown, teachers

GOLDEN = Path(__file__).parent / "golden"
WORDS = {"title": "Arms <compared>", "published": "somebody's"}
STANDIN = {
    "teacher": "standin",
    "generators": ["standin-rule-v1"],
    "rewrites": {"kept": 95, "copy": 4, "number": 1},
    "documents": {"rewritten": 96, "rejected": 4, "raw": 4},
}


def report(chosen: float, answered: float | None, *, tokens: int = 1000, items: int = 200) -> dict[str, Any]:
    cloze: dict[str, Any] = {
        "items": items,
        "chance": 0.25,
        "accuracy": {"value": chosen},
        "relations": {"r": {"items": items}},
    }
    if answered is not None:
        cloze["answered"] = {"items": items, "accuracy": {"value": answered}}
    return {"tokens": tokens, "cloze": cloze}


def arms(**changes: Any) -> list[Arm]:
    raw = {str(n): report(value, 0.05 + n / 100) for n, value in enumerate((0.45, 0.46, 0.44))}
    ten = {str(n): report(value, 0.01) for n, value in enumerate((0.52, 0.55, 0.53))}
    return [
        Arm(key="raw", label="raw text, 10 epochs", reference=23.76, reports=raw, train_tokens=100),
        Arm(key="ten", label="10 rewrites, 1 epoch", reference=28.94, reports=ten, train_tokens=1050, rephrase=STANDIN),
    ]


@pytest.mark.parametrize("kind", ["md", "svg"])
def test_table_and_picture_are_what_they_were(kind: str) -> None:
    comparison = compare(arms())
    made = {"md": markdown, "svg": svg}[kind](comparison, **WORDS)
    path = GOLDEN / f"comparison.{kind}"
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8")


def test_the_picture_is_well_formed_whatever_the_labels_are() -> None:
    odd = [Arm(key=a.key, label=f"<{a.label}> & more", reports=a.reports) for a in arms()]
    root = ElementTree.fromstring(svg(compare(odd), **WORDS))
    texts = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<raw text," in texts
    assert not [text for text in texts if "somebody's" in text], "no published figures, no panel of them"


def test_rules_never_pass_for_a_language_model() -> None:
    comparison = compare(arms())
    assert "STAND-IN" in teachers(comparison)
    assert "STAND-IN" in markdown(comparison, **WORDS)
    assert "STAND-IN" in svg(comparison, **WORDS)
    real = {**STANDIN, "teacher": "llm", "generators": ["smollm2-135m-instruct"]}
    by_model = [Arm(key=a.key, label=a.label, reports=a.reports, rephrase=a.rephrase and real) for a in arms()]
    assert teachers(compare(by_model)) == "smollm2-135m-instruct"


def test_differences_are_of_means_over_seeds_and_one_seed_says_nothing() -> None:
    first, second = compare(arms())["differences"]
    assert (first["measure"], first["of"], first["over"]) == ("chosen", "ten", "raw")
    assert first["value"] == pytest.approx(100 * (0.5333333 - 0.45), abs=1e-4)
    assert 0 < first["low"] < first["value"] < first["high"]
    assert second["measure"] == "answered"
    lone = [Arm(key=a.key, label=a.label, reports={"0": a.reports["0"]}) for a in arms()]
    comparison = compare(lone)
    assert comparison["differences"][0]["low"] is None
    assert "cannot be said with one seed" in markdown(comparison, **WORDS)


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (report(0.5, 0.1, tokens=2000), "unequally many tokens"),
        (report(0.5, 0.1, items=100), "not asked the same questions"),
        ({"tokens": 1000, "cloze": None}, "has no questions"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(spoiled: dict[str, Any], words: str) -> None:
    raw, ten = arms()
    with pytest.raises(AbruzziError, match=words):
        compare([raw, Arm(key="ten", label=ten.label, reports={**ten.reports, "2": spoiled})])


def test_an_arm_without_reports_is_named() -> None:
    with pytest.raises(AbruzziError, match="The arm 'ten' has no report"):
        compare([arms()[0], Arm(key="ten", label="ten")])
