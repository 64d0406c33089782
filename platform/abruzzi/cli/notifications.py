"""`abruzzi notifications …`: who is told of what, and what could not be sent."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, age, client, print_json
from abruzzi.contracts.notification import Channel, DeliveryState, Topic

app = typer.Typer(
    help="Webhooks and e-mail about runs and artifacts.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DELIVERY_STYLE = {"sent": "green", "quarantined": "bold red", "pending": "cyan", "cancelled": "dim"}


@app.command("list", epilog="Example: abruzzi notifications list")
def list_(as_json: JsonOption = False) -> None:
    """Subscriptions of the project."""
    with client() as connection:
        found = list(connection.notifications.list())
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("subscription", "channel", "target", "topics", "made"):
        table.add_column(column)
    for item in found:
        table.add_row(item.id, item.channel, escape(item.target), " ".join(item.topics), age(item.created_at) + " ago")
    OUTPUT.print(table)


@app.command(epilog="Example: abruzzi notifications subscribe https://hooks.example.org/abruzzi --topic run.failed")
def subscribe(
    target: Annotated[str, typer.Argument(help="A webhook's URL, or an e-mail address.")],
    topic: Annotated[list[Topic] | None, typer.Option(help="What to be told of. Repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Be told when a run ends. The secret that signs a webhook is shown this once."""
    channel = Channel.WEBHOOK if "://" in target else Channel.EMAIL
    with client() as connection:
        made = connection.notifications.subscribe(channel, target, topic or [Topic.RUN_ENDED])
    if as_json:
        print_json(made)
        return
    OUTPUT.print(f"[green]✓[/] {made.id}: {' '.join(made.topics)} by {made.channel}")
    if made.secret:
        OUTPUT.print(made.secret, soft_wrap=True)
        OUTPUT.print(
            "[dim]Signs what is sent (Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature). Shown once.[/]"
        )
    OUTPUT.print(f"[dim]Try it: abruzzi notifications test {made.id}[/]")


@app.command(epilog="Example: abruzzi notifications unsubscribe SUBSCRIPTION")
def unsubscribe(
    subscription: Annotated[str, typer.Argument(help="A subscription's id.")], as_json: JsonOption = False
) -> None:
    """End a subscription. What was not sent yet is cancelled."""
    with client() as connection:
        connection.notifications.unsubscribe(subscription)
    print_json({"ended": subscription}) if as_json else OUTPUT.print(f"[green]✓[/] {escape(subscription)} is ended")


@app.command("test", epilog="Example: abruzzi notifications test SUBSCRIPTION")
def send_test(
    subscription: Annotated[str, typer.Argument(help="A subscription's id.")], as_json: JsonOption = False
) -> None:
    """Send something now, to see that it arrives."""
    with client() as connection:
        made = connection.notifications.test(subscription)
    print_json(made) if as_json else OUTPUT.print(f"{made.id} is on its way: abruzzi notifications deliveries")


@app.command(epilog="Example: abruzzi notifications deliveries --state quarantined")
def deliveries(
    state: Annotated[DeliveryState | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """What was sent, what waits, and what was given up, with the last error."""
    with client() as connection:
        found = list(islice(connection.notifications.deliveries(state=state), limit))
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("delivery", "subscription", "topic", "state", "tries", "made", "last error"):
        table.add_column(column)
    for item in found:
        state_text = f"[{DELIVERY_STYLE[item.state]}]{item.state}[/]"
        table.add_row(
            item.id, item.subscription_id, item.topic, state_text, str(item.tries), age(item.created_at) + " ago", escape(item.error or "")
        )  # fmt: skip
    OUTPUT.print(table)


@app.command(epilog="Example: abruzzi notifications retry DELIVERY")
def retry(
    item: Annotated[str, typer.Argument(metavar="ID", help="A quarantined delivery (msg_…) or message (a number).")],
    as_json: JsonOption = False,
) -> None:
    """Try again what was quarantined."""
    with client() as connection:
        notifications = connection.notifications
        again = notifications.release(item) if item.isdigit() else notifications.retry(item)
    print_json(again) if as_json else OUTPUT.print(f"{item} is tried again: abruzzi notifications work")


@app.command(epilog="Example: abruzzi notifications work")
def work(as_json: JsonOption = False) -> None:
    """The platform's side work: chores with their last outcome, and messages that could not be handled."""
    with client() as connection:
        chores, messages = list(connection.notifications.chores()), list(connection.notifications.quarantine())
    if as_json:
        print_json({"chores": chores, "quarantined": messages})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("chore", "went well", "facts", "failures", "last error"):
        table.add_column(column)
    for chore in chores:
        facts = " ".join(f"{name} {value}" for name, value in chore.facts.items())
        went_well = age(chore.ended_at) + " ago" if chore.ended_at else "not yet"
        table.add_row(chore.name, went_well, facts, str(chore.failures or ""), escape(chore.error or ""))
    OUTPUT.print(table)
    for message in messages:
        OUTPUT.print(
            f"[bold red]quarantined[/] {message.id} {message.kind}: {escape(message.error or '')}", soft_wrap=True
        )
