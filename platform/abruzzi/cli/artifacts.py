"""`abruzzi artifacts …`: what the stages made."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, RunArgument, age, client, find_run, print_json
from abruzzi.contracts.dataset import DatasetOut
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.states import ArtifactKind

app = typer.Typer(
    help="Outputs of stages: corpora, tokenizers, checkpoints, reports.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ArtifactArgument = Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact's id.")]


@app.command("list", epilog="Example: abruzzi artifacts list latest --kind checkpoint")
def list_(
    run: RunArgument,
    stage: Annotated[str | None, typer.Option(help="Only of this stage.")] = None,
    kind: Annotated[ArtifactKind | None, typer.Option(help="Only of this kind.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Artifacts of a run, oldest first."""
    with client() as connection:
        found = list(connection.artifacts.list(find_run(connection, run), stage_id=stage, kind=kind))
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("artifact", "kind", "name", "stage", "size", "verified", "made"):
        table.add_column(column, no_wrap=True)
    for item in found:
        mark = "removed" if item.deleted_at else "✓" if item.verified_at else "–"
        table.add_row(
            item.id,
            item.kind,
            escape(item.name),
            item.stage_id,
            decimal(item.size_bytes),
            mark,
            age(item.created_at) + " ago",
        )
    OUTPUT.print(table if found else "This run has made nothing yet.")


@app.command(epilog="Example: abruzzi artifacts show ARTIFACT")
def show(artifact: ArtifactArgument, as_json: JsonOption = False) -> None:
    """One artifact: files, digests, facts, lineage."""
    with client() as connection:
        found = connection.artifacts.get(artifact)
        manifest = connection.artifacts.manifest(artifact)
    if as_json:
        print_json({"artifact": found, "manifest": manifest})
        return
    OUTPUT.print(
        f"[bold]{found.kind} {escape(found.name)}[/]  {found.id}\n[dim]{found.digest}\n{found.manifest_key}[/]"
    )
    for key, value in found.meta.items():
        OUTPUT.print(f"  {key} = {value}", markup=False)
    for entry in manifest.files:
        OUTPUT.print(f"  {decimal(entry.size_bytes):>10}  {entry.path}", markup=False)


@app.command(epilog="Example: abruzzi artifacts rows ARTIFACT --noun rewrites --fate number --limit 5")
def rows(
    artifact: ArtifactArgument,
    noun: Annotated[
        str | None,
        typer.Option(help="Of what: train, rewrites, tools, trajectories, … By default the artifact's first."),
    ] = None,
    fate: Annotated[
        list[str] | None, typer.Option(help="Only those kept, or rejected for this reason; repeat for any.")
    ] = None,
    q: Annotated[str, typer.Option(help="Only those with this text.")] = "",
    where: Annotated[list[str] | None, typer.Option(help="Only those where key:value; repeat for all.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Look into a corpus, rewrites, tools, trajectories or conversations, row by row."""
    with client() as connection:
        noun = noun or _first_noun(artifact, connection.artifacts.dataset(artifact))
        cut = None if as_json else 400
        found = connection.artifacts.rows(artifact, noun, fate=fate or (), q=q, where=where or (), cut=cut)
        shown = list(islice(found, limit))
    if as_json:
        print_json([item.row for item in shown])
        return
    for item in shown:
        row = item.row
        said = f"  [bold]{item.review.verdict}ed[/] by {escape(item.review.by)}" if item.review else ""
        title = escape(_brief(row.get("id", item.position)))
        OUTPUT.print(f"[bold]{title}[/]  {escape(_brief(row.get('fate', '')))}{said}")
        for key, value in row.items():
            if key not in ("id", "fate"):
                OUTPUT.print(f"  {_brief(key)} = {_brief(value)}", markup=False, highlight=False)
    if not shown:
        OUTPUT.print("No such rows. `abruzzi artifacts show ARTIFACT` lists its files.")


@app.command(epilog="Example: abruzzi artifacts pull ARTIFACT --to ./checkpoint")
def pull(
    artifact: ArtifactArgument,
    to: Annotated[Path | None, typer.Option(help="Folder; by default the artifact's name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Download an artifact and check every digest."""
    with client() as connection:
        folder = to or Path(connection.artifacts.get(artifact).name)

        def tell(path: str, size: int) -> None:
            if not as_json:
                OUTPUT.print(f"  {decimal(size):>10}  {path}", markup=False)

        manifest = connection.artifacts.pull(artifact, folder, on_file=tell)
    if as_json:
        print_json({"artifact": artifact, "folder": str(folder), "manifest": manifest})
        return
    said = f"{len(manifest.files)} files, {decimal(manifest.size_bytes)}, digests verified"
    OUTPUT.print(f"[green]✓[/] {escape(str(folder))}: {said}")


def _first_noun(artifact: str, dataset: DatasetOut) -> str:
    """Raises NotFound where it has no rows."""
    names = [noun.noun for noun in dataset.nouns]
    if not names:
        hint = "Corpora, tools, trajectories and conversations have them; `abruzzi artifacts show` lists the files."
        raise NotFound("file of rows in artifact", artifact, hint=hint)
    return next(
        (name for name in ("rewrites", "trajectories", "conversations", "tools", "train") if name in names), names[0]
    )


def _brief(value: object) -> str:
    """In one line. Stages wrote it: nothing in it may steer the terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
    return text if len(text) <= 300 else text[:300] + "…"


@app.command(epilog="Example: abruzzi artifacts export ARTIFACT --to ./tiny-k2-hf")
def export(
    artifact: ArtifactArgument,
    to: Annotated[Path, typer.Option(help="Folder to write.")] = Path("export"),
    as_json: JsonOption = False,
) -> None:
    """Export a checkpoint as a Hugging Face DeepseekV3 folder, with the run's tokenizer."""
    found = {point.name: point for point in entry_points(group="abruzzi.exporters")}
    if "huggingface" not in found:
        raise AbruzziError(
            "no_exporter", "abruzzi-jobs is not installed here.", hint="Run it where the platform is installed."
        )
    with client() as connection, TemporaryDirectory() as scratch:
        checkpoint = connection.artifacts.get(artifact)
        if checkpoint.kind is not ArtifactKind.CHECKPOINT:
            raise AbruzziError(
                "no_checkpoint",
                f"{artifact} is a {checkpoint.kind}, no checkpoint.",
                hint=f"`abruzzi artifacts list {checkpoint.run_id} --kind checkpoint`",
            )
        connection.artifacts.pull(artifact, Path(scratch) / "checkpoint")
        tokenizers = list(connection.artifacts.list(checkpoint.run_id, kind=ArtifactKind.TOKENIZER))
        if tokenizers:
            connection.artifacts.pull(tokenizers[-1].id, Path(scratch) / "tokenizer")
        written = found["huggingface"].load()(
            Path(scratch) / "checkpoint", to, Path(scratch) / "tokenizer" if tokenizers else None
        )
    names = [path.name for path in written]
    if as_json:
        print_json({"artifact": artifact, "folder": str(to), "files": names})
    else:
        OUTPUT.print(f"[green]✓[/] {escape(str(to))}: {', '.join(names)}")
