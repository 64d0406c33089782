"""What an instruct stage makes of prompts (paper section 3.1: candidates by several models, filtered by rules, a judge and people)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints, model_validator

from abruzzi.contracts.curation import DecontaminationConfig, NearDedupConfig
from abruzzi.contracts.endpoint import RoleConfig
from abruzzi.contracts.quantity import Count
from abruzzi.contracts.training import Strict

PROMPT_SOURCES = ("elements", "countries", "dictionary", "mathematics", "programs")
"""Shipped, each with answers that can be checked; everything else is a path to own .jsonl files."""

Share = Annotated[StrictFloat, Field(ge=0, le=1)]


class AnswerRulesConfig(Strict):
    """What an answer must be, whatever it says."""

    min_characters: StrictInt = Field(default=1, ge=0)
    max_characters: StrictInt = Field(default=8000, ge=1)
    languages: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...] = ("en",)
    """ISO 639-1. Asked of answers with eight words of prose or more; empty: not asked."""
    max_repetition: Share = 0.35
    """Share of an answer's runs of four words that stood in it before."""
    refusals: Literal["reject", "keep"] = "reject"
    """Of answers that only say that they will not answer."""
    cut_answers: Literal["reject", "keep"] = "reject"
    """Of answers that broke off at the endpoint's limit."""


class InstructJudgeConfig(Strict):
    """How the role judge's scores (0 to 1) count."""

    pass_from: Share = 0.7
    fail_below: Share = 0.4
    """Between the two the judge is unsure, and people decide."""

    @model_validator(mode="after")
    def _in_order(self) -> InstructJudgeConfig:
        if self.fail_below > self.pass_from:
            raise ValueError(f"fail_below: {self.fail_below:g} is above pass_from {self.pass_from:g}")
        return self


class InstructConfig(Strict):
    candidates: tuple[RoleConfig, ...] = Field(min_length=2, max_length=8)
    """Endpoints that answer every prompt, such as ["teacher", { endpoint = "small", temperature = 0.7 }]; two at least, all different."""
    sources: tuple[str, ...] = Field(min_length=1)
    """Shipped prompts with verified answers (elements, countries, dictionary, mathematics, programs), or globs of own files: .jsonl or
    .jsonl.zst whose lines have `prompt` (and `answer`, `domain`, `licence`, `system`), or `messages`."""
    prompts: Count = Field(default=200, gt=0)
    """Of all sources together, each in turn."""
    samples: StrictInt = Field(default=1, ge=1, le=64)
    """Answers of each candidate to a prompt."""
    keep: StrictInt = Field(default=1, ge=1, le=64)
    """Best answers that are kept of a prompt."""
    when_down: Literal["fail", "go_on"] = "fail"
    """What follows when a candidate's endpoint cannot be reached: the stage ends, to be tried again, or goes on with the others."""
    max_rejected: StrictFloat = Field(default=1.0, gt=0, le=1)
    """Share of answers: when more are rejected the stage ends, and says why. Looked at from 20 answers on; 1.0: never."""
    run_programs: StrictBool = True
    """Programs in answers are run against the prompt's examples, in a sandbox. Off: they are not verified."""
    rules: AnswerRulesConfig = AnswerRulesConfig()
    judge: InstructJudgeConfig = InstructJudgeConfig()
    near_dedup: NearDedupConfig | None = NearDedupConfig()
    """Of conversations and of the prompts before they are asked; the first stays."""
    decontamination: DecontaminationConfig | None = DecontaminationConfig()
    """Prompts and answers that share a run of words with an evaluation set are left out."""

    @model_validator(mode="after")
    def _different_endpoints(self) -> InstructConfig:
        names = [candidate.endpoint for candidate in self.candidates]
        if len(set(names)) < len(names):
            raise ValueError(
                f"candidates: {max(names, key=names.count)!r} stands there twice; name different endpoints"
            )
        if self.keep > self.samples * len(names):
            raise ValueError(f"keep: {self.keep} of {self.samples * len(names)} answers cannot be kept")
        return self


def candidate_role(endpoint: str) -> str:
    """The role that the stage asks a candidate by."""
    return f"candidate-{endpoint}"
