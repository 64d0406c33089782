"""What real tool servers need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture
def programs_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv, node and npm as the Makefile finds them."""

    def said(script: str) -> str:
        command = [REPOSITORY / "scripts" / script]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()

    uv = (REPOSITORY / said("uv-bin")).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(uv), said("node-bin"), os.environ["PATH"]]))
