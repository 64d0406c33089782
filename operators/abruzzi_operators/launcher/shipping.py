"""Ships what the ranks print to the API, and what their telemetry left in its spool; from where it stopped, through outages; never in the
way of the ranks.

`PUT /api/v1/attempts/{id}/logs/{rank}?offset=N` with raw bytes is idempotent by offset, so a chunk may be sent twice and a restarted
launcher goes on at `shipped.json`. A gap is answered by 409 with `expected_offset`.

That a rank has ended while others go on is told, too, once: nobody else hears of it before the last one ends.

`rank-<r>/spool/*.jsonl` holds bodies of `POST /api/v1/attempts/{id}/metrics`, one a line, which are idempotent too. A living rank sends them
itself; once all ranks have ended, nobody else would.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from abruzzi.contracts.states import PHASE_ENDED

CHUNK_BYTES = 256 * 1024
POLL_SECONDS = 0.2
REQUEST_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
REFUSED_FOR_GOOD = (400, 409, 413, 422)
"""Answers to what sending it again would not change."""


class LogShipper:
    """One thread per attempt. `flush` waits until everything that is in the files now has been accepted."""

    def __init__(self, directory: Path, *, attempt_id: str, ranks: Sequence[int], say: Callable[[str], None]) -> None:
        self._directory = directory
        self._attempt_id = attempt_id
        self._ranks = ranks
        self._say = say
        self._offsets = self._read_offsets()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ranks_have_ended = threading.Event()
        self._ended: dict[int, float] = {}
        """Ranks whose end is to be told: Unix seconds."""
        self._caught_up = threading.Condition()
        self._connection: http.client.HTTPConnection | None = None
        self._address = ""
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="log-shipper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take_spools(self) -> None:
        """All ranks have ended: what they could not send is ours to send."""
        self._ranks_have_ended.set()

    def tell_end(self, rank: int, at: float) -> None:
        self._ended[rank] = at

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join(REQUEST_SECONDS)

    def flush(self, seconds: float) -> bool:
        """True when everything is shipped before the time is over."""
        self._wake.set()
        with self._caught_up:
            return self._caught_up.wait_for(self.is_complete, seconds)

    def is_complete(self) -> bool:
        logs = all(self._offsets.get(rank, 0) >= self._size(rank) for rank in self._ranks)
        return logs and not (self._ranks_have_ended.is_set() and spooled(self._directory))

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                for rank in self._ranks:
                    self._ship(rank)
                self._tell_ends()
                if self._ranks_have_ended.is_set():
                    self._ship_spools()
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
        status, problem = self._request("PUT", f"logs/{rank}?offset={offset}", chunk, "application/octet-stream")
        if 200 <= status < 300:
            return offset + len(chunk)
        expected = problem.get("expected_offset")
        if status == 409 and isinstance(expected, int) and 0 <= expected <= self._size(rank):
            return expected
        raise OSError(f"PUT logs/{rank} answers {status}: {problem.get('detail', '')}")

    def _tell_ends(self) -> None:
        for rank, at in list(self._ended.items()):
            word = json.dumps({"rank": rank, "step": 0, "phase": PHASE_ENDED, "at": at}).encode()
            status, problem = self._request("POST", "heartbeats", word, "application/json")
            if not 200 <= status < 300 and status not in REFUSED_FOR_GOOD:
                raise OSError(f"POST heartbeats answers {status}: {problem.get('detail', '')}")
            del self._ended[rank]

    def _ship_spools(self) -> None:
        for segment in spooled(self._directory):
            for line in segment.read_bytes().splitlines():
                if self._stopping.is_set():
                    return
                if not _as_object(line):
                    continue  # cut by a crash
                status, problem = self._request("POST", "metrics", line, "application/json")
                if status in REFUSED_FOR_GOOD:
                    self._say(f"points: refused with {status}: {problem.get('detail', '')}; dropped")
                elif not 200 <= status < 300:
                    raise OSError(f"POST metrics answers {status}: {problem.get('detail', '')}")
            segment.unlink()

    def _request(self, method: str, what: str, body: bytes, media_type: str) -> tuple[int, dict[str, object]]:
        """(status, the answer's JSON object)."""
        connection = self._connected()
        headers = {
            "Authorization": f"Bearer {(self._directory / 'token').read_text().strip()}",
            "Content-Type": media_type,
        }
        connection.request(method, f"/api/v1/attempts/{self._attempt_id}/{what}", body=body, headers=headers)
        response = connection.getresponse()
        return response.status, _as_object(response.read())

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
            self._say(f"logs and points: {text}; trying again" if text else "logs and points: shipping again")
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
    """Whether every byte of every rank, and every point in its spool, has been accepted by the API, as far as the files say."""
    try:
        shipped = json.loads((directory / "shipped.json").read_text())
    except (FileNotFoundError, ValueError):
        shipped = {}
    logs = directory.glob("rank-*/output.log")
    is_shipped = all(shipped.get(log.parent.name.removeprefix("rank-"), 0) >= log.stat().st_size for log in logs)
    return is_shipped and not spooled(directory)


def spooled(directory: Path) -> list[Path]:
    """Segments of all ranks' telemetry that wait to be sent, oldest first (abruzzi.client.stage.spool)."""
    return sorted(directory.glob("rank-*/spool/*.jsonl"))


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
