"""What is skipped is counted, and in CI fails: single tests and whole modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULE = "import pytest\npytest.importorskip('no_such_module', reason='install no-such-module')\ndef test_it(): pass\n"
SINGLE = "import pytest\ndef test_it(): pytest.skip('install no-such-module')\n"


def run(folder: Path, content: str, *, ci: bool) -> tuple[int, str, str]:
    """(exit code, what pytest printed, what the report holds)."""
    folder.mkdir(parents=True)
    (folder / "test_skips.py").write_text(content)
    report = folder / "skips"
    report.touch()
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "ABRUZZI_SKIP_REPORT": str(report), "CI": str(ci).lower()}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "skip_report", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, report.read_text()


@pytest.mark.parametrize("content", [MODULE, SINGLE], ids=["module", "test"])
def test_what_is_skipped_is_reported_with_its_reason_and_fails_in_ci(content: str, tmp_path: Path) -> None:
    code, _, report = run(tmp_path / "here", content, ci=False)
    assert (code, report) == (5 if content is MODULE else 0, "install no-such-module\n")
    code, printed, _ = run(tmp_path / "there", content, ci=True)
    assert code != 0
    assert "CI skips nothing but GPU tests: " in printed


def test_a_gpu_module_may_be_skipped_in_ci(tmp_path: Path) -> None:
    code, _, report = run(tmp_path / "gpu", MODULE, ci=True)
    assert (code, report) == (5, "install no-such-module\n")
