"""`abruzzi rollouts`: reads what an `rl` stage played. The heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from abruzzi.contracts.errors import AbruzziError

app = typer.Typer(help="Read trajectories of reinforcement learning.", no_args_is_help=True)


@app.callback()
def rollouts() -> None:
    """Read trajectories of reinforcement learning."""


@app.command(epilog="Example: abruzzi rollouts show ./rollouts --group g0000012")
def show(
    where: Annotated[
        str, typer.Argument(metavar="FOLDER|ARTIFACT", help="A pulled `rollouts` artifact, or the id of one.")
    ],
    row: Annotated[list[str] | None, typer.Option(help="The trajectory of this id. Repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="All members of this group, compared.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many, drawn at random, where none is named.")] = 1,
    seed: Annotated[int, typer.Option(help="Which are drawn.")] = 0,
    fate: Annotated[str | None, typer.Option(help="Only these: kept, or the status that they ended with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Print trajectories segment by segment, each policy version in its colour."""
    from abruzzi_jobs.data.row_choice import drawn, rows_at
    from abruzzi_jobs.rl.rollout.printing import readable, readable_group

    rows = rows_at(where, "rollouts")
    if group is not None:
        chosen = [one for one in rows if one["group"] == group]
        if not chosen:
            raise AbruzziError("not_found", f"There is no group {group!r}.", status=404)
    else:
        chosen = drawn(rows, ids=row or (), sample=sample, seed=seed, fate=fate)
    if as_json:
        sys.stdout.write(json.dumps(chosen, indent=1, ensure_ascii=False) + "\n")
    elif group is not None:
        typer.echo(readable_group(chosen), nl=False)
    else:
        typer.echo("\n".join(map(readable, chosen)), nl=False)
