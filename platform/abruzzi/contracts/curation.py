"""What a corpus stage does with its documents beyond cleaning and exact duplicates. Each table is absent by default: nothing of it is done.

The order is fixed: normalise, language, quality, privacy, decontamination, validation, near-duplicates, mixture.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints

from abruzzi.contracts.training import Strict

Domain = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Treatment = Literal["mask", "drop", "keep"]


class LanguageConfig(Strict):
    """Language by fastText's lid.176 (176 languages, ISO 639-1 codes where there is one)."""

    keep: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...] = Field(default=("en",), min_length=1)
    min_confidence: StrictFloat = Field(default=0.5, ge=0, le=1)
    """Documents that are less sure than this have no language."""
    except_domains: tuple[Domain, ...] = ("code", "mathematics")
    """Not asked: short facts, formulas and programs have no language to speak of."""


class QualityConfig(Strict):
    """Rules of Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020, 2.2) for prose; for code, those of the Stack
    (line lengths, share of letters, marks of generated files)."""

    min_words: StrictInt = Field(default=50, ge=0)
    max_words: StrictInt = Field(default=100_000, ge=1)
    min_word_length: StrictFloat = Field(default=3.0, ge=0)
    """Mean characters a word."""
    max_word_length: StrictFloat = Field(default=10.0, gt=0)
    max_symbol_ratio: StrictFloat = Field(default=0.1, ge=0)
    """Of `#` and `…` to words."""
    max_bullet_lines: StrictFloat = Field(default=0.9, ge=0, le=1)
    max_ellipsis_lines: StrictFloat = Field(default=0.3, ge=0, le=1)
    min_alphabetic_words: StrictFloat = Field(default=0.8, ge=0, le=1)
    min_stop_words: StrictInt = Field(default=2, ge=0)
    """Different ones of the, be, to, of, and, that, have, with. English only: set 0 for others."""
    max_duplicate_lines: StrictFloat = Field(default=0.3, ge=0, le=1)
    """Share of lines that stood there before."""
    max_duplicate_ngrams: StrictFloat = Field(default=0.15, ge=0, le=1)
    """Share of characters in 5-grams of words that occur more than once."""
    max_code_line: StrictInt = Field(default=1000, ge=1)
    """Characters of the longest line of a program."""
    max_code_line_mean: StrictFloat = Field(default=100.0, gt=0)
    min_code_alphanumeric: StrictFloat = Field(default=0.25, ge=0, le=1)
    except_domains: tuple[Domain, ...] = ("knowledge",)


class PrivacyConfig(Strict):
    """What is found is masked (`<email>`, …), or its document is dropped."""

    email: Treatment = "mask"
    phone: Treatment = "mask"
    ip: Treatment = "mask"
    """Public addresses; those of private networks and of documentation say nothing about anybody."""
    card: Treatment = "mask"
    """13 to 19 digits of a known issuer that pass Luhn's check."""
    key: Treatment = "drop"
    """Private keys and tokens of well-known services."""


class DecontaminationConfig(Strict):
    """Documents that share a run of words with an item of an evaluation set are dropped (Brown et al. 2020, appendix C)."""

    ngram: StrictInt = Field(default=13, ge=5, le=50)
    """Words. An item that is shorter counts as a whole, from five words on."""
    against: tuple[str, ...] = ()
    """Names of registered evaluation sets; absent: all."""


class ValidationConfig(Strict):
    """Documents that are wrong, as far as a machine can tell, are dropped."""

    python: Literal["compile", "doctests", "off"] = "compile"
    """`.py` documents of the domain code: they compile, and their doctests pass (in a sandbox; a text that cannot be imported alone is not judged)."""
    doctest_seconds: StrictInt = Field(default=10, ge=1)
    """Processor time of one document."""
    arithmetic: StrictBool = True
    """Plainly stated equations of numbers hold, in the domain mathematics."""
    facts: StrictBool = True
    """A document names subject and answer of each fact that its source says it states."""


class NearDedupConfig(Strict):
    """MinHash: of documents whose shingles agree, the first stays."""

    threshold: StrictFloat = Field(default=0.8, gt=0.3, lt=1)
    """Jaccard similarity."""
    shingle_words: StrictInt = Field(default=5, ge=1, le=50)
    bands: StrictInt = Field(default=20, ge=1, le=512)
    rows: StrictInt = Field(default=6, ge=1, le=64)
    """A pair of similarity s is found with the probability 1 - (1 - s^rows)^bands."""


class CurationTables(Strict):
    """The tables of `[stage.data]` that ask for curation."""

    normalise: StrictBool | None = None
    """Unicode NFC, no control and no invisible characters, no blanks at the ends of lines, at most two blank lines in a row."""
    language: LanguageConfig | None = None
    quality: QualityConfig | None = None
    privacy: PrivacyConfig | None = None
    decontamination: DecontaminationConfig | None = None
    validation: ValidationConfig | None = None
    near_dedup: NearDedupConfig | None = None
    mixture: dict[Domain, Annotated[StrictFloat, Field(gt=0)]] | None = None
    """{domain: weight}: shares of the bytes, as much as the scarcest domain allows. A domain that is not named is left out."""

    def curated(self) -> bool:
        """Whether documents go through shard functions at all; a mixture alone does not need any."""
        tables = (self.language, self.quality, self.privacy, self.decontamination, self.validation, self.near_dedup)
        return bool(self.normalise) or any(t is not None for t in tables)

    def absent(self) -> set[str]:
        """Keys that say nothing: left out where the configuration is written down."""
        return {name for name in CurationTables.model_fields if getattr(self, name) is None}
