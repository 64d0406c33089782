"""What `abruzzi redteam` reads, writes and prints."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from abruzzi.client import Client
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.redteam import PAPER_MODELS, Plugin, Strategy
from abruzzi.contracts.safety_matrix import SafetyMatrix, safety_matrix
from abruzzi_jobs.safety.plugins import sub_plugins
from abruzzi_jobs.safety.printing import agreement_text, cell_text
from abruzzi_jobs.safety.promptfoo import from_promptfoo, to_promptfoo
from abruzzi_jobs.safety.run import rows_of, write


def read_folder(folder: Path) -> SafetyMatrix:
    """Raises AbruzziError bad_data."""
    return safety_matrix(rows_of(folder))


def read_artifact(artifact_id: str) -> SafetyMatrix:
    """Raises what the client raises."""
    with Client() as connection:
        return connection.artifacts.redteam(artifact_id).matrix


def export_folder(folder: Path, to: Path, *, as_json: bool) -> None:
    document = to_promptfoo(rows_of(folder), timestamp=datetime.now(UTC).isoformat())
    to.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stats = document["results"]["stats"]
    told = {"file": str(to), **{key: stats[key] for key in ("successes", "failures", "errors")}}
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
    else:
        Console(highlight=False).print(
            escape(f"{to}: {told['successes']} passed, {told['failures']} failed, {told['errors']} without a verdict.")
        )


def import_file(file: Path, out: Path) -> SafetyMatrix:
    """Raises AbruzziError bad_data, not_empty."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AbruzziError("bad_data", f"{file}: {error}.") from error
    if out.exists() and any(out.iterdir()):
        raise AbruzziError("not_empty", f"{out} is not empty.", hint="Name a new folder.")
    rows, outside = from_promptfoo(document)
    out.mkdir(parents=True, exist_ok=True)
    write(out, rows, None, short={}, seed=None)
    if outside:
        told = ", ".join(f"{name} {count}" for name, count in outside.items())
        sys.stderr.write(f"Left out, for they are not in the grid: {told}.\n")
    return safety_matrix(rows)


def print_matrix(matrix: SafetyMatrix, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(matrix.model_dump_json(indent=2) + "\n")
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    cells = {(cell.plugin, cell.strategy): cell for cell in matrix.cells}
    strategies = [s for s in Strategy if any(cell.strategy is s for cell in matrix.cells)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("plugin", *(s.value for s in strategies), "all"):
        table.add_column(column)
    for plugin in Plugin:
        if (plugin, None) not in cells:
            continue
        table.add_row(plugin.value, *(cell_text(cells.get((plugin, s))) for s in (*strategies, None)))
        paper = [cells[plugin, s].paper.get(PAPER_MODELS[0]) if (plugin, s) in cells else None for s in strategies]
        table.add_row(
            *(f"[dim]{text}[/]" for text in (PAPER_MODELS[0], *("–" if v is None else f"{v:.2f} %" for v in paper), ""))
        )
    console.print(table)
    console.print("[dim]Pass rate (passed/n, Wilson's 95 % interval); what waits for a person counts as failed.[/]")
    for agreement in matrix.agreement:
        if agreement.rows:
            console.print(f"[dim]{agreement_text(agreement)}.[/]")


def print_plugins(*, as_json: bool) -> None:
    found = [
        {"plugin": e.plugin.value, "sub_plugin": e.name, "must_not": e.must_not, "promptfoo": e.promptfoo, "canaries": len(e.canaries)}
        for e in sub_plugins().values()
    ]  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("plugin", "sub_plugin", "must_not", "promptfoo"):
        table.add_column(column.replace("_", " "))
    for entry in found:
        table.add_row(*(str(entry[column]) for column in ("plugin", "sub_plugin", "must_not", "promptfoo")))
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table)
