"""`abruzzi tokens …`: access for people and CI."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, age, client, print_json
from abruzzi.contracts.states import Role

app = typer.Typer(
    help="Access tokens: made once, shown once, with an expiry.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list", epilog="Example: abruzzi tokens list")
def list_(as_json: JsonOption = False) -> None:
    """Tokens of the project; never their secrets."""
    with client() as connection:
        found = list(connection.tokens.list())
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("token", "name", "role", "state", "last used", "made"):
        table.add_column(column)
    for token in found:
        state = "revoked" if token.revoked_at else f"until {token.expires_at:%Y-%m-%d}"
        table.add_row(
            token.id,
            escape(token.name),
            token.role,
            state,
            age(token.last_used_at) + " ago" if token.last_used_at else "never",
            age(token.created_at) + " ago",
        )
    OUTPUT.print(table)


@app.command(epilog="Example: abruzzi tokens create ci --role member --days 90")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[
        Role, typer.Option(help="viewer reads, member submits, maintainer steers all runs, admin manages tokens.")
    ] = Role.MEMBER,
    days: Annotated[float, typer.Option(min=0.01, max=366, help="Until it expires.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Make a token. It is shown this once."""
    with client() as connection:
        made = connection.tokens.create(name, role, days=days)
    if as_json:
        print_json(made)
        return
    OUTPUT.print(made.token, soft_wrap=True)
    OUTPUT.print(
        f"[dim]{made.role} {escape(repr(made.name))}, until {made.expires_at:%Y-%m-%d}; shown this once. Use it as ABRUZZI_TOKEN.[/]"
    )


@app.command(epilog="Example: abruzzi tokens revoke TOKEN_ID")
def revoke(token: Annotated[str, typer.Argument(help="A token's id.")], as_json: JsonOption = False) -> None:
    """End a token now."""
    with client() as connection:
        connection.tokens.revoke(token)
    print_json({"revoked": token}) if as_json else OUTPUT.print(f"[green]✓[/] {escape(token)} is revoked")
