"""Summaries of an ended run for CI: JUnit XML and Markdown."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from abruzzi.contracts.resources import RunOut, StageOut
from abruzzi.contracts.states import RunState, StageState


def junit(run: RunOut) -> str:
    """One test case a stage: what failed or was held by its gate as failures, other skipped and cancelled ones as skipped.

    A run that did not succeed is never all green: where no stage is to blame (cancelled, not ended in time) the run itself is a case.
    """
    succeeded = {s.id for s in run.detail if s.state is StageState.SUCCEEDED}
    to_blame = {
        s.id
        for s in run.detail
        if s.state is StageState.FAILED or (s.state is StageState.SKIPPED and s.gate and succeeded.issuperset(s.needs))
    }
    unexplained = run.state is not RunState.SUCCEEDED and not to_blame
    suite = Element(
        "testsuite",
        name=run.name,
        tests=str(len(run.detail) + unexplained),
        failures=str(len(to_blame) + unexplained),
        time=f"{sum(map(_seconds, run.detail)):.3f}",
    )
    for stage in run.detail:
        case = SubElement(
            suite, "testcase", classname=f"{run.recipe_name}.{stage.kind}", name=stage.id, time=f"{_seconds(stage):.3f}"
        )
        if stage.id in to_blame:
            SubElement(case, "failure", message=stage.reason or "failed").text = _attempts(stage)
        elif stage.state is not StageState.SUCCEEDED:
            SubElement(case, "skipped", message=stage.reason or str(stage.state))
    if unexplained:
        case = SubElement(suite, "testcase", classname=run.recipe_name, name="run", time="0.000")
        SubElement(case, "failure", message=run.reason or f"The run is {run.state}.")
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(run: RunOut, page: str) -> str:
    """A heading, a table of stages and the headline numbers."""
    lines = [
        f"## {run.name}: {run.state}",
        "",
        f"[{run.id}]({page})",
        "",
        "| stage | state | took | attempts |",
        "|---|---|---|---|",
    ]
    lines += [f"| {s.id} | {s.state} | {_seconds(s):.0f} s | {len(s.attempts)} |" for s in run.detail]
    if run.headline:
        lines += ["", "| metric | value |", "|---|---|", *(f"| {k} | {v:.5g} |" for k, v in run.headline.items())]
    if run.reason:
        lines += ["", run.reason.replace("|", "\\|")]
    return "\n".join(lines) + "\n\n"


def _seconds(stage: StageOut) -> float:
    return (stage.ended_at - stage.started_at).total_seconds() if stage.started_at and stage.ended_at else 0.0


def _attempts(stage: StageOut) -> str:
    return "\n".join(
        f"attempt {a.number}: {a.cause or a.state}, exit code {a.exit_code}: {a.reason or ''}" for a in stage.attempts
    )
