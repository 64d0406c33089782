"""Needles: where they are, that the oracle finds all and a perturbed one none, and the heat map of what was answered."""

from __future__ import annotations

from collections import Counter

import pytest
from evals_oracle import verdict, wrong
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi_jobs.data.needles import ASKED, NAMES, TOLD, WORDS, documents, haystack
from abruzzi_jobs.evals.suites.needle import cell_name, heat_map
from abruzzi_jobs.evals.suites.registry import open_suite


def suite(**options):
    return open_suite("needle", SuiteConfig(options=options))


@given(words=st.integers(40, 3000), depth=st.floats(0, 1), distractors=st.integers(0, 6), seed=st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_the_pair_is_told_once_at_its_depth_and_the_text_is_as_long_as_asked(
    words: int, depth: float, distractors: int, seed: str
) -> None:
    found = haystack(seed, words=words, depth=depth, distractors=distractors)
    told, asked = TOLD.format(found.key, found.value), ASKED.format(found.key)
    assert found.text.count(told) == 1
    assert found.text.endswith(f" {asked}")
    assert found.text.count(f" {found.value}") == 1
    assert 0 <= words + 4 - len(found.text.split()) < 7, "but for the question"
    sentences = found.text.removesuffix(f" {asked}").split(". ")
    place = next(i for i, s in enumerate(sentences) if told.rstrip(".") in s)
    assert place == round(depth * (len(sentences) - 1))
    assert len(found.others) == distractors
    assert all(found.text.count(f" {other}.") == 1 for other in found.others)
    assert found == haystack(seed, words=words, depth=depth, distractors=distractors)


def test_the_oracle_finds_every_needle_and_a_perturbed_one_none() -> None:
    whole = open_suite("needle")
    items = list(whole.items())
    assert Counter(item.subtask for item in items)[cell_name(16000, 0.25)] == 5
    assert wrong(whole, items) == []
    alone = suite(lengths=[50], distractors=0)
    assert wrong(alone, alone.items()) == []


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (" {gold}. The old miller saw", 1), ("{gold}", 1), ("The word is **{gold}**.", 1), ("{Gold}", 1), ("", 0),
        ("{other} {gold}", 0), ("{gold}s", 0), ("I do not know. {gold}", 0), ("{other}. {gold}", 0),
    ],
)  # fmt: skip
def test_the_first_sentence_must_name_the_word_and_no_other_pairs(said: str, score: int) -> None:
    found = suite(lengths=[60])
    item = next(found.items())
    answer = said.format(gold=item.gold, Gold=item.gold.capitalize(), other=item.meta["others"][0])
    assert verdict(found, item, answer).score == score


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"length": [500]}, "length"), ({"lengths": []}, "lengths"), ({"lengths": [10]}, "10 words: 4 pairs take 20"),
        ({"depths": [1.5]}, "depth 1.5"), ({"distractors": 32}, "distractors"),
    ],
)  # fmt: skip
def test_options_that_make_no_text_are_refused(options, named: str) -> None:
    with pytest.raises(AbruzziError, match="needle") as caught:
        list(suite(**options).items())
    assert named in caught.value.message


def test_a_heat_map_has_the_share_of_each_cell_and_the_tokens_of_each_length() -> None:
    def row(length: int, depth: float, score: float | None, tokens: int) -> dict[str, object]:
        return {"subtask": cell_name(length, depth), "score": score, "prompt_tokens": tokens}

    rows = [row(500, 0.5, 1.0, 600), row(500, 0.5, 0.0, 610), row(1000, 0.5, 1.0, 1200), row(500, 0.0, None, 0)]
    found = heat_map(
        iter([*rows, row(500, 1, 1.0, 620), {"subtask": "another suite's", "score": 1.0, "prompt_tokens": 1}])
    )
    assert (found["words"], found["tokens"], found["depths"]) == ([500, 1000], [610, 1200], [50, 100])
    assert found["right"] == [[0.5, 1.0], [1.0, None]]
    assert found["texts_a_cell"] == 1


def test_texts_to_learn_from_ask_only_for_what_they_have_told() -> None:
    for document in list(documents())[:200]:
        told: dict[str, str] = {}
        for sentence in document.text.removesuffix(".").split(". "):
            if sentence.startswith("Remember this pair: "):
                key, value, *again = sentence.split(" ")[3:]
                assert key not in told
                assert again in ([], [key, value])
                told[key] = value
            elif sentence.startswith("Complete this pair: "):
                key, value = sentence.split(" ")[3:]
                assert told[key] == value
        assert told
        assert document.text.rsplit(". ", 1)[-1].startswith("Complete")


def test_most_texts_to_learn_from_are_short_and_some_as_long_as_the_longest_rows() -> None:
    lengths = sorted(len(document.text.split()) for document in documents())
    assert lengths[0] >= 30
    assert lengths[round(0.9 * len(lengths))] <= 80
    assert lengths[round(0.99 * len(lengths))] > 700


def test_names_and_words_are_no_words_of_the_filler() -> None:
    assert len(set(NAMES)) == len(set(WORDS)) == 32
    filling = " ".join(haystack("0", words=20_000, depth=0.0, distractors=0).text.split(". ")[1:-1])
    assert not set(WORDS + NAMES) & set(filling.replace(".", "").split())
