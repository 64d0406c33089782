"""What all commands share: consoles, the client, `--json`, and how times and sizes read."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console

from abruzzi.client import Client
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusStage, Recipe, SftStage
from abruzzi.contracts.states import AttemptState, RunState, StageState

# Where nobody looks at a terminal, lines are for other programs: wide enough that no column is cut.
OUTPUT = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
ERRORS = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, stable between versions.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value, such as stage.pretrain.seed=1. Repeatable."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or a prefix of it that is unique; `latest` is the newest.")
]
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe in TOML, or - for standard input.")]

STATE_STYLE: dict[str, str] = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "bold red",
    RunState.RUNNING: "cyan",
    RunState.CANCELLING: "yellow",
    RunState.CANCELLED: "yellow",
    RunState.INTERRUPTED: "yellow",
    RunState.PENDING: "dim",
    StageState.WAITING: "dim",
    StageState.SKIPPED: "dim",
    AttemptState.STOPPING: "yellow",
    AttemptState.STARTING: "cyan",
}
STATE_MARK: dict[str, str] = {
    "succeeded": "✓", "failed": "✗", "running": "●", "cancelled": "⊘", "cancelling": "⊘", "interrupted": "‖", "skipped": "–",
}  # fmt: skip


def client() -> Client:
    return Client()


def find_run(connection: Client, run_id: str) -> str:
    """Full id for `latest`, a unique prefix, or a full id."""
    if len(run_id) == 10 and run_id != "latest":
        return run_id
    matches = []
    for summary in connection.runs.list():
        if run_id == "latest":
            return summary.id
        if summary.id.startswith(run_id):
            matches.append(summary.id)
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise AbruzziError("not_found", f"There is no run {run_id!r} here.", hint="`abruzzi runs list` shows them.")
    raise AbruzziError(
        "ambiguous", f"{run_id!r} fits {len(matches)} runs: {', '.join(matches[:5])}.", hint="Give more letters."
    )


def print_json(value: Any) -> None:
    """Resources, lists of them, or plain data; non-ASCII kept."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def overrides(assignments: list[str] | None) -> dict[str, str]:
    """`--set a.b=c` as a mapping; usage error without `=`."""
    found: dict[str, str] = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--set")
        found[key.strip()] = value.strip()
    return found


def read_recipe(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise AbruzziError(
            "no_recipe", f"{path}: {error.strerror}.", hint="Recipes that ship: recipes/*.toml."
        ) from error


def absolute_sources(recipe: Recipe, base: Path) -> dict[str, str]:
    """Overrides that make a stage's own relative files absolute: it runs elsewhere. Relative to the recipe's folder."""
    found: dict[str, str] = {}
    for stage in recipe.stage:
        if isinstance(stage, CorpusStage | SftStage):
            given = {"sources": stage.data.sources}
            if isinstance(stage, SftStage):
                given["preferences"] = stage.data.preferences
            for key, named in given.items():
                sources = [str((base / s).absolute()) if _is_relative_file(s) else s for s in named]
                if sources != list(named):
                    found[f"stage.{stage.id}.data.{key}"] = json.dumps(sources)
    return found


def _is_relative_file(source: str) -> bool:
    """A path or glob, and no name of a shipped source, URL, or path from the root or a home."""
    looks_like_file = any(c in source for c in "/*?[") or source.endswith((".txt", ".md", ".jsonl", ".zst", ".parquet"))
    return looks_like_file and "://" not in source and not source.startswith(("/", "~"))


def state_text(state: str) -> str:
    return f"[{STATE_STYLE.get(state, 'white')}]{STATE_MARK.get(state, '○')} {state}[/]"


def age(moment: datetime | None, until: datetime | None = None) -> str:
    """`42s`, `3m 10s`, `2h 5m`, `4d`: from `moment` to `until` or now."""
    if moment is None:
        return "–"
    return duration(((until or datetime.now(UTC)) - moment).total_seconds())


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole / 86400:,.1f}d"


def quantity(number: float, unit: str = "") -> str:
    """Three or four significant digits and a factor of thousand: 32.86B."""
    for factor, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G" if unit else "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            digits = number / factor
            return (
                f"{digits:.1f}{' ' if unit else ''}{letter}{unit}"
                if digits >= 100
                else f"{digits:.2f}{' ' if unit else ''}{letter}{unit}"
            )
    return f"{number:g}{' ' if unit else ''}{unit}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
