"""Caps and names that the design sets: Python 600 lines, TypeScript 250, no room for leftovers, nothing that shadows the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CAPS = {".py": 600, ".ts": 250, ".tsx": 250}
BANNED_NAMES = {"utils", "helpers", "common", "misc", "manager"}
GENERATED = ("web/src/api/", "platform/abruzzi/migrations/versions/")


def main() -> int:
    faults: list[str] = []
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        path = Path(name)
        if not path.is_file():
            continue
        if path.stem in BANNED_NAMES:
            faults.append(f"{name}: name the file by what it holds")
        if len(path.parts) == 2 and path.name == "__init__.py":
            faults.append(f"{name}: no package directly in a top-level folder")
        if "platform" in path.parts[1:-1]:
            faults.append(f"{name}: a folder called platform shadows the standard library")
        cap = CAPS.get(path.suffix)
        if cap and not name.startswith(GENERATED):
            lines = len(path.read_text().splitlines())
            if lines > cap:
                faults.append(f"{name}: {lines} lines (cap {cap}); split it by meaning")
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
