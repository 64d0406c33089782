from __future__ import annotations

from pathlib import Path

import pytest
from training_lab import Lab, write_dataset


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "dataset"
    write_dataset(folder)
    return folder


@pytest.fixture
def lab(tmp_path: Path, dataset_folder: Path) -> Lab:
    return Lab(tmp_path, dataset=dataset_folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, dataset_folder: Path) -> dict[int, Lab]:
    """{ranks: a lab whose run ended without any disturbance}, each made when it is first asked for."""

    class Made(dict[int, Lab]):
        def __missing__(self, ranks: int) -> Lab:
            lab = Lab(tmp_path_factory.mktemp(f"undisturbed-{ranks}"), dataset=dataset_folder)
            lab.run(lab.spec({"resources": {"ranks": ranks}}))
            self[ranks] = lab
            return lab

    return Made()
