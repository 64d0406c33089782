"""`abruzzi eval`: suites for a checkpoint or an endpoint, as a run of one stage; waits, prints what came out, and tells CI by exit code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import typer
from rich.markup import escape

from abruzzi.cli.evaluations import figure_text, print_evaluations, target_text
from abruzzi.cli.run import follow
from abruzzi.cli.session import OUTPUT, JsonOption, client, find_run, print_json
from abruzzi.client import Client
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import EvaluationOut
from abruzzi.contracts.resources import ArtifactOut
from abruzzi.contracts.states import ArtifactKind

SHIPPED_TARGETS = ("smollm2", "standin")


def evaluate(
    suite: Annotated[list[str], typer.Option(help="Its name, or name@version. Repeatable.")],
    target: Annotated[
        str,
        typer.Option(
            help="A checkpoint (artifact id), a run or `latest` (its newest checkpoint), smollm2, standin, or the URL of an endpoint with --model."
        ),
    ],
    model: Annotated[str | None, typer.Option(help="Of an endpoint given by URL.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help='Of an endpoint given by URL: "secret:NAME", never the key.')
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Who judges, where a suite asks: as --target.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Answers to each item.")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="The first so many of each suite.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Cap of one answer.")] = None,
    tools: Annotated[bool | None, typer.Option("--tools/--no-tools", help="Where a suite has both ways.")] = None,
    path: Annotated[str | None, typer.Option(help="Of the items, for a suite whose items ship nowhere.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Of the suites' own, as in a recipe: lengths=[500,2000]. Repeatable."),
    ] = None,
    yarn: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint: turn positions by YaRN, FACTORxPOSITIONS, such as 4x1024; 1x1024 is without."
        ),
    ] = None,
    fail_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit code 1 where a suite scores less, or has items without a score."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds until giving up waiting; the run goes on.")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Write a JUnit report for CI: a case a suite.")
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Append a Markdown table, for example to $GITHUB_STEP_SUMMARY.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a checkpoint or an endpoint the questions of suites, and wait for what comes out."""
    settings = {
        "samples": samples,
        "max_items": max_items,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "tools": tools,
        "path": path,
    }
    with client() as connection:
        recipe = _Recipe(connection)
        recipe.play("target", target, model=model, api_key=api_key, yarn=yarn)
        if judge is not None:
            recipe.play("judge", judge, model=model, api_key=api_key)
        text = recipe.toml(suite, {key: value for key, value in settings.items() if value is not None}, option or [])
        run = connection.runs.submit(text, name=f"eval {', '.join(suite)}"[:80])
        if not as_json:
            OUTPUT.print(
                f"[green]✓[/] {escape(run.name)}  [bold]{run.id}[/]  {connection.run_page(run.id)}", soft_wrap=True
            )
        code = follow(connection, run.id, timeout_seconds=timeout, quiet=as_json)
        found = list(connection.evaluations.list(run_id=run.id))
        reason = connection.runs.get(run.id).reason
    failures = failures_of(suite, found, fail_below)
    if markdown_file:
        with markdown_file.open("a", encoding="utf-8") as file:
            file.write(markdown(found, failures, reason))
    if junit_file:
        junit_file.write_text(junit(suite, found, failures, reason), encoding="utf-8")
    if as_json:
        print_json({"run": run.id, "evaluations": found, "failures": failures})
    else:
        if found:
            print_evaluations(found)
        for name, told in failures.items():
            OUTPUT.print(f"[red]✗[/] {escape(name)}: {told}")
    raise SystemExit(code or (1 if failures else 0))


class _Recipe:
    """Of one evaluate stage, written as the server reads it."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._endpoints: list[str] = []
        self._roles: list[str] = []
        self._corpus: str | None = None

    def play(self, role: str, who: str, *, model: str | None, api_key: str | None, yarn: str | None = None) -> None:
        """Raises AbruzziError for who is nobody."""
        keys: dict[str, str]
        if who in SHIPPED_TARGETS:
            keys = {"kind": who}
        elif "://" in who:
            if model is None:
                raise AbruzziError("no_model", f"{who}: which model is asked there?", hint="Add --model NAME.")
            keys = {"kind": "openai", "base_url": who, "model": model} | ({"api_key": api_key} if api_key else {})
        else:
            checkpoint = self._checkpoint(who)
            keys = {
                "kind": "checkpoint",
                "checkpoint": f"artifact:{checkpoint.id}",
                "tokenizer": f"artifact:{self._tokenizer(checkpoint)}",
            }
            if role == "target":
                self._corpus = self._of_lineage(checkpoint, ArtifactKind.CORPUS)
        self._endpoints += [f"[endpoint.{role}]", *(f"{key} = {_text(value)}" for key, value in keys.items())]
        self._endpoints += [*([yarn_line(yarn)] if yarn is not None else []), ""]
        self._roles.append(f"{role} = {_text(role)}")

    def toml(self, suites: list[str], settings: dict[str, object], options: Sequence[str] = ()) -> str:
        lines = ["version = 1", 'name = "eval"', "", *self._endpoints, "[[stage]]", 'id = "eval"', 'kind = "evaluate"']
        if self._corpus is not None:
            lines.append(f'inputs = {{ corpus = "artifact:{self._corpus}" }}')
        lines += ["[stage.roles]", *self._roles]
        for suite in suites:
            lines += [
                f"[stage.suites.{_text(suite)}]",
                *(f"{key} = {_text(value)}" for key, value in settings.items()),
                *(f"options.{option_line(one)}" for one in options),
            ]
        return "\n".join(lines) + "\n"

    def _checkpoint(self, who: str) -> ArtifactOut:
        if len(who) > 12:
            found = self._connection.artifacts.get(who)
            if found.kind is not ArtifactKind.CHECKPOINT:
                raise AbruzziError(
                    "no_checkpoint",
                    f"Artifact {who} is a {found.kind}.",
                    hint=f"`abruzzi artifacts list {found.run_id} --kind checkpoint`",
                )
            return found
        run_id = find_run(self._connection, who)
        there = self._there(run_id, ArtifactKind.CHECKPOINT)
        if not there:
            raise AbruzziError(
                "no_checkpoint", f"Run {run_id} has made no checkpoint.", hint="Name another run, or a checkpoint's id."
            )
        return max(there, key=lambda a: (a.created_at, a.step or 0))

    def _tokenizer(self, checkpoint: ArtifactOut) -> str:
        """Its own stage's, else the nearest before it, else that of the stage that made its data."""
        own = self._there(checkpoint.run_id, ArtifactKind.TOKENIZER, stage_id=checkpoint.stage_id)
        if own:
            return own[-1].id
        above = self._of_lineage(checkpoint, ArtifactKind.TOKENIZER)
        if above is not None:
            return above
        data = self._of_lineage(checkpoint, ArtifactKind.DATASET)
        if data is not None:
            made = self._connection.artifacts.get(data)
            beside = self._there(made.run_id, ArtifactKind.TOKENIZER, stage_id=made.stage_id)
            if beside:
                return beside[-1].id
        raise AbruzziError(
            "no_tokenizer",
            f"No tokenizer is known of checkpoint {checkpoint.id}.",
            hint="Evaluate it in a recipe, where the tokenizer is named.",
        )

    def _of_lineage(self, checkpoint: ArtifactOut, kind: ArtifactKind) -> str | None:
        """The newest of its kind that still has its files, sound."""
        found = [a for a in self._connection.artifacts.lineage(checkpoint.id) if a.kind is kind and _is_there(a)]
        return found[-1].id if found else None

    def _there(self, run_id: str, kind: ArtifactKind, *, stage_id: str | None = None) -> list[ArtifactOut]:
        """Oldest first."""
        return [a for a in self._connection.artifacts.list(run_id, stage_id=stage_id, kind=kind) if _is_there(a)]


def yarn_line(said: str) -> str:
    """`4x1024` as an endpoint's key. Raises AbruzziError `bad_option`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+)", said)
    if found is None:
        raise AbruzziError("bad_option", f"--yarn {said}: no FACTORxPOSITIONS.", hint="Such as --yarn 4x1024.")
    return f"yarn = {{ factor = {float(found[1])}, original_max_position = {int(found[2])} }}"


def option_line(said: str) -> str:
    """A line of TOML that holds one key and nothing else. Raises AbruzziError `bad_option`."""
    try:
        if "\n" not in said and "=" in said and len(tomllib.loads(said)) == 1:
            return said
    except tomllib.TOMLDecodeError:
        pass
    raise AbruzziError(
        "bad_option",
        f"--option {said}: not KEY=VALUE as TOML writes it.",
        hint="Such as --option lengths=[500,2000], --option gym='\"logic\"'.",
    )


def _is_there(artifact: ArtifactOut) -> bool:
    return artifact.deleted_at is None and artifact.corrupt_at is None


def _text(value: object) -> str:
    """As TOML writes it, which knows no surrogate pairs and no bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def failures_of(asked: list[str], found: list[EvaluationOut], fail_below: float | None) -> dict[str, str]:
    """Why CI should stop, by suite: also for one that was asked for and has no evaluation."""
    failures = {one.suite: told for one in found if (told := failure_of(one, fail_below))}
    if fail_below is not None:
        there = {one.suite.partition("@")[0] for one in found}
        failures |= {name: "It was not evaluated." for name in asked if name.partition("@")[0] not in there}
    return failures


def failure_of(one: EvaluationOut, fail_below: float | None) -> str | None:
    """Why CI should stop; None where it should not."""
    if fail_below is None:
        return None
    score = one.summary.score
    if score is None or score.value < fail_below:
        return f"{figure_text(score)} is less than {fail_below:.1%}"
    return f"{one.summary.missing} items have no score" if one.summary.missing else None


def markdown(found: list[EvaluationOut], failures: dict[str, str], reason: str | None) -> str:
    lines = [
        "## Evaluation",
        "",
        "| suite | target | score (95 %) | items | no score | |",
        "|---|---|---|---:|---:|---|",
    ]
    for one in found:
        summary, told = one.summary, failures.get(one.suite, "")
        lines.append(
            f"| {one.suite} | {target_text(one)} | {figure_text(summary.score)} | {summary.items} | {summary.missing} | {told} |"
        )
    there = {one.suite for one in found}
    lines += [f"| {name} | | – | 0 | 0 | {told} |" for name, told in failures.items() if name not in there]
    return "\n".join(lines if found else [*lines[:2], reason or "Nothing was scored."]) + "\n\n"


def junit(asked: list[str], found: list[EvaluationOut], failures: dict[str, str], reason: str | None) -> str:
    """A case a suite; one that was asked for and has no evaluation has failed."""
    by_name = {one.suite.partition("@")[0]: one for one in found}
    suite = Element("testsuite", name="abruzzi eval", tests=str(len(asked)))
    failed = 0
    for name in asked:
        one = by_name.get(name.partition("@")[0])
        case = SubElement(suite, "testcase", classname="abruzzi.eval", name=one.suite if one else name)
        told = failures.get(one.suite) if one else reason or "It was not evaluated."
        if told:
            failed += 1
            SubElement(case, "failure", message=told)
        elif one:
            SubElement(case, "system-out").text = figure_text(one.summary.score)
    suite.set("failures", str(failed))
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
