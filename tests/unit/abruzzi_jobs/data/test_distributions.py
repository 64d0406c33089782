"""Distributions of a corpus: every document counts once in each measure, under its domain, in the bin that its value falls into."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abruzzi_jobs.data.distributions import MEASURES, Distributions


@given(st.lists(st.tuples(st.sampled_from(["web", "code"]), st.text(max_size=200)), max_size=20))
def test_any_text_counts_once_in_each_measure(documents: list[tuple[str, str]]) -> None:
    made = Distributions()
    for domain, text in documents:
        made.add(domain, text)
    found = made.as_dict()
    assert list(found) == [m.name for m in MEASURES]
    for measure in MEASURES:
        counts = found[measure.name]["domains"]
        assert all(len(bins) == len(found[measure.name]["edges"]) + 1 for bins in counts.values())
        assert {d: sum(bins) for d, bins in counts.items()} == {
            d: sum(domain == d for domain, _ in documents) for d, _ in documents
        }


def test_a_document_falls_into_the_bin_of_its_value() -> None:
    made = Distributions()
    made.add("web", "word " * 8)
    made.add("web", "x1 y2 z3")
    found = made.as_dict()
    assert found["words"]["domains"]["web"][:3] == [1, 1, 0], "three words below 8; eight from 8 on"
    assert found["letters"]["domains"]["web"][0] == 1, "no word of letters alone"
    assert found["letters"]["domains"]["web"][-1] == 1
