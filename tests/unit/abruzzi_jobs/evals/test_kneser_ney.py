"""The n-gram model is exact: it sums to one and equals a slow model written straight from the formula."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.evals import kneser_ney
from abruzzi_jobs.evals.kneser_ney import KneserNeyBytes

TEXT = st.lists(st.binary(min_size=1, max_size=60).map(lambda b: bytes(97 + c % 5 for c in b)), min_size=1, max_size=6)


class SlowKneserNey:
    """Dictionaries and recursion; no array in sight."""

    def __init__(self, documents: list[bytes], order: int) -> None:
        self.order = order
        self.tables: dict[int, Counter[bytes]] = {order: Counter()}
        for document in documents:
            padded = b"\0" * (order - 1) + document
            for end in range(order, len(padded) + 1):
                self.tables[order][padded[end - order : end]] += 1
        for k in range(order - 1, 0, -1):
            self.tables[k] = Counter(gram[1:] for gram in self.tables[k + 1])
        self.discounts = {k: self._discount(Counter(table.values())) for k, table in self.tables.items()}
        self.followers: dict[bytes, list[int]] = defaultdict(list)
        for table in self.tables.values():
            for gram, count in table.items():
                self.followers[bytes([len(gram)]) + gram[:-1]].append(count)

    @staticmethod
    def _discount(n: Counter[int]) -> list[float]:
        if all(n[i] for i in (1, 2, 3, 4)):
            y = n[1] / (n[1] + 2 * n[2])
            d = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if all(0 < x < i for i, x in zip((1, 2, 3), d, strict=True)):
                return [0.0, *d]
        single = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
        return [0.0, single, single, single]

    def p(self, context: bytes, byte: int, k: int | None = None) -> float:
        k = self.order if k is None else k
        if k == 0:
            return 1 / 256
        h = (b"\0" * self.order + context)[-(k - 1) :] if k > 1 else b""
        counts = self.followers.get(bytes([k]) + h)
        lower = self.p(context, byte, k - 1)
        if not counts:
            return lower
        d = self.discounts[k]
        count = self.tables[k][h + bytes([byte])]
        gamma = sum(d[min(c, 3)] for c in counts) / sum(counts)
        return max(count - d[min(count, 3)], 0) / sum(counts) + gamma * lower


@settings(max_examples=40, deadline=None)
@given(documents=TEXT, order=st.integers(1, 5), context=st.binary(max_size=6))
def test_probabilities_over_all_bytes_sum_to_one_after_any_context(
    documents: list[bytes], order: int, context: bytes
) -> None:
    model = KneserNeyBytes.train(documents, order=order)
    for history in (b"", context, documents[0][:4]):
        distribution = model.distribution(history)
        assert abs(distribution.sum() - 1) < 1e-12
        assert (distribution > 0).all()


@settings(max_examples=40, deadline=None)
@given(documents=TEXT, order=st.integers(1, 5), held_out=st.binary(min_size=1, max_size=40))
def test_it_equals_the_slow_model_from_the_formula(documents: list[bytes], order: int, held_out: bytes) -> None:
    fast, slow = KneserNeyBytes.train(documents, order=order), SlowKneserNey(documents, order)
    for text in (held_out, documents[-1] + held_out):
        expected = [slow.p(text[:i], text[i]) for i in range(len(text))]
        assert np.allclose(fast.probabilities(text), expected, rtol=1e-12, atol=0)


def test_it_equals_the_slow_model_with_all_three_discounts_on_real_text() -> None:
    document = (kneser_ney.__doc__ or "").encode() + Path(kneser_ney.__file__).read_bytes()
    parts = [document[i : i + 900] for i in range(0, len(document), 900)]
    fast, slow = KneserNeyBytes.train(parts[1:], order=4), SlowKneserNey(parts[1:], 4)
    assert len({round(d, 9) for d in slow.discounts[4][1:]}) == 3
    expected = [slow.p(parts[0][:i], parts[0][i]) for i in range(len(parts[0]))]
    assert np.allclose(fast.probabilities(parts[0]), expected, rtol=1e-12, atol=0)


def test_counting_in_small_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [bytes(np.random.default_rng(s).integers(97, 103, 700).astype(np.uint8)) for s in range(5)]
    whole = KneserNeyBytes.train(documents, order=4)
    monkeypatch.setattr(kneser_ney, "CHUNK_BYTES", 64)
    heard: list[int] = []
    pieces = KneserNeyBytes.train(documents, order=4, tell=heard.append)
    assert np.array_equal(whole.probabilities(documents[0]), pieces.probabilities(documents[0]))
    assert heard == sorted(heard)
    assert heard


def test_a_higher_order_fits_english_better() -> None:
    text = (KneserNeyBytes.__module__ + " the quick brown fox jumps over the lazy dog. ").encode() * 30
    sizes = [KneserNeyBytes.train([text], order=n).bits(text) for n in (1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("order", [0, 9])
def test_impossible_orders_and_no_text_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match="order"):
        KneserNeyBytes.train([b"a"], order=order)
    with pytest.raises(ValueError, match="no text"):
        KneserNeyBytes.train([b""], order=4)
