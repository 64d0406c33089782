"""Ships what the ranks print to the API, from where it stopped, through outages; never in the way of the ranks.

`PUT /api/v1/attempts/{id}/logs/{rank}?offset=N` with raw bytes is idempotent by offset, so a chunk may be sent twice and a restarted
launcher goes on at `shipped.json`. A gap is answered by 409 with `expected_offset`.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

CHUNK_BYTES = 256 * 1024
POLL_SECONDS = 0.2
REQUEST_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class LogShipper:
    """One thread per attempt. `flush` waits until everything that is in the files now has been accepted."""

    def __init__(self, directory: Path, *, attempt_id: str, world_size: int, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._attempt_id = attempt_id
        self._world_size = world_size
        self._say = say
        self._offsets = self._read_offsets()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._caught_up = threading.Condition()
        self._connection: http.client.HTTPConnection | None = None
        self._address = ""
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="log-shipper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join(REQUEST_SECONDS)

    def flush(self, seconds: float) -> bool:
        """True when all logs are shipped before the time is over."""
        self._wake.set()
        with self._caught_up:
            return self._caught_up.wait_for(self.is_complete, seconds)

    def is_complete(self) -> bool:
        return all(self._offsets.get(rank, 0) >= self._size(rank) for rank in range(self._world_size))

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                for rank in range(self._world_size):
                    self._ship(rank)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._note_trouble(str(error) or type(error).__name__)
                self._disconnect()
                self._wake.wait(pause * random.uniform(0.7, 1.3))
                self._wake.clear()
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            pause = FIRST_PAUSE_SECONDS
            self._note_trouble("")
            with self._caught_up:
                self._caught_up.notify_all()
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
        self._disconnect()

    def _ship(self, rank: int) -> None:
        while not self._stopping.is_set() and (offset := self._offsets.get(rank, 0)) < self._size(rank):
            with self._log(rank).open("rb") as log:
                log.seek(offset)
                chunk = log.read(CHUNK_BYTES)
            accepted = self._put(rank, offset, chunk)
            if accepted == offset:
                raise ValueError(f"the API expects offset {accepted} of rank {rank} and refuses it")
            self._offsets[rank] = accepted
            self._write_offsets()

    def _put(self, rank: int, offset: int, chunk: bytes) -> int:
        """The offset to go on at. Raises OSError or HTTPException when it should be tried again."""
        connection = self._connected()
        path = f"/api/v1/attempts/{self._attempt_id}/logs/{rank}?offset={offset}"
        headers = {
            "Authorization": f"Bearer {(self._directory / 'token').read_text().strip()}",
            "Content-Type": "application/octet-stream",
        }
        connection.request("PUT", path, body=chunk, headers=headers)
        response = connection.getresponse()
        body = response.read()
        if 200 <= response.status < 300:
            return offset + len(chunk)
        problem = _as_object(body)
        expected = problem.get("expected_offset")
        if response.status == 409 and isinstance(expected, int) and 0 <= expected <= self._size(rank):
            return expected
        raise OSError(f"PUT {path.partition('?')[0]} answers {response.status}: {problem.get('detail', '')}")

    def _connected(self) -> http.client.HTTPConnection:
        # Read anew: a restarted platform may listen elsewhere and has then written its address here.
        address = read_launch(self._directory)["url"]
        if self._connection is None or address != self._address:
            self._disconnect()
            parts = urlsplit(address)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(parts.hostname or "", parts.port, timeout=REQUEST_SECONDS)
            self._address = address
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _note_trouble(self, text: str) -> None:
        if text != self._trouble:
            self._say(f"logs: {text}; trying again" if text else "logs: shipping again")
            self._trouble = text

    def _log(self, rank: int) -> Path:
        return self._directory / f"rank-{rank}" / "output.log"

    def _size(self, rank: int) -> int:
        try:
            return self._log(rank).stat().st_size
        except FileNotFoundError:
            return 0

    def _read_offsets(self) -> dict[int, int]:
        try:
            return {
                int(rank): offset for rank, offset in json.loads((self._directory / "shipped.json").read_text()).items()
            }
        except (FileNotFoundError, ValueError):
            return {}

    def _write_offsets(self) -> None:
        write_whole(self._directory / "shipped.json", {str(rank): offset for rank, offset in self._offsets.items()})


def logs_are_shipped(directory: Path) -> bool:
    """Whether every byte of every rank has been accepted by the API, as far as the files say."""
    try:
        shipped = json.loads((directory / "shipped.json").read_text())
    except (FileNotFoundError, ValueError):
        shipped = {}
    logs = directory.glob("rank-*/output.log")
    return all(shipped.get(log.parent.name.removeprefix("rank-"), 0) >= log.stat().st_size for log in logs)


def read_launch(directory: Path) -> dict[str, str]:
    """launch.json: {"url": address of the API}. Rewritten by an executor whose platform has moved."""
    return json.loads((directory / "launch.json").read_text())


def write_whole(path: Path, content: object) -> None:
    """JSON that is never seen half written."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with scratch.open("w") as file:
        json.dump(content, file)
    os.replace(scratch, path)


def _as_object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
