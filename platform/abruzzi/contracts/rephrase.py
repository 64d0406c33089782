"""What a rephrase stage does with a corpus (paper section 2.2): which prompts, in how large parts, and what a rewrite must keep."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, StringConstraints, model_validator

from abruzzi.contracts.curation import DecontaminationConfig, Domain
from abruzzi.contracts.quantity import Count
from abruzzi.contracts.training import Strict

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class RephraseStyle(StrEnum):
    """Rows of the prompt grid; what each says is in jobs/abruzzi_jobs/rephrase/prompts/grid.toml."""

    ENCYCLOPEDIA = "encyclopedia"
    PLAIN = "plain"
    LECTURE = "lecture"
    DIALOGUE = "dialogue"
    QUESTIONS = "questions"
    REPORT = "report"
    LEARNING_NOTE = "learning-note"
    """Of mathematics: statement, idea, steps, check (after SwallowMath)."""


class RephrasePerspective(StrEnum):
    """Columns of the prompt grid."""

    NEUTRAL = "neutral"
    EXPERT = "expert"
    NEWCOMER = "newcomer"
    TEACHER = "teacher"
    CURATOR = "curator"


class FidelityConfig(Strict):
    """What a rewrite must keep. A part that breaks one of these is asked for again, then its rewrite is rejected."""

    min_length_ratio: StrictFloat = Field(default=0.5, gt=0, lt=1)
    """Words of the rewrite to words of its source."""
    max_length_ratio: StrictFloat = Field(default=2.0, gt=1)
    min_novelty: StrictFloat = Field(default=0.1, ge=0, lt=1)
    """Share of the rewrite's runs of four words that its source has not: with less it is a copy."""
    max_novelty: StrictFloat = Field(default=0.6, gt=0, le=1)
    """Share of the rewrite's content words that nothing in its source supports: with more it is an invention."""
    min_support: StrictFloat = Field(default=0.5, ge=0, le=1)
    """Of one sentence: share of its content words that its source has in any form; with less it is a claim of its own. A sentence with a
    name or a number of the source needs seven tenths of that."""
    min_likeness: StrictFloat = Field(default=0.35, ge=0, le=1)
    """Cosine of the two texts' vectors (hashed runs of letters)."""
    min_similarity: StrictFloat = Field(default=0.65, ge=-1, le=1)
    """Cosine of each sentence of the rewrite with the nearest one of its source, by the role embedder, where the stage has one. Each model has its
    own scale; with this one all-MiniLM-L6-v2 is wrong about some 2 % of honest rewrites."""


class RephraseConfig(Strict):
    domains: tuple[Domain, ...] = Field(default=("web", "knowledge", "mathematics", "own"), min_length=1)
    """Documents of other domains stay as they are; `own` is that of a recipe's own files."""
    styles: tuple[RephraseStyle, ...] = ()
    """Absent: all that fit the document's domain."""
    perspectives: tuple[RephrasePerspective, ...] = ()
    """Absent: all."""
    rewrites_per_document: StrictInt = Field(default=1, ge=1, le=100)
    """Of different cells of the grid, as long as there are any."""
    keep_raw: Literal["all", "rejected", "none"] = "all"
    """Which sources stay in the corpus beside their rewrites: every one, those without a rewrite that was kept, or none."""
    excerpt_tokens: Count = Field(default=4096, ge=64)
    """Of a document at a time: its outline is the context. A token is four bytes of UTF-8."""
    part_tokens: Count = Field(default=256, ge=16)
    """Rewritten at a time, cut between paragraphs or sentences."""
    context_parts: StrictInt = Field(default=2, ge=0, le=16)
    """Rewritten parts before this one that the model sees."""
    retries: StrictInt = Field(default=2, ge=0, le=20)
    """Of a part."""
    document_retries: StrictInt = Field(default=8, ge=0)
    """Of all parts of one rewrite together."""
    max_rejected: StrictFloat = Field(default=0.5, gt=0, le=1)
    """Share of rewrites: when more are rejected the stage ends, and says why. Looked at from 20 rewrites on; 1.0: never."""
    languages: tuple[Language, ...] = ()
    """Documents in other languages stay as they are; absent: languages are not looked at. ISO 639-1."""
    translate_from: tuple[Language, ...] = ()
    """Documents in these languages are translated into English by the role translator; numbers, formulas and answers must stay."""
    fidelity: FidelityConfig = FidelityConfig()
    decontamination: DecontaminationConfig | None = DecontaminationConfig()
    """Rewrites that share a run of words with an evaluation set are rejected."""

    @model_validator(mode="after")
    def _parts_fit(self) -> RephraseConfig:
        if self.part_tokens > self.excerpt_tokens:
            raise ValueError(
                f"part_tokens: parts of {self.part_tokens} tokens do not fit an excerpt of {self.excerpt_tokens}"
            )
        return self
