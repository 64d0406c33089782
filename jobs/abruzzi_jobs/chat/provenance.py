"""Nothing that the stand-in said gets into data that claims a language model (design section 7)."""

from __future__ import annotations

from typing import Literal

from abruzzi.contracts.errors import AbruzziError

Teacher = Literal["llm", "standin"]
"""What a dataset's manifest says of the text in it."""


def require_teacher(teacher: Teacher, *, is_llm: bool, generator: str, where: str) -> None:
    """For writers, of each record. Raises AbruzziError `mixed_teachers` unless it was made by what the manifest claims."""
    found: Teacher = "llm" if is_llm else "standin"
    if found != teacher:
        raise AbruzziError(
            "mixed_teachers",
            f"{where}: a record by {generator!r} does not belong into data whose manifest says teacher: {teacher}.",
            hint="Point the role at one kind of endpoint, and write what the stand-in made into a dataset of its own.",
        )
