from __future__ import annotations

from pathlib import Path

import pytest
from tuning_lab import TuningLab, make_inputs


@pytest.fixture(scope="session")
def tuning_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("tuning"))


@pytest.fixture
def lab(tmp_path: Path, tuning_inputs: Path) -> TuningLab:
    return TuningLab(tmp_path, made=tuning_inputs)
