"""MinHash against exact Jaccard similarity: the estimate, the recall, and components that do not depend on any order."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.data.minhash import MinHash, merged
from abruzzi_jobs.data.shingles import shingles

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("", "n", "r", "st", "th", "ing")]


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def _changed(rng: random.Random, text: str, share: float) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())


def _sets(texts: list[str], words: int = 5) -> list[set[int]]:
    cut = shingles(texts, words=words)
    return [set(cut.hashes[a:b].tolist()) for a, b in zip(cut.starts[:-1], cut.starts[1:], strict=True)]


def _similar_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """Exact Jaccard similarity of every pair that reaches the threshold; pairs without a common shingle have 0."""
    sets = _sets(texts)
    holders: dict[int, list[int]] = defaultdict(list)
    for number, found in enumerate(sets):
        for shingle in found:
            holders[shingle].append(number)
    common = Counter(pair for group in holders.values() for pair in combinations(group, 2))
    jaccard = {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in common.items()}
    return {pair: s for pair, s in jaccard.items() if s >= threshold}


def test_shingles_are_the_runs_of_words_of_each_text() -> None:
    sets = _sets(["one two three four", "zero one two three four", "two", "", "…!", "two"], words=3)
    assert [len(s) for s in sets] == [2, 3, 1, 0, 0, 1]
    assert sets[0] < sets[1]
    assert sets[2] == sets[5]
    assert not sets[2] & sets[0]


@given(st.lists(st.text(alphabet="ab é漢1.\n", max_size=40), min_size=1, max_size=6), st.integers(1, 5))
def test_a_texts_shingles_do_not_depend_on_its_neighbours(texts: list[str], words: int) -> None:
    assert _sets(texts, words) == [_sets([text], words)[0] for text in texts]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The quick, brown fox!", "the QUICK brown  fox"),
        ("pages 12 to 34 of 5", "pages 98 to 76 of 5"),
        ("Crème brûlée à la carte", "creme brulee a la carte"),
        ("“Quoted” — and dashed…", "quoted and dashed"),
        ("٣ books", "7 books"),
    ],
)
def test_case_digits_punctuation_and_accents_make_no_difference(one: str, other: str) -> None:
    assert _sets([one], 2) == _sets([other], 2) != [set()]


def test_languages_without_spaces_are_cut_into_characters() -> None:
    first, second = _sets(["人人生而自由，在尊严和权利上一律平等", "人人生而自由在尊严和权利上一律平等。他们"], 5)
    assert len(first & second) / len(first | second) > 0.8


def test_signatures_estimate_jaccard_similarity() -> None:
    rng = random.Random(3)
    minhash = MinHash(bands=64, rows=8)
    errors = []
    for share in (0.0, 0.01, 0.03, 0.06, 0.12):
        for _ in range(20):
            text = _text(rng, 300)
            pair = [text, _changed(rng, text, share)]
            a, b = _sets(pair)
            one, other = minhash.signatures(pair)
            errors.append(float((one == other).mean()) - len(a & b) / len(a | b))
    # 512 minima: a standard error of 0.022 at most, a tenth of it for the mean of a hundred.
    assert abs(float(np.mean(errors))) < 0.008
    assert max(map(abs, errors)) < 0.1


def test_recall_against_brute_force_on_five_thousand_documents() -> None:
    rng = random.Random(5)
    texts = [_text(rng, rng.randint(40, 160)) for _ in range(2500)]
    while len(texts) < 5000:
        texts.append(_changed(rng, texts[rng.randrange(2500)], rng.choice([0.0, 0.005, 0.01, 0.02, 0.04, 0.3])))
    rng.shuffle(texts)
    minhash = MinHash()
    labels = minhash.components(minhash.signatures(texts))
    alike = _similar_pairs(texts, minhash.threshold)
    found = sum(labels[a] == labels[b] for a, b in alike)
    assert len(alike) > 1800
    assert found / len(alike) >= 0.99, f"{found} of {len(alike)} pairs"
    # What is joined is alike, by a chain of pairs at least.
    exact = merged(np.arange(5000), np.array(sorted(_similar_pairs(texts, 0.5))))
    joined = np.flatnonzero(labels != np.arange(5000))
    assert (exact[joined] == exact[labels[joined]]).all()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=14), st.randoms())
def test_components_are_named_by_their_smallest_member_in_any_order_of_pairs(
    pairs: list[tuple[int, int]], rng: random.Random
) -> None:
    groups = [{n} for n in range(12)]
    for a, b in pairs:
        joined = next(g for g in groups if a in g) | next(g for g in groups if b in g)
        groups = [g for g in groups if not g & joined] + [joined]
    expected = [min(next(g for g in groups if n in g)) for n in range(12)]
    shuffled = rng.sample(pairs, len(pairs))
    middle = len(pairs) // 2
    labels = np.arange(12)
    for part in (shuffled[:middle], shuffled[middle:]):
        labels = merged(labels, np.array(part, dtype=np.int64).reshape(-1, 2))
    assert labels.tolist() == expected


def test_a_thousand_copies_are_one_and_texts_without_words_none() -> None:
    texts = [
        *["the same notice on every page of this site, again"] * 1000,
        "",
        "…",
        "",
        "something else altogether here",
    ]
    minhash = MinHash()
    labels = minhash.components(minhash.signatures(texts))
    assert labels[:1000].tolist() == [0] * 1000
    assert labels[1000:].tolist() == [1000, 1001, 1002, 1003]


def test_signatures_are_the_same_everywhere() -> None:
    assert MinHash(bands=1, rows=4).signatures(["To be, or not to be: that is the question"]).tolist() == [
        [120781695, 1329714571, 812195375, 658046339]
    ]
