"""The supervisor behind `abruzzi up`: starts PostgreSQL, API and controller, restarts each that ends, stops all in good order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import DirectoryStore
from abruzzi.engine.policy import GRACE_SECONDS
from abruzzi_operators.supervisor.address import hold_port, reachable
from abruzzi_operators.supervisor.attempts import end_attempts, gone, living_attempts, request_stops
from abruzzi_operators.supervisor.child import STOP_SECONDS, Child, PostgresChild, PythonChild, last_line
from abruzzi_operators.supervisor.home import Home
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres
from abruzzi_operators.supervisor.process import Process, describe, end

API_TARGET = "abruzzi_api.main:main"
CONTROLLER_TARGET = "abruzzi_operators.controller.main:main"
PREPARE_TARGET = "abruzzi_operators.supervisor.database:prepare"
INTERRUPT_TARGET = "abruzzi_operators.supervisor.database:interrupt"
"""What the children run: MODULE:FUNCTION."""
START_TRIES = 3
"""So often a child may end before the platform is up; then it does not start."""
PAUSES_SECONDS = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each restart of a child that keeps ending."""
SETTLED_SECONDS = 10.0
"""A child that lived this long begins anew with the pauses."""
PROBE_SECONDS = 0.05
SAVE_SECONDS = GRACE_SECONDS + 15.0
"""How long Ctrl-C waits for attempts to save: the engine's grace, and time to write down how they ended."""
KILL_SECONDS = 5.0
PATIENCE_SECONDS = 2 * SAVE_SECONDS + 3 * KILL_SECONDS + 3 * STOP_SECONDS
"""The longest that a stop takes: the runs are told, their processes are, what is left is killed, three children go."""

Say = Callable[[str], None]


class Supervisor:
    """`run` from the main thread: children are bound to the thread that started them."""

    def __init__(
        self, home: Path, *, host: str = "127.0.0.1", port: int | None = None, say: Say, show_token: bool = True
    ) -> None:
        """`show_token`: whether whoever reads what it says may have the administrator's token."""
        self._home = Home(home)
        self._host = host
        self._asked_port = port
        self._print = say
        self._show_token = show_token
        self._began = time.monotonic()
        self._started_at = time.time()
        self._processes: dict[str, Process] = {}
        self._ready: dict[str, asyncio.Event] = {}
        self._failure: BaseException | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._postgres: PostgresChild | None = None
        self._controller: PythonChild | None = None
        self._api: PythonChild | None = None
        self._is_up = False
        self._url = ""

    async def run(self) -> None:
        """Until SIGINT, SIGTERM or SIGHUP. Raises AbruzziError when it cannot start."""
        self._home.take()
        keepers: list[asyncio.Task[None]] = []
        held = None
        try:
            self._listen_for_signals()
            held = hold_port(self._host, self._asked_port, self._home.last_port())
            port = held.getsockname()[1]
            self._url = f"http://{reachable(self._host)}:{port}"
            self._home.announce(self._url)
            self._home.remember_port(port)
            token = self._home.token()
            key = f"/#token={token}" if self._show_token else f"  (the token is in {self._home.path / 'token'})"
            self._say(f"Dashboard  {self._url}{key}")
            await self._start(port, keepers)
            await self._stop.wait()
            await self._save_runs()
        finally:
            self._stop.set()
            await self._stop_children(keepers)
            if held is not None:
                held.close()
            self._home.release()
        if self._failure is not None:
            raise self._failure

    async def _start(self, port: int, keepers: list[asyncio.Task[None]]) -> None:
        postgres = EmbeddedPostgres(
            self._home.path / "postgres",
            log_path=self._home.log("postgres"),
            passwords=self._home.secrets()["database_passwords"],
        )
        self._postgres = PostgresChild(postgres)
        postgres.configure()
        self._environment = self._child_environment(postgres, port)
        preparation = self._python_child("database", PREPARE_TARGET)
        self._api = self._python_child("api", API_TARGET, ready=lambda: self._answers(port))
        self._controller = self._python_child("controller", CONTROLLER_TARGET)
        # Their imports run while the database starts.
        for child in (preparation, self._api, self._controller):
            child.prepare()
        keepers.append(self._watched(self._keep(self._postgres)))
        if not await self._until_ready(self._postgres):
            return
        await asyncio.to_thread(postgres.ensure_roles)
        process = await preparation.start()
        code = await process.wait()
        await preparation.stop(process)
        if code != 0:
            raise _start_failed(preparation, describe(code))
        keepers.append(self._watched(asyncio.to_thread(postgres.checkpoint)))
        keepers += [self._watched(self._keep(child)) for child in (self._controller, self._api)]
        if await self._until_ready(self._controller) and await self._until_ready(self._api):
            self._is_up = True
            self._note_children()
            self._say(
                f"Ready after {time.monotonic() - self._began:.1f} s. State: {self._home.path}. Ctrl-C stops it; runs continue at the next start."
            )

    async def _keep(self, child: Child) -> None:
        """Restart `child` for as long as the platform lives."""
        ready = self._ready.setdefault(child.name, asyncio.Event())
        tries = 0
        while not self._stop.is_set():
            process = await child.start()
            born = time.monotonic()
            self._processes[child.name] = process
            self._note_children()
            watch = self._watched(self._announce_ready(child, process, ready))
            code = await process.wait()
            watch.cancel()
            if self._stop.is_set():
                return
            tries = 1 if time.monotonic() - born > SETTLED_SECONDS else tries + 1
            if not self._is_up and tries >= START_TRIES:
                self._fail(_start_failed(child, describe(code)))
                return
            pause = PAUSES_SECONDS[min(tries - 1, len(PAUSES_SECONDS) - 1)]
            trouble = f" It keeps ending: {last_line(child.log_path)} (read {child.log_path})." if pause else ""
            self._say(f"{child.name:<10} {describe(code)}; starting it again.{trouble}")
            if pause:
                await _first(asyncio.sleep(pause), self._stop.wait())

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task whose failure ends the platform instead of being lost."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _announce_ready(self, child: Child, process: Process, ready: asyncio.Event) -> None:
        await child.wait_ready(process)
        again = "again " if ready.is_set() else ""
        self._say(f"{child.name:<10} ready {again}(process {process.pid}, {time.monotonic() - self._began:.1f} s)")
        ready.set()

    async def _until_ready(self, child: Child) -> bool:
        """False when the platform is going down instead."""
        await _first(self._ready.setdefault(child.name, asyncio.Event()).wait(), self._stop.wait())
        return not self._stop.is_set()

    async def _answers(self, port: int) -> None:
        while not await _is_ready(reachable(self._host), port):
            await asyncio.sleep(PROBE_SECONDS)

    async def _save_runs(self) -> None:
        """Ctrl-C, or a failure of the supervisor's own: every attempt saves and ends; its run is continued by the next `abruzzi up`."""
        if not self._is_up:
            return  # attempts of an earlier platform, which this one never took over, wait for the next
        attempts = living_attempts(self._home.attempts)
        if attempts:
            self._say(f"Stopping: {len(attempts)} running attempts save their work (Ctrl-C again does not wait).")
        if not await self._tell_runs() and not self._hurry.is_set():
            self._say(f"The runs could not be told (read {self._home.logs / 'database.log'}); their processes are.")
            if (controller := self._processes.get("controller")) is not None:
                await end(controller, signal.SIGTERM, seconds=KILL_SECONDS)
            request_stops(self._home.attempts, grace_seconds=GRACE_SECONDS)
        await _first(self._hurry.wait(), gone(self._home.attempts, seconds=SAVE_SECONDS))

    async def _tell_runs(self) -> bool:
        """By the database, so that the controller stops each attempt and writes down how it ended. False when that did not work."""
        interruption = self._python_child("database", INTERRUPT_TARGET)
        process = None
        try:
            process = await interruption.start()
            # Without the controller nobody would act on what the database says.
            controller = self._processes["controller"].wait()
            await _first(process.wait(), controller, self._hurry.wait(), asyncio.sleep(SAVE_SECONDS))
            return process.returncode == 0
        except OSError as error:  # no process can be started, perhaps what brought the platform down
            self._say(f"Cannot start a process: {error.strerror}.")
            return False
        finally:
            await interruption.stop(process)

    async def _stop_children(self, keepers: list[asyncio.Task[None]]) -> None:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        # The controller first, so that nobody starts what is being ended.
        if self._controller is not None:
            await self._controller.stop(self._processes.get("controller"))
        if self._is_up:
            await end_attempts(self._home.attempts, seconds=KILL_SECONDS)
        if self._api is not None:
            await self._api.stop(self._processes.get("api"))
        if self._postgres is not None:
            await self._postgres.stop(self._processes.get("postgres"))

    def _python_child(
        self, name: str, target: str, *, ready: Callable[[], Awaitable[None]] | None = None
    ) -> PythonChild:
        log_path, environment = self._home.log(name), self._environment
        return PythonChild(name, target, log_path=log_path, environment=environment, ready=ready)

    def _child_environment(self, postgres: EmbeddedPostgres, port: int) -> dict[str, str]:
        private = {"ABRUZZI_TOKEN", "ABRUZZI_URL"}
        environment = {name: value for name, value in os.environ.items() if name not in private}
        return environment | {
            "ABRUZZI_HOME": str(self._home.path),
            "ABRUZZI_HOST": self._host,
            "ABRUZZI_PORT": str(port),
            "ABRUZZI_URL": self._url,
            "ABRUZZI_STORE": DirectoryStore(root=str(self._home.path / "store")).model_dump_json(),
            "ABRUZZI_DATABASE_URL": postgres.dsn("abruzzi_app", "abruzzi"),
            "ABRUZZI_CONTROLLER_DATABASE_URL": postgres.dsn("abruzzi_controller", "abruzzi"),
            "ABRUZZI_OWNER_DATABASE_URL": postgres.dsn("abruzzi_owner", "abruzzi"),
            "ABRUZZI_SIGNING_KEY": self._home.secrets()["signing_key"],
            "ABRUZZI_ADMIN_TOKEN": self._home.token(),
            **({"ABRUZZI_WEB_DIR": str(web)} if (web := _web_dir()) else {}),
            "PYTHONUNBUFFERED": "1",
        }

    def _say(self, text: str) -> None:
        # Nobody may be listening any more (`abruzzi up | head`, a terminal that was closed: EIO, a full disk behind `> log`).
        # That is no reason to stop, and least of all to stop without saving.
        with contextlib.suppress(OSError):
            self._print(text)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stop.set()

    def _note_children(self) -> None:
        if self._is_up:
            children = {name: process.pid for name, process in self._processes.items()}
            self._home.write_up(url=self._url, started_at=self._started_at, children=children)


def _start_failed(child: Child, what: str) -> AbruzziError:
    return AbruzziError(
        "start_failed",
        f"The {child.name} {what} while starting: {last_line(child.log_path)}",
        status=500,
        hint=f"Read {child.log_path}.",
    )


async def _is_ready(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host.strip("[]"), port)
    except OSError:
        return False
    try:
        writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        status = await asyncio.wait_for(reader.readline(), 2.0)
        return b" 200 " in status
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


async def _first(*waits: Awaitable[Any]) -> None:
    """Returns when one of them is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _web_dir() -> Path | None:
    """The built dashboard of the checkout, unless the environment names one."""
    if os.environ.get("ABRUZZI_WEB_DIR"):
        return None
    built = Path(__file__).resolve().parents[3] / "web" / "dist"
    return built if (built / "index.html").exists() else None
