"""Where artifacts and log chunks live: a directory (embedded mode) or S3. Keys are made by the platform, never by a user.

`put_if_absent` is the one primitive that the commit protocol rests on: of many racing writers exactly one gets True.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from abruzzi.contracts.errors import AbruzziError, NotFound

_KEY = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")
_MAX_KEY_BYTES = 900
_BLOCK_BYTES = 4096
_PIECE_BYTES = 16 << 20
_DIRECT_FROM_BYTES = 4 << 20
"""Below it a write ends in the page cache anyway, and what is small is soon read again."""

Content = bytes | memoryview | Path
"""Of an object: in memory, or a file of this machine."""


class ObjectStore(Protocol):
    """Synchronous; the server calls it through asyncio.to_thread."""

    def get(self, key: str) -> bytes:
        """Raises NotFound."""
        ...

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        """A stream over the object, from byte `start` on. Raises NotFound."""
        ...

    def put(self, key: str, content: Content) -> None: ...

    def put_below(self, prefix: str, content: bytes | memoryview, key: Callable[[], str]) -> None:
        """As `put`, of an object below `prefix` (which ends with /) whose key takes as long to find as its bytes to write: both may go on at once.
        What raises in `key` leaves no object."""
        ...

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """True: written now. False: there was one already, which stays."""
        ...

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """Bytes. Raises NotFound."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below `prefix` (which ends with /), in order."""
        ...

    def delete(self, key: str) -> None:
        """Nothing happens when it is gone already."""
        ...

    def free_bytes(self) -> int | None:
        """Room that is left, or None where there is no such number."""
        ...


def check_key(key: str) -> str:
    """Raises AbruzziError `bad_key` unless every part is a plain name: no `..`, no absolute path, no empty part."""
    if len(key) > _MAX_KEY_BYTES or not _KEY.match(key) or "\n" in key:
        raise AbruzziError("bad_key", f"{key[:200]!r} is no key of the object store.")
    return key


class DirectoryStore:
    """Objects as files below `root`. Writes are atomic and durable: temporary file, fsync, link or rename, fsync of the folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        return self.root / check_key(key)

    def get(self, key: str) -> bytes:
        with self.open(key) as file:
            return file.read()

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        try:
            # A link below the root could lead out of it; the store itself makes none.
            file = os.fdopen(os.open(self.path(key), os.O_RDONLY | os.O_NOFOLLOW), "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound("object", key) from None
        file.seek(start)
        return file

    def put(self, key: str, content: Content) -> None:
        target = self.path(key)
        temporary = self._write(target, content)
        os.replace(temporary, target)
        _sync_folder(target.parent)

    def put_below(self, prefix: str, content: bytes | memoryview, key: Callable[[], str]) -> None:
        temporary = self._write(self.path(f"{prefix}new"), content)
        try:
            target = self.path(key())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        _sync_folder(target.parent)

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        target = self.path(key)
        if target.exists():
            return False
        temporary = self._write(target, content)
        try:
            os.link(temporary, target)  # fails if there is one: exact under races, unlike exists + rename
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        _sync_folder(target.parent)
        return True

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def size(self, key: str) -> int:
        try:
            return self.path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("object", key) from None

    def list(self, prefix: str) -> Iterator[str]:
        folder = self.path(prefix.rstrip("/"))
        for base, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                if not name.startswith("."):
                    yield (Path(base) / name).relative_to(self.root).as_posix()

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def _write(self, target: Path, content: Content) -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        while chunk := source.read(1 << 20):
                            file.write(chunk)
                else:
                    view = memoryview(content)
                    file.write(view[_write_directly(file.fileno(), view) :])
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(temporary)
            raise
        return temporary


def _write_directly(descriptor: int, content: memoryview) -> int:
    """Whole blocks of large contents past the page cache, from the memory they are in: no core copies them or writes them back, and who reads them next
    sees what the disk gives. Bytes written: fewer where the file system cannot do it, or the memory does not begin at a block (`O_DIRECT`)."""
    whole, at = len(content) // _BLOCK_BYTES * _BLOCK_BYTES, 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if len(content) < _DIRECT_FROM_BYTES or not hasattr(os, "O_DIRECT"):
        return 0
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        while at < whole:
            at += os.write(descriptor, content[at : min(whole, at + _PIECE_BYTES)])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return at


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
