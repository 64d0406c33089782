"""`abruzzi backup …`: of the embedded platform in a home, or, where ABRUZZI_OWNER_DATABASE_URL is set, of the one that the environment names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape

from abruzzi.backup import service
from abruzzi.backup.service import Backup
from abruzzi.cli.session import ERRORS, OUTPUT, JsonOption, print_json
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import DirectoryStore
from abruzzi.kit.settings import Settings
from abruzzi.store import ObjectStore, open_store
from abruzzi_operators.supervisor.home import Home
from abruzzi_operators.supervisor.postgres import ROLES, EmbeddedPostgres

app = typer.Typer(
    help="Backups: Postgres and the object store as they were at one moment, in one folder.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
HomeOption = Annotated[
    Path,
    typer.Option(
        envvar="ABRUZZI_HOME", help="Of an embedded platform. Not looked at where ABRUZZI_OWNER_DATABASE_URL is set."
    ),
]
BackupArgument = Annotated[
    Path, typer.Argument(metavar="BACKUP", help="A folder abruzzi-<time> that `create` has made.")
]
_HOME = Path("~/.abruzzi")
Ground = tuple[Mapping[str, str], ObjectStore]
"""Connection strings by role, and the object store."""


@app.command(epilog="Example: abruzzi backup create /backups --keep 7")
def create(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where backups lie; each gets a folder of its own.")],
    home: HomeOption = _HOME,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but so many of the newest, once this one is whole.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rows of one moment and all objects that they name. The platform may run meanwhile. Exit code 1 when the store had lost something already."""
    with _ground(home) as (urls, store):
        path, made = service.create(folder, urls["abruzzi_owner"], store, now=datetime.now(UTC))
    removed = service.expire(folder, keep=keep) if keep else []
    if as_json:
        print_json({"path": str(path), **_summary(made), "removed": [str(each) for each in removed]})
    else:
        OUTPUT.print(f"{escape(str(path))}: {_sentence(made)}", soft_wrap=True)
        for sentence in made.damaged:
            ERRORS.print(f"[yellow]damaged in the store[/] {escape(sentence)}", soft_wrap=True)
    if made.damaged:
        raise typer.Exit(1)


@app.command(epilog="Example: abruzzi backup verify /backups/abruzzi-20251126T030000Z")
def verify(backup: BackupArgument, as_json: JsonOption = False) -> None:
    """Read a whole backup and compare every digest. Needs neither database nor store. Exit code 1 when something is damaged."""
    made, faults = service.read(backup), list(service.verify(backup))
    if as_json:
        print_json({"path": str(backup), **_summary(made), "faults": faults})
    elif not faults:
        OUTPUT.print(f"Whole: {_sentence(made)}", soft_wrap=True)
    for fault in [] if as_json else faults:
        ERRORS.print(f"[bold red]damaged[/] {escape(fault)}", soft_wrap=True)
    if faults:
        raise typer.Exit(1)


@app.command(epilog="Example: abruzzi backup restore /backups/abruzzi-20251126T030000Z --home ./restored")
def restore(
    backup: BackupArgument,
    home: HomeOption = _HOME,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a database and a store that hold something already.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a platform that does not run back to a backup's state. Everything is verified before anything is written."""
    with _ground(home, alone=True) as (urls, store):
        made = service.restore(backup, urls["abruzzi_owner"], store, role_urls=urls, overwrite=overwrite)
    if as_json:
        print_json(_summary(made))
        return
    OUTPUT.print(f"Restored: {_sentence(made)}", soft_wrap=True)
    if Settings().owner_database_url is not None:
        OUTPUT.print(
            "Where stages run on a cluster, before its controllers start: `abruzzi backup clear NAMESPACE` (of the stages) "
            "removes what has run there since.",
            soft_wrap=True,
            markup=False,
        )


@app.command(epilog="Example: abruzzi backup clear abruzzi-stages")
def clear(
    namespace: Annotated[str, typer.Argument(help="Of the stages.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """After a restore to an older state: remove from the cluster what has run there since, while no controller runs. What goes is told first.

    Workloads, Secrets and policies of attempts, and the fence, which would refuse attempts whose numbers are counted anew. The cluster is
    KUBECONFIG's, or the pod's own."""
    # Seconds of imports that the other commands need not.
    from abruzzi_operators.executors import clearing
    from abruzzi_operators.kubernetes.access import Access
    from abruzzi_operators.kubernetes.rest_api import RestApi

    access = Access()

    async def look() -> clearing.Left:
        async with RestApi(access) as api:
            return await clearing.look(api, namespace)

    async def remove() -> clearing.Left:
        async with RestApi(access) as api:
            return await clearing.clear(api, namespace)

    def counted(found: clearing.Left) -> dict[str, int]:
        return {kind.plural: len(things) for kind, things in found.items()}

    found = counted(asyncio.run(look()))
    said = ", ".join(f"{count} {kind}" for kind, count in found.items())
    if found and not yes:
        typer.confirm(
            f"Remove from namespace {namespace} of {access.server}: {said}? Whatever runs there ends",
            abort=True,
            err=True,
        )
    removed = counted(asyncio.run(remove()))
    if as_json:
        print_json({"namespace": namespace, "removed": removed})
    else:
        said = ", ".join(f"{count} {kind}" for kind, count in removed.items()) or "nothing was there"
        OUTPUT.print(f"Cleared {namespace}: {said}", soft_wrap=True, markup=False)


@contextmanager
def _ground(home: Path, *, alone: bool = False) -> Iterator[Ground]:
    """`alone`: an embedded platform must not run meanwhile."""
    settings = Settings()
    if settings.owner_database_url is not None:
        urls = {
            "abruzzi_owner": settings.owner_database_url,
            "abruzzi_app": settings.database_url,
            "abruzzi_controller": settings.controller_database_url,
        }
        if settings.store is None:
            raise SystemExit("ABRUZZI_STORE is not set")
        yield {role: url.get_secret_value() for role, url in urls.items() if url}, open_store(settings.store)
        return
    place = Home(home)
    if not alone and not (place.path / "postgres" / "data").exists():
        raise AbruzziError(
            "no_platform",
            f"There is no platform in {place.path}.",
            status=404,
            hint="Name its directory with --home, or set ABRUZZI_OWNER_DATABASE_URL and ABRUZZI_STORE.",
        )
    store = open_store(DirectoryStore(root=str(place.path / "store")))
    with _embedded_postgres(place, alone) as postgres:
        yield {role: postgres.dsn(role, "abruzzi") for role in ROLES}, store


@contextmanager
def _embedded_postgres(home: Home, alone: bool) -> Iterator[EmbeddedPostgres]:
    """The home's server: started here, or the one that runs."""
    try:
        home.take()
    except AbruzziError as error:
        if alone or error.code != "home_in_use":
            raise
        postgres = EmbeddedPostgres(home.path / "postgres", passwords=home.secrets()["database_passwords"])
        postgres.attach()
        yield postgres
        return
    try:
        postgres = EmbeddedPostgres(
            home.path / "postgres", log_path=home.log("postgres"), passwords=home.secrets()["database_passwords"]
        )
        with postgres:
            yield postgres
    finally:
        home.release()


def _summary(made: Backup) -> dict[str, object]:
    return {
        "created_at": made.created_at.isoformat(),
        "revision": made.revision,
        "rows": {name: table.rows for name, table in made.tables.items()},
        "objects": made.objects,
        "object_bytes": made.object_bytes,
        "gone": made.gone,
        "damaged": made.damaged,
    }


def _sentence(made: Backup) -> str:
    rows = sum(table.rows for table in made.tables.values())
    return f"{rows} rows of {len(made.tables)} tables, {made.objects} objects of {decimal(made.object_bytes)}, as of {made.created_at:%Y-%m-%d %H:%M:%S} UTC"
