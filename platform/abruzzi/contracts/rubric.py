"""Rubrics: what a critic weighs answers by, as data with a version (paper 3.2.2 and appendix F).

A set that is edited becomes a new version; one that a run has used stays as it was.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field, StrictBool, StrictFloat, StrictInt, StringConstraints, model_validator

from abruzzi.contracts.training import Strict

RubricSetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
RubricName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]{0,39}$")]


class RubricKind(StrEnum):
    CORE = "core"
    """What an assistant is to be."""
    PRESCRIPTIVE = "prescriptive"
    """What is not to be rewarded: it closes ways to please a critic."""
    HUMAN = "human"
    """Written by people for some kind of task."""


class PrescriptiveCheck(StrEnum):
    """By code, before any critic is asked."""

    INITIAL_PRAISE = "initial_praise"
    EXPLICIT_JUSTIFICATION = "explicit_justification"


class Rubric(Strict):
    name: RubricName
    kind: RubricKind
    text: str = Field(min_length=1, max_length=2000)
    """What the critic reads."""
    weight: StrictFloat = Field(default=1.0, gt=0, le=100)
    """Beside the others', where the critic gives a verdict for each."""
    mandatory: StrictBool = False
    """Who loses by it loses the pair, whatever the others say."""
    check: PrescriptiveCheck | None = None
    """Code that finds a violation without a critic; an answer that violates loses against one that does not."""


class RubricSetIn(Strict):
    rubrics: tuple[Rubric, ...] = Field(min_length=1, max_length=40)

    @model_validator(mode="after")
    def _names_are_unique(self) -> RubricSetIn:
        names = [rubric.name for rubric in self.rubrics]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"rubrics: two have the name {twice!r}; each verdict is known by it")
        return self


class RubricEdit(RubricSetIn):
    based_on: StrictInt = Field(ge=0)
    """The version that was edited; 0: there was none of this name."""


class RubricSet(RubricSetIn):
    name: RubricSetName
    version: StrictInt = Field(ge=1)

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class RubricSetOut(RubricSet):
    by: str
    """Who wrote this version; of shipped ones `shipped`."""
    at: AwareDatetime | None = None
    """None of shipped ones."""


class RubricSetList(Strict):
    items: tuple[RubricSetOut, ...]


GENERAL = RubricSet(
    name="general",
    version=1,
    rubrics=(
        Rubric(
            name="clarity_and_relevance",
            kind=RubricKind.CORE,
            text="Succinct and fully on what the user wants. No needless detail, no long lists where a few words do; where a choice is asked for, one clear choice.",
        ),
        Rubric(
            name="fluency_and_engagement",
            kind=RubricKind.CORE,
            text="Natural, coherent dialogue that goes beyond a plain answer where that helps: insight, a fitting tone, follow-up questions only where they serve.",
        ),
        Rubric(
            name="objective_and_grounded",
            kind=RubricKind.CORE,
            text="An objective, grounded tone on the matter itself. No commentary about the question or the conversation, no flattery.",
        ),
        Rubric(
            name="initial_praise",
            kind=RubricKind.PRESCRIPTIVE,
            text="Does not begin with praise of the user or of the question.",
            mandatory=True,
            check=PrescriptiveCheck.INITIAL_PRAISE,
        ),
        Rubric(
            name="explicit_justification",
            kind=RubricKind.PRESCRIPTIVE,
            text="Has no sentence or clause about why the answer is good or how it does what was asked.",
            mandatory=True,
            check=PrescriptiveCheck.EXPLICIT_JUSTIFICATION,
        ),
    ),
)
"""The report's core and prescriptive rubrics, in our words."""
SHIPPED_RUBRICS: dict[str, RubricSet] = {GENERAL.name: GENERAL}
