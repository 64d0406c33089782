"""The command line: exit codes, summaries, help with an example on every command."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
import typer
from typer.testing import CliRunner

from abruzzi.cli import runs as runs_commands
from abruzzi.cli.main import _load_commands, app
from abruzzi.cli.run import RunProgress, exit_code
from abruzzi.cli.session import absolute_sources, duration, overrides, quantity
from abruzzi.cli.summary import junit, markdown
from abruzzi.client.profile import resolve_profile, save_profile
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import AttemptOut, RunOut, StageOut
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageKind, StageState
from abruzzi.contracts.toml import load_recipe
from abruzzi.contracts.why import WhyOut

START = datetime(2026, 11, 24, tzinfo=UTC)
RECIPES = Path(__file__).parents[3] / "recipes"


def make_run(state: RunState, code: int | None) -> RunOut:
    attempt = AttemptOut(
        id="abcdefghjk-train-1", run_id="abcdefghjk", stage_id="train", number=1, epoch=1, state=AttemptState.FAILED, cause=Cause.BAD_DATA,
        exit_code=code, reason="no <text>", failed_rank=None, resumed_from=None, world_size=None, created_at=START, started_at=START, ended_at=START, ranks=[],
    )  # fmt: skip
    stages = [
        StageOut(
            id=name, run_id="abcdefghjk", kind=StageKind.CONTAINER, state=stage_state, reason=None, needs=[], gate=None, config={}, progress=None,
            eta_seconds=None, started_at=START, ended_at=START + timedelta(seconds=90), not_before=None, attempts=attempts,
        )
        for name, stage_state, attempts in (
            ("corpus", StageState.SUCCEEDED, []),
            ("train", StageState.FAILED if code is not None else StageState.SUCCEEDED, [attempt]),
            ("report", StageState.SKIPPED, []),
        )
    ]  # fmt: skip
    return RunOut(
        id="abcdefghjk", project_id="default", name="demo", recipe_name="demo", state=state, reason="a | b", parent_run_id=None, stages=[], progress=None,
        eta_seconds=None, headline={"train/loss": 2.5}, created_by="me", created_at=START, started_at=START, ended_at=START, version=3, recipe={}, recipe_toml="",
        detail=stages, parent_artifact_id=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        (RunState.SUCCEEDED, None, 0),
        (RunState.FAILED, 65, 65),
        (RunState.FAILED, 137, 137),
        (RunState.FAILED, 3, 1),
        (RunState.CANCELLED, None, 1),
    ],
)
def test_run_wait_exits_with_the_code_of_the_contract(state: RunState, code: int | None, expected: int) -> None:
    assert exit_code(make_run(state, code)) == expected


def test_each_part_of_a_stage_tells_its_tenths() -> None:
    """A stage that starts servers first and plays afterwards counts from 0 again."""
    view, run = RunProgress(), make_run(RunState.RUNNING, None)
    for share in (0.5, 0.55, 1.0, 0.0, 0.2):
        train = run.detail[1].model_copy(
            update={"state": StageState.RUNNING, "progress": share, "ended_at": None, "attempts": []}
        )
        view.update(run.model_copy(update={"detail": [train]}))
    assert view.lines == ["train: running", "train: 50 %", "train: 100 %", "train: 20 %"]


def test_junit_has_one_case_a_stage_and_escapes_what_people_wrote() -> None:
    suite = fromstring(junit(make_run(RunState.FAILED, 65)))
    assert [case.get("name") for case in suite] == ["corpus", "train", "report"]
    assert suite.get("failures") == "1"
    failure = suite[1][0]
    assert failure.tag == "failure"
    assert "no <text>" in (failure.text or "")
    assert suite[2][0].tag == "skipped"


def test_junit_is_never_green_for_a_run_that_did_not_succeed() -> None:
    held = make_run(RunState.FAILED, None)
    gated = held.detail[2].model_copy(update={"gate": "train.loss <= 2", "needs": ["train"], "reason": "2.5 > 2"})
    by_gate = fromstring(junit(held.model_copy(update={"detail": [*held.detail[:2], gated]})))
    assert by_gate.get("failures") == "1"
    assert by_gate.find(".//testcase[@name='report']/failure") is not None
    for state in (RunState.CANCELLED, RunState.RUNNING):
        suite = fromstring(junit(make_run(state, None)))
        assert suite.get("failures") == "1"
        assert suite.get("tests") == "4"
        assert suite.find(".//testcase[@name='run']/failure") is not None
    assert fromstring(junit(make_run(RunState.SUCCEEDED, None))).get("failures") == "0"


@pytest.mark.parametrize("name", ["[/b]", "[rank 0] of [/tmp/x]", "[red]", "\\[bold]"])
def test_what_people_wrote_is_printed_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(RunState.FAILED, 65)
    run = run.model_copy(update={"name": name, "detail": [run.detail[1].model_copy(update={"reason": name})]})

    class Platform:
        runs = property(lambda self: self)

        def __enter__(self) -> Platform:
            return self

        def __exit__(self, *_: object) -> None: ...

        def list(self, **_: object) -> list[RunOut]:
            return [run]

        def get(self, run_id: str) -> RunOut:
            return run

        def why(self, run_id: str) -> WhyOut:
            return WhyOut.model_construct(sentence=name)

        def run_page(self, run_id: str) -> str:
            return "http://x"

    monkeypatch.setattr(runs_commands, "client", Platform)
    for arguments in (["runs", "list"], ["runs", "show", run.id], ["runs", "why", run.id]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert name in result.output


def test_a_key_that_looks_like_markup_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(
        'version = 1\nname = "x"\n"[/red]" = 1\n[[stage]]\nid = "a"\nkind = "container"\ncontainer = { command = ["x"] }\n'
    )
    result = CliRunner().invoke(app, ["validate", str(bad)])
    assert result.exit_code == 2
    assert "unknown key '[/red]'" in result.stderr


def test_markdown_summary_keeps_its_table_whole() -> None:
    text = markdown(make_run(RunState.FAILED, 65), "http://x/runs/abcdefghjk")
    assert "| train | failed | 90 s | 1 |" in text
    assert "a \\| b" in text


def test_every_command_has_help_with_an_example_and_prints_json() -> None:
    _load_commands()
    runner = CliRunner()

    def walk(command: typer.core.TyperGroup | object, path: list[str]) -> None:
        names = getattr(command, "commands", {})
        result = runner.invoke(app, [*path, "-h"])
        assert result.exit_code == 0, result.output
        if not names:
            assert "Example: abruzzi" in result.output, path
            assert "--json" in result.output, path
        for name, child in names.items():
            walk(child, [*path, name])

    walk(typer.main.get_command(app), [])


def test_validate_exits_2_and_names_the_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('version = 1\nname = "x"\n[[stage]]\nid = "a"\nkind = "corpuss"\n')
    result = CliRunner().invoke(app, ["validate", str(bad)])
    assert result.exit_code == 2
    assert "bad.toml:5:1: stage.a.kind" in result.stderr.replace("\n", "")
    assert "'corpus'" in result.stderr


def test_plan_of_k2_tells_its_size_in_words_of_the_field() -> None:
    result = CliRunner().invoke(app, ["plan", str(RECIPES / "k2.toml")])
    assert result.exit_code == 0
    assert "1026.4B total, 32.86B active" in result.stdout
    assert "28.92 GB" in result.stdout


def test_set_without_equals_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="not KEY=VALUE"):
        overrides(["stage.a.seed"])
    assert overrides(["a.b=c=d"]) == {"a.b": "c=d"}


def test_profiles_prefer_the_environment_and_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ABRUZZI_URL", "ABRUZZI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ABRUZZI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(AbruzziError, match="No platform is known"):
        resolve_profile()
    path = save_profile("http://saved", "secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert resolve_profile().url == "http://saved"
    assert "secret" not in repr(resolve_profile())
    monkeypatch.setenv("ABRUZZI_URL", "http://other")
    with pytest.raises(AbruzziError, match="No token for http://other"):
        resolve_profile()
    token_file = tmp_path / "token"
    token_file.write_text("from-file\n")
    monkeypatch.setenv("ABRUZZI_TOKEN", str(token_file))
    assert resolve_profile().token == "from-file"


def test_own_files_are_found_beside_the_recipe_wherever_the_stage_runs() -> None:
    text = (
        (RECIPES / "tiny.toml")
        .read_text()
        .replace(
            'sources = ["python-stdlib"',
            'sources = ["./own/*.jsonl", "notes.txt", "/data/a.txt", "s3://b/c/", "python-stdlib"',
        )
    )
    (found,) = absolute_sources(load_recipe(text), Path("/recipes")).items()
    assert found[0] == "stage.corpus.data.sources"
    assert json.loads(found[1])[:5] == [
        "/recipes/own/*.jsonl",
        "/recipes/notes.txt",
        "/data/a.txt",
        "s3://b/c/",
        "python-stdlib",
    ]
    assert absolute_sources(load_recipe((RECIPES / "tiny.toml").read_text()), Path("/recipes")) == {}


def test_numbers_read_like_people_write_them() -> None:
    assert [duration(s) for s in (None, 3, 190, 7500, 400_000)] == ["–", "3s", "3m 10s", "2h 05m", "4.6d"]
    assert quantity(1.0264e12) == "1.03T"
    assert quantity(205.5e9, "FLOP") == "205.5 GFLOP"
    assert quantity(640) == "640"
