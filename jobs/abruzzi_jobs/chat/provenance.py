"""Nothing that the stand-in said gets into data that claims a language model (design section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from abruzzi.contracts.endpoint import EndpointBase, EndpointKind, RoleTable
from abruzzi.contracts.errors import AbruzziError

Teacher = Literal["llm", "standin"]
"""What a dataset's manifest says of the text in it."""


def teacher_of(roles: RoleTable, endpoints: Mapping[str, EndpointBase]) -> Teacher:
    """Of a stage whose roles make its rows together, before anything is asked. Raises AbruzziError `mixed_teachers` where the stand-in would play
    beside a model."""
    kinds = {str(role): endpoints[settings.endpoint].kind for role, settings in roles.items()}
    standins = sorted(role for role, kind in kinds.items() if kind is EndpointKind.STANDIN)
    if standins and len(standins) < len(kinds):
        raise AbruzziError(
            "mixed_teachers",
            f"The stand-in plays {', '.join(standins)} beside a model, and their words would be one conversation.",
            hint="Point all roles at models, or all at the stand-in.",
        )
    return "standin" if standins else "llm"


def require_teacher(teacher: Teacher, *, is_llm: bool, generator: str, where: str) -> None:
    """For writers, of each record. Raises AbruzziError `mixed_teachers` unless it was made by what the manifest claims."""
    found: Teacher = "llm" if is_llm else "standin"
    if found != teacher:
        raise AbruzziError(
            "mixed_teachers",
            f"{where}: a record by {generator!r} does not belong into data whose manifest says teacher: {teacher}.",
            hint="Point the role at one kind of endpoint, and write what the stand-in made into a dataset of its own.",
        )
