"""Suites by name and version: the shipped ones, those over mounted files, and those that installed packages bring (entry points `abruzzi.suites`)."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import SuiteConfig
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.evals.suites.mounted.table import table
from abruzzi_jobs.evals.suites.suite import Suite

_SUITES = "abruzzi_jobs.evals.suites"
SHIPPED = {
    "aime2024@1": f"{_SUITES}.contests:Aime2024",
    "aime2025@1": f"{_SUITES}.contests:Aime2025",
    "bfcl-turns@3": f"{_SUITES}.bfcl_turns:BFCLTurns",
    "bfcl@3": f"{_SUITES}.bfcl:BFCL",
    "cnmo2024@1": f"{_SUITES}.contests:Cnmo2024",
    "demo@1": f"{_SUITES}.gyms:Demo",
    "gym@1": f"{_SUITES}.gyms:GymSuite",
    "humaneval@1": f"{_SUITES}.humaneval:HumanEval",
    "ifbench@1": f"{_SUITES}.ifbench:IFBench",
    "needle@1": f"{_SUITES}.needle:Needle",
    "scicode@1": f"{_SUITES}.scicode:SciCode",
    "tau2@1": f"{_SUITES}.tau2:Tau2",
    "math500@1": f"{_SUITES}.contests:Math500",
}
"""reference → module:class. Modules are imported when their suite is asked for."""
GROUP = "abruzzi.suites"


def open_suite(reference: str, config: SuiteConfig | None = None) -> Suite:
    """Of `name@version` or `name` (the newest). Raises AbruzziError `unknown_suite`, and what a suite raises that is not ready here."""
    found = suite_class(reference)
    return found((config or SuiteConfig()).over(found.defaults))


def reference_of(suite: Suite | type[Suite]) -> str:
    return f"{suite.name}@{suite.version}"


def suite_class(reference: str) -> type[Suite]:
    """Raises AbruzziError `unknown_suite`."""
    name, _, version = reference.partition("@")
    known = suite_paths()
    versions = sorted(int(r.partition("@")[2]) for r in known if r.partition("@")[0] == name)
    wanted = f"{name}@{version or (versions[-1] if versions else 1)}"
    if wanted not in known:
        has = f"There is {', '.join(f'{name}@{number}' for number in versions)}." if versions else ""
        names = sorted({r.partition("@")[0] for r in known})
        raise AbruzziError("unknown_suite", f"There is no suite {reference!r}.", hint=has or nearest(name, names))
    module, _, attribute = known[wanted].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise AbruzziError(
            "unknown_suite",
            f"The suite {reference!r} lies in {known[wanted]}, which cannot be imported ({error}).",
            hint="Install what it needs: pip install abruzzi-jobs[evaluation-sets].",
        ) from error


@cache
def suite_paths() -> dict[str, str]:
    """reference → module:class of all, in order."""
    brought = {point.name: point.value for point in entry_points(group=GROUP)}
    mounted = {f"{name}@1": f"{_SUITES}.mounted.suites:{name}" for name in table()}
    return dict(sorted({**brought, **mounted, **SHIPPED}.items()))
