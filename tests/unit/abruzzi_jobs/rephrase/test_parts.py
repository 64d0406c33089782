"""Documents in parts: nothing is lost between them, none is too long, cuts are where a reader would make them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.rephrase.parts import outline, parts_of, stitched, tokens

TEXTS = st.lists(
    st.sampled_from(["Iron is a metal. ", "Its symbol is Fe!", "\n\n", "\n", " ", "x" * 90, "„Ja.“ ", "水は液体。", "- item\n", "é"]),
    max_size=60,
).map(lambda pieces: "".join(pieces).strip())  # fmt: skip


@given(text=TEXTS | st.text(max_size=300).map(str.strip), part=st.integers(1, 40), excerpt=st.integers(1, 200))
@settings(max_examples=150, deadline=None)
def test_parts_are_the_document_and_fit(text: str, part: int, excerpt: int) -> None:
    parts = parts_of(text, excerpt_tokens=excerpt, part_tokens=part)
    assert stitched(parts, [text[p.start : p.end] for p in parts]) == text
    assert all(tokens(text[p.start : p.end]) <= part for p in parts)
    assert [p.excerpt for p in parts] == sorted(p.excerpt for p in parts)
    for number in {p.excerpt for p in parts}:
        mine = [tokens(text[p.start : p.end]) for p in parts if p.excerpt == number]
        assert len(mine) == 1 or sum(mine) <= excerpt


def test_paragraphs_stay_whole_where_they_fit_and_are_cut_between_sentences_where_not() -> None:
    short, long = "One. Two. Three.", " ".join(f"Sentence number {n} says a little." for n in range(8))
    text = f"{short}\n\n{long}\n\n{short}"
    parts = parts_of(text, excerpt_tokens=1000, part_tokens=40)
    said = [text[p.start : p.end] for p in parts]
    assert said[0] == short
    assert said[-1] == short
    assert len(said) == 4
    assert all(s.startswith("Sentence") and s.endswith("little.") for s in said[1:3])


def test_an_outline_shows_the_first_sentence_of_each_paragraph_shortened_where_there_are_many() -> None:
    assert (
        outline("Iron is a metal. It rusts.\n\nGold is another. It does not.")
        == "- Iron is a metal.\n- Gold is another."
    )
    assert outline("One paragraph alone.") == ""
    many = "\n\n".join(
        f"Paragraph {n} begins with a rather long sentence about the number {n}. Then more." for n in range(200)
    )
    assert tokens(outline(many)) <= 224
    assert "Paragraph 0" in outline(many)
