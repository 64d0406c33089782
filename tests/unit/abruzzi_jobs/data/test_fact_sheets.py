"""Fact sheets: what is asked was told, in a form that no text has, neither theirs nor the stand-in's rewrites of them."""

from __future__ import annotations

import random
import re

from abruzzi_jobs.chat.servers.statements import reordered, restated
from abruzzi_jobs.data.cloze import make_items
from abruzzi_jobs.data.fact_sheets import ASKED, SHEET_WORDINGS, TOLD, first_sheets, other_sheets, sheets

SENTENCE = re.compile(r"(?<=\.)\s+")


def rewritten(text: str, seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(restated(s, rng) or s for s in reordered(SENTENCE.split(text), rng))


def test_the_two_parts_share_no_subject_and_no_question() -> None:
    first, others = list(first_sheets()), list(other_sheets())
    assert first + others == sheets()
    assert len(first) == 120
    asked = [{item.id for item in make_items(f for d in part for f in d.facts)} for part in (first, others)]
    told = [{f"{f.relation}/{f.subject}" for d in part for f in d.facts} for part in (first, others)]
    assert not told[0] & told[1]
    assert len(told[0] - asked[0]) < 5, "nearly every fact is asked: few subjects have two answers"


def test_no_text_and_no_rewrite_has_a_form_that_is_asked() -> None:
    documents = sheets()
    texts = [d.text for d in documents] + [rewritten(d.text, seed) for d in documents for seed in range(5)]
    everything = "\n".join(texts)
    for _, asked in SHEET_WORDINGS.values():
        before, after = asked.split("{}")
        assert before not in everything
        assert after not in everything
    items = make_items(f for d in documents for f in d.facts)
    assert len(items) > 1500
    assert {i.prompt for i in items} <= {
        SHEET_WORDINGS[i.relation][ASKED].format(i.id.partition("/")[2]) for i in items
    }
    assert not [i for i in items if i.prompt in everything]


def test_rewrites_of_sheets_keep_every_fact_and_few_of_the_sentences() -> None:
    kept = total = 0
    for document in sheets()[:60]:
        for seed in range(3):
            text = rewritten(document.text, seed)
            sentences = SENTENCE.split(text)
            for fact in document.facts:
                assert [s for s in sentences if fact.subject in s and fact.answer in s], (fact, text)
                kept += f"{SHEET_WORDINGS[fact.relation][TOLD].format(fact.subject)} {fact.answer}." in sentences
                total += 1
    assert kept < 0.15 * total


def test_texts_whose_sentences_lean_on_each_other_keep_their_order() -> None:
    rng = random.Random(0)
    story = ["The symbol of Iron is Fe.", "It is old.", "The symbol of Gold is Au.", "The symbol of Tin is Sn."]
    assert reordered(story, rng) == story
    assert restated("It is old.", rng) is None
    lists = [story[0], story[2], story[3], "Bavaria is a part of Germany."]
    assert {tuple(reordered(lists, random.Random(seed))[1:]) for seed in range(40)} > {tuple(lists[1:])}
