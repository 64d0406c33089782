"""What the processes of a box use together: limits of a process do not bound that, and cgroups are not everybody's to make.

A look costs a few reads below /proc for each process and open file; what is seen late is what was written between two looks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if (
    TYPE_CHECKING
):  # the text of this module runs inside a sandbox pod, too, where there is nothing but the standard library
    from abruzzi_jobs.sandbox.box import Limits

LOOK_SECONDS = 0.1
_SHARE_OF_TIME = 0.1
"""A look that takes long is followed by a pause as much longer."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES = 512
"""Of st_blocks, whatever the file system."""


class Watch:
    """Of the box that process `pid` started, over `workspace`."""

    def __init__(self, pid: int, workspace: Path, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid, self._workspace, self._limits, self._clock = pid, workspace, limits, clock
        self.next_look = clock() + LOOK_SECONDS

    def exceeds(self) -> bool:
        """Whether it uses more than it may; looks where it is time to."""
        began = self._clock()
        if began < self.next_look:
            return False
        pids = family(self._pid)
        memory, disk = _of_nobodys_files(pids, self._workspace)
        found = memory + resident_bytes(pids) > self._limits.together_bytes
        found = found and memory + shared_out_bytes(pids) > self._limits.together_bytes
        found = found or not _fits(self._workspace, self._limits.workspace_bytes - disk, self._limits.workspace_files)
        now = self._clock()
        self.next_look = now + max(LOOK_SECONDS, (now - began) / _SHARE_OF_TIME)
        return found


def family(pid: int) -> list[int]:
    """The process and all that descend from it: those of a box have its first process above them, whatever they do."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            # pid (name, which may hold anything) state parent …
            rest = _text(f"/proc/{name}/stat").rpartition(")")[2].split()
            if len(rest) > 1:
                children[int(rest[1])].append(int(name))
    found = [pid]
    for parent in found:
        found += children[parent]
    return found


def resident_bytes(pids: list[int]) -> int:
    """Pages that several of them share count for each: quickly read, and never too little."""
    return sum(int(words[1]) for pid in pids if (words := _text(f"/proc/{pid}/statm").split())) * _PAGE_BYTES


def shared_out_bytes(pids: list[int]) -> int:
    """Their proportional set sizes: a shared page counts once."""
    return sum(_proportional_bytes(pid) for pid in pids)


def _proportional_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration, ValueError):
        return resident_bytes([pid])  # without the right to look, or under gVisor, which has no such file


def _of_nobodys_files(pids: list[int], workspace: Path) -> tuple[int, int]:
    """(bytes in memory, bytes on the workspace's disk) of open files that no folder names: deleted ones, and memfd's."""
    disk = workspace.stat().st_dev
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    file = os.stat(f"/proc/{pid}/fd/{number}")
                    if stat.S_ISREG(file.st_mode) and file.st_nlink == 0:
                        found[file.st_dev, file.st_ino] = file.st_blocks * _BLOCK_BYTES
    on_disk = sum(size for (device, _), size in found.items() if device == disk)
    return sum(found.values()) - on_disk, on_disk


def _fits(workspace: Path, most_bytes: int, most_files: int) -> bool:
    """Ends as soon as it is too much. Folders deeper than a path can name are too much: what lies there could not be counted."""
    used = files = 0
    try:
        for entry in _entries(workspace):
            files += 1
            with contextlib.suppress(FileNotFoundError):
                used += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
            if used > most_bytes or files > most_files:
                return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return used <= most_bytes


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue


def _text(path: str) -> str:
    """Empty where its process has ended."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
