"""A repository that a policy works in. Commands, edits and the last look at the files all happen inside the box: a link that a policy made leads nowhere."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from abruzzi_jobs.rl.environments.evaluating import write_files
from abruzzi_jobs.sandbox import Box, Finished, Limits, python_files, run

LIMITS = Limits(cpu_seconds=20, memory_bytes=512 << 20, file_bytes=8 << 20, processes=32)
WALL_SECONDS = 30.0
OUTPUT_BYTES = 8192
_FILES_AT_MOST, _BYTES_AT_MOST = 64, 256 << 10
GIT = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in
       (("NAME", "Maintainer"), ("EMAIL", "maintainer@example.org"), ("DATE", "2026-01-05T09:00:00Z"))},
    "PYTHONDONTWRITEBYTECODE": "1",
}  # fmt: skip
_BEGIN = "git init -q -b main && git add -A && git commit -q -m 'Import' && printf '__pycache__\\n.pytest_cache\\n' >> .git/info/exclude && git rev-parse HEAD"
_CHANGES_BYTES = 4 << 20
_EDIT = """
import json, sys
asked = json.load(sys.stdin)
text = open(asked["path"], encoding="utf-8").read() if asked["old"] else ""
count = text.count(asked["old"]) if asked["old"] else 1
if count != 1:
    sys.exit(f"`old` stands {count} times in {asked['path']}, not once.")
with open(asked["path"], "w", encoding="utf-8") as file:
    file.write(text.replace(asked["old"], asked["new"]) if asked["old"] else asked["new"])
"""
_LOOK = """
import json, os, sys
found, most = {}, json.load(sys.stdin)
left = most["bytes"]
for parent, folders, names in os.walk("."):
    folders[:] = sorted(f for f in folders if f not in (".git", "__pycache__"))
    for name in sorted(names):
        path = os.path.normpath(os.path.join(parent, name))
        if name.endswith(".py") and not os.path.islink(path) and os.path.isfile(path):
            text = open(path, encoding="utf-8", errors="replace").read(left + 1)
            left -= len(text)
            if left >= 0 and len(found) < most["files"]:
                found[path] = text
print(json.dumps(found))
"""


class Workspace:
    """`files`: path → text, or a tar file of them. `python`: below whose installation commands may read, this interpreter's by default."""

    def __init__(self, files: Mapping[str, str] | Path, *, limits: Limits = LIMITS, python: Path | None = None) -> None:
        """Raises AbruzziError `no_sandbox`, `sandbox_failed`; tarfile.TarError for an archive that leads out of its folder."""
        self._folder = Path(tempfile.mkdtemp(prefix="abruzzi-software-"))
        self._box = Box(workspace=self._folder, readable=python_files(python), limits=limits, environment=GIT)
        try:
            if isinstance(files, Path):
                with tarfile.open(files) as archive:
                    archive.extractall(self._folder, filter="data")
            else:
                write_files(self._folder, files)
            begun = self.run(["sh", "-c", _BEGIN])
            if not begun.ok:
                raise RuntimeError(
                    f"git could not begin a repository: {begun.stderr.decode('utf-8', 'replace')[-300:]}"
                )
            self.beginning = begun.stdout.decode().strip()
        except BaseException:
            self.close()
            raise

    def shell(self, command: str) -> str:
        done = self.run(["sh", "-c", command])
        said = (done.stdout + done.stderr).decode("utf-8", "replace")[:OUTPUT_BYTES]
        if done.ok:
            return said or "(no output)"
        end = f"exit code {done.exit_code}" if done.ending == "exited" else done.ending.replace("_", " ")
        return f"{said}\n({end})".lstrip()

    def edit(self, path: str, old: str, new: str) -> str:
        """`old` has to stand once; empty, the file is written anew."""
        asked = json.dumps({"path": path, "old": old, "new": new}).encode()
        done = self.run([sys.executable, "-I", "-c", _EDIT], stdin=asked)
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"{path} is edited." if done.ok else f"Not edited: {(why or ['it took too long'])[-1][:500]}"

    def files(self) -> dict[str, str]:
        """Python files as they are now."""
        most = json.dumps({"bytes": _BYTES_AT_MOST, "files": _FILES_AT_MOST}).encode()
        done = self.run([sys.executable, "-I", "-c", _LOOK], stdin=most, output_bytes=4 * _BYTES_AT_MOST)
        return json.loads(done.stdout) if done.ok else {}

    def changes(self) -> str:
        """A diff from the beginning to what is there now, committed or not."""
        done = self.run(
            ["sh", "-c", f"git add -A && git diff --cached --binary {self.beginning}"], output_bytes=_CHANGES_BYTES
        )
        return done.stdout.decode("utf-8", "replace") if done.ok else ""

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        wall_seconds: float = WALL_SECONDS,
        output_bytes: int = OUTPUT_BYTES,
    ) -> Finished:
        inside = self._inside(argv)
        return run(self._box, inside, stdin=stdin, wall_seconds=wall_seconds, output_bytes=output_bytes)

    def _inside(self, argv: Sequence[str]) -> Sequence[str]:
        """What the box runs for a command."""
        return argv
