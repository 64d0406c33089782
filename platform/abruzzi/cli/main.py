"""`abruzzi`: one noun, one file. Commands of other distributions join through the entry-point group `abruzzi.commands`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer
from rich.markup import escape

from abruzzi.cli import (
    artifacts,
    compare,
    doctor,
    evaluate,
    evaluations,
    login,
    logs,
    metrics,
    nodes,
    notifications,
    pools,
    recipe,
    run,
    runs,
    tokens,
    usage,
)
from abruzzi.cli.session import ERRORS
from abruzzi.contracts.errors import AbruzziError

EXIT_FAILED, EXIT_USAGE = 1, 2

app = typer.Typer(
    name="abruzzi",
    help="Train an agentic language model the way Kimi K2 was trained: on this machine with `abruzzi up`, on a cluster by Helm.",
    epilog="Start with: abruzzi demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
app.command("run", epilog="Example: abruzzi run recipes/tiny.toml --set stage.pretrain.optimizer.peak_lr=1e-3 --wait")(
    run.run
)
app.command("validate", epilog="Example: abruzzi validate recipes/tiny.toml")(recipe.validate)
app.command("plan", epilog="Example: abruzzi plan recipes/k2.toml")(recipe.plan)
app.add_typer(runs.app, name="runs")
app.command("compare", epilog="Example: abruzzi compare RUN_A RUN_B --key train/loss")(compare.compare)
app.command("eval", epilog="Example: abruzzi eval --suite demo --target latest --fail-below 0.5 --markdown summary.md")(
    evaluate.evaluate
)
app.add_typer(evaluations.app, name="evaluations")
app.command("logs", epilog="Example: abruzzi logs RUN pretrain --follow")(logs.logs)
app.command("metrics", epilog="Example: abruzzi metrics RUN train/loss train/lr")(metrics.metrics)
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(tokens.app, name="tokens")
app.add_typer(notifications.app, name="notifications")
app.add_typer(pools.app, name="pools")
app.add_typer(nodes.app, name="nodes")
app.command("usage", epilog="Example: abruzzi usage --by cause --from 2026-11-01")(usage.usage)
app.command("doctor", epilog="Example: abruzzi doctor")(doctor.doctor)
app.command("login", epilog="Example: abruzzi login https://abruzzi.example.org")(login.login)


def _load_commands() -> None:
    for point in sorted(entry_points(group="abruzzi.commands"), key=lambda p: p.name):
        loaded = point.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=point.name)
        else:
            app.command(point.name)(loaded)


def main() -> None:
    """Console script. An AbruzziError becomes its message and hint on standard error, and exit code 1 (2 for a bad recipe)."""
    _load_commands()
    try:
        app()
    except AbruzziError as error:
        ERRORS.print(f"[bold red]error[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            ERRORS.print(f"      {escape(error.hint)}", soft_wrap=True, style="dim")
        sys.exit(EXIT_USAGE if error.code == "recipe_invalid" else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
