"""The rules: an honest paraphrase passes, each kind of fault is found and shown where it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.rephrase.fidelity.fault import Fault
from abruzzi_jobs.rephrase.fidelity.translation import translation_faults
from abruzzi_jobs.rephrase.fidelity.verifier import Verifier
from abruzzi_jobs.rephrase.fidelity.words import alike, parse

SOURCE = (
    "Chlorine is a poisonous gas. Karl Scheele discovered it in 1774, but he did not see that it is an element. Humphry Davy confirmed that in "
    "1810. About 1,000 compounds of chlorine occur in nature. It reacts with most elements."
)
HONEST = (
    "Chlorine, a gas, is poisonous. It was discovered in 1774 by Karl Scheele, who failed to see that it is an element; this was confirmed by "
    "Humphry Davy in 1810. One finds 1000 or so chlorine compounds in nature. Most elements react with it."
)
CONFIG = FidelityConfig()


def check(source: str, text: str, context: str = "") -> list[Fault]:
    return Verifier(CONFIG).cheap(source, text, context=context or source)


FAULTY = {
    "a number that is gone": ("in 1774 ", "", "number", None),
    "a number that is changed": ("1810", "1812", "number", "1812"),
    "numbers exchanged": ("1774 by Karl", "1810 by Karl", "number", None),
    "a number blurred": ("1000 or so", "several", "number", None),
    "a name that is gone": ("Humphry Davy", "somebody", "entity", None),
    "another name": ("Karl Scheele", "Louis Vauquelin", "entity", "Louis"),
    "a denial more": ("is poisonous", "is not poisonous", "negation", "not"),
    "a denial less": ("failed to see", "saw", "negation", None),
    "a claim more": ("Most elements", "A museum in Stockholm shows the bottle. Most elements", "entity", "Stockholm"),
    "a claim without names": ("Most elements", "Doctors recommend it against headaches. Most elements", "claim", "Doctors recommend it against headaches."),
    "a clause more": ("react with it.", "react with it, which customers appreciate very much.", "claim", "which customers appreciate very much"),
}  # fmt: skip


def test_an_honest_paraphrase_passes() -> None:
    assert check(SOURCE, HONEST) == []


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_found_and_shown(name: str) -> None:
    old, new, kind, shown = FAULTY[name]
    text = HONEST.replace(old, new, 1)
    assert text != HONEST
    faults = check(SOURCE, text)
    assert kind in [f.kind.value for f in faults], faults
    if shown is not None:
        spans = [text[slice(*f.text_span)] for f in faults if f.kind.value == kind and f.text_span]
        assert shown in spans, faults


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SOURCE, "copy"),
        (" ".join([HONEST] * 3), "length"),
        ("Chlorine is a gas.", "length"),
        (
            "Bees build hives of wax. They dance to tell one another where flowers bloom, and winter kills the drones.",
            "likeness",
        ),
    ],
)
def test_what_is_no_rewrite_at_all_is_told_as_such(text: str, kind: str) -> None:
    assert kind in [f.kind.value for f in check(SOURCE, text)]


def test_a_name_of_the_rest_of_the_document_may_take_a_pronouns_place() -> None:
    source = "He discovered it in 1774. It reacts with most elements, and it is poisonous to people."
    text = "In 1774 Scheele discovered it. Most elements react with it, and people are poisoned by it."
    assert "entity" in [f.kind.value for f in check(source, text)]
    assert check(source, text, context=f"Karl Scheele was a chemist. {source}") == []


@given(st.text(max_size=200), st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_two_texts_can_be_compared_and_spans_lie_within_them(source: str, text: str) -> None:
    for fault in check(source, text):
        for span, whole in ((fault.source_span, source), (fault.text_span, text)):
            assert span is None or 0 <= span[0] <= span[1] <= len(whole)


FORMS = st.text("abc", min_size=1, max_size=9)


@given(words=st.lists(FORMS, min_size=1, max_size=30), key=FORMS)
@settings(max_examples=200, deadline=None)
def test_a_text_has_a_form_of_a_word_where_one_of_its_words_is_alike(words: list[str], key: str) -> None:
    text = parse(" ".join(words))
    assert text.has_form_of(key) == any(alike(key, other) for other in text.lemmas)


def test_forms_are_found_by_their_beginning() -> None:
    text = parse("The chlorides react.")
    assert [text.has_form_of(key) for key in ("chloride", "reacting", "real", "acts")] == [True, True, False, False]


SPANISH = "Halla la suma de 12 y 30. La ecuación $x + 12 = 42$ tiene la solución x = 30. Respuesta: 42"
ENGLISH = "Find the sum of 12 and 30. The equation $x + 12 = 42$ has the solution x = 30. Answer: 42"


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("of 12", "of 13", "number"),
        ("$x + 12 = 42$", "$x - 12 = 42$", "answer"),
        ("Answer: 42", "Answer: 30", "answer"),
        (ENGLISH, SPANISH, "language"),
        ("Find the sum of 12 and 30. ", "", "number"),
    ],
)
def test_a_translation_keeps_numbers_formulas_and_the_answer(old: str, new: str, kind: str) -> None:
    assert translation_faults(SPANISH, ENGLISH, CONFIG) == []
    assert kind in [f.kind.value for f in translation_faults(SPANISH, ENGLISH.replace(old, new), CONFIG)]
