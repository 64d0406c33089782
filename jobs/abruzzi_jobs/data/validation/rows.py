"""Which validator looks at which row of a shard."""

from __future__ import annotations

from abruzzi.contracts.curation import ValidationConfig
from abruzzi_jobs.data.documents import Fact
from abruzzi_jobs.data.processing.function import Row
from abruzzi_jobs.data.validation.knowledge import facts_stated
from abruzzi_jobs.data.validation.mathematics import wrong_equations
from abruzzi_jobs.data.validation.programs import compiles, examine


def fault_of(row: Row, config: ValidationConfig) -> str | None:
    """Name of the validator that rejects the row, None where it stays."""
    if row["domain"] == "code" and str(row.get("name", "")).endswith(".py") and config.python != "off":
        return _program_fault(row["text"], config)
    if row["domain"] == "mathematics" and config.arithmetic and wrong_equations(row["text"]):
        return "arithmetic"
    if config.facts and facts_stated(row["text"], (Fact(**f) for f in row.get("facts", ()))):
        return "facts"
    return None


def _program_fault(text: str, config: ValidationConfig) -> str | None:
    if not compiles(text):
        return "syntax"
    if config.python != "doctests":
        return None
    verdict = examine(text, cpu_seconds=config.doctest_seconds)
    return {"failed": "doctest", "timed_out": "doctest_time"}.get(verdict)
