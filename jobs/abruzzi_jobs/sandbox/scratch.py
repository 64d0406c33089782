"""A folder for a box, removed whatever a program has left there."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """In the temporary folder. Raises nothing for folders without rights, or so deep that Python's own removal gives up."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder)
        except (OSError, RecursionError):
            # Neither follows a link.
            subprocess.run(["chmod", "-R", "u+rwx", str(folder)], capture_output=True, check=False)
            subprocess.run(["rm", "-rf", str(folder)], capture_output=True, check=False)
