"""Hostile programs in the sandbox that grades HumanEval, and what they have done to the machine outside, seen from there."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from abruzzi_jobs.rl.environments.evaluating import Bounds, Evaluated, evaluate
from abruzzi_jobs.sandbox.usage import family, shared_out_bytes

BOUNDS = Bounds(cpu_seconds=1, wall_seconds=2.0, box_seconds=20.0)
"""Of each program. The runner ends it after two seconds; one that has stopped the runner ends with its box."""
GRACE_SECONDS = 10.0
"""For a box to be torn down on a busy machine."""
_GONE_SECONDS = 60.0
_FILE = Path(__file__).with_suffix("").with_name("hostile_programs.toml")
_NEIGHBOUR = """
import os, sys
word = os.environ["WORD"]
for line in sys.stdin:
    print(len(word) + int(line), flush=True)
"""


@dataclass(frozen=True)
class Program:
    kind: str
    name: str
    code: str
    lingers: bool


def programs() -> tuple[str, list[Program]]:
    """(what stands before each, all of them)."""
    read = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    found = [
        Program(
            kind=row["kind"],
            name=row["name"].replace("{v}", variant),
            code=row["code"].replace("{v}", variant).strip(),
            lingers=row["kind"] in read["lingers"],
        )
        for row in read["program"]
        for variant in row["variants"]
    ]
    return read["prelude"], found


@dataclass
class Outside:
    """What programs are after, and what must not change."""

    folder: Path
    word: str
    places: dict[str, str]
    neighbour: subprocess.Popen[str]
    reached: list[str] = field(default_factory=list)
    """Who came to the listeners."""
    _asked: int = 0
    _guarded: dict[str, str] = field(default_factory=dict)

    def put(self, text: str) -> str:
        for name, value in self.places.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def harm(self, found: Evaluated) -> list[str]:
        """What a program that told this has done, in words."""
        said = " ".join(value or "" for value in found.values)
        harm = [f"said {mark}" for mark in (self.word, "REACHED", "GRANTED") if mark in said]
        harm += [f"{who} was reached" for who in self.reached]
        self.reached.clear()
        harm += [f"{path} was changed" for path, was in self._guarded.items() if _state(path) != was]
        if not self._answers():
            harm.append("the neighbour does not answer")
        return harm

    def guard(self) -> None:
        guarded = (
            self.folder / "canary" / "kept", self.folder / "canary" / "new", "/usr/bin/abruzzi-hostile", "/etc/passwd", "/proc/sys/kernel/core_pattern",
            "/proc/sys/kernel/hostname", os.__file__, "/proc/1/oom_score_adj", f"/proc/{self.neighbour.pid}/limits",
        )  # fmt: skip
        self._guarded = {str(path): _state(str(path)) for path in guarded}

    def left(self) -> list[str]:
        """What is left of boxes: processes that still see their folder, and what lies in it. Waits for those that are just being torn down."""
        end = time.monotonic() + _GONE_SECONDS
        while (found := self._inside() + [str(path) for path in self.boxes.iterdir()]) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    @property
    def boxes(self) -> Path:
        return self.folder / "boxes"

    def _inside(self) -> list[str]:
        mark, found = f"{self.folder.name}/{self.boxes.name}", []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                told = (place / "cmdline").read_text(errors="replace").replace("\0", " ")
                if mark in told or mark in (place / "mountinfo").read_text():
                    found.append(told[:200])
            except OSError:
                continue
        return found

    def _answers(self) -> bool:
        assert self.neighbour.stdin is not None
        assert self.neighbour.stdout is not None
        self._asked += 1
        try:
            self.neighbour.stdin.write(f"{self._asked}\n")
            self.neighbour.stdin.flush()
            return self.neighbour.stdout.readline() == f"{len(self.word) + self._asked}\n"
        except OSError:
            return False


@contextmanager
def outside() -> Iterator[Outside]:
    """Boxes are made below its folder while it is open."""
    word = f"unheard-{secrets.token_hex(16)}"
    with tempfile.TemporaryDirectory(prefix="abruzzi-hostile-") as name:
        folder = Path(name)
        (folder / "secret").write_text(word)
        (folder / "canary").mkdir()
        (folder / "canary" / "kept").write_text("kept")
        neighbour = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _NEIGHBOUR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"WORD": word}, cwd=folder, start_new_session=True,
        )  # fmt: skip
        there = Outside(folder=folder, word=word, places={}, neighbour=neighbour)
        there.boxes.mkdir()
        before = tempfile.tempdir
        try:
            with _listeners(there) as port:
                there.places = {
                    "secret": f"{folder}/secret", "canary": f"{folder}/canary", "port": str(port), "socket": f"{folder}/socket", "abstract": folder.name,
                    "neighbour": str(neighbour.pid), "host": _address(),
                }  # fmt: skip
                there.guard()
                tempfile.tempdir = str(there.boxes)
                yield there
                there.left()
        finally:
            tempfile.tempdir = before
            neighbour.kill()
            neighbour.communicate()


def attack(there: Outside, prelude: str, chosen: Sequence[Program]) -> Evaluated:
    """All of them in one box, one process each; the first that does not end by itself ends it."""
    bodies = (f"def attack_{n}():\n{textwrap.indent(there.put(p.code), '    ')}" for n, p in enumerate(chosen))
    return evaluate({}, prelude + "\n".join(bodies), [f"tried(attack_{n})" for n in range(len(chosen))], BOUNDS)


class Peak:
    """The most memory that this process's descendants but the neighbour held at once, looked at twenty times a second: bytes."""

    def __init__(self, there: Outside) -> None:
        self._there, self._ended = there, threading.Event()
        self.memory_bytes = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        ours = {os.getpid(), self._there.neighbour.pid}
        while not self._ended.wait(0.05):
            self.memory_bytes = max(
                self.memory_bytes, shared_out_bytes([p for p in family(os.getpid()) if p not in ours])
            )


def _state(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        return type(error).__name__


def _address() -> str:
    """This machine's own, as others see it; no packet is sent for that."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


@contextmanager
def _listeners(there: Outside) -> Iterator[int]:
    with socket.create_server(("0.0.0.0", 0)) as tcp:
        port = tcp.getsockname()[1]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("0.0.0.0", port))
        named, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        named.bind(str(there.folder / "socket"))
        abstract.bind(f"\0{there.folder.name}")
        os.chmod(there.folder / "socket", 0o777)
        doors = {
            "TCP": tcp,
            "a datagram socket": datagrams,
            "a socket in a folder": named,
            "an abstract socket": abstract,
        }
        for name, door in doors.items():
            if door is not datagrams:
                door.listen(64)
            threading.Thread(target=_await, args=(there, name, door), daemon=True).start()
        try:
            yield port
        finally:
            for door in doors.values():
                door.close()


def _await(there: Outside, name: str, door: socket.socket) -> None:
    try:
        while True:
            if door.type == socket.SOCK_DGRAM:
                door.recvfrom(100)
            else:
                peer, _ = door.accept()
                peer.sendall(there.word.encode())
                peer.close()
            there.reached.append(name)
    except OSError:
        return
