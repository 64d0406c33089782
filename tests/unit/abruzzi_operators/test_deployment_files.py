"""What the image and its composition must not lose."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def steps() -> list[str]:
    """The image's instructions, comments left out."""
    lines = (ROOT / "Containerfile").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_state_directory_belongs_to_the_user_that_the_processes_run_as() -> None:
    [user] = [step for step in steps() if step.startswith("USER ")][-1:]
    uid = user.split()[1]
    made = next(i for i, step in enumerate(steps()) if re.search(rf"install -d -o {uid} -g {uid} -m 0700 /state", step))
    assert made < steps().index(user)


def test_installed_packages_of_the_building_machine_do_not_reach_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()  # Docker, Podman and Buildah all read this name
    assert {"**/node_modules", ".venv", ".git"} <= set(ignored)
    assert not [step for step in steps() if re.fullmatch(r"COPY web/? \./?", step)]


def test_a_controller_with_stages_in_its_container_reaps_and_has_time_to_save() -> None:
    controller = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["controller"]
    assert controller["init"] is True
    assert controller["environment"]["ABRUZZI_STAGES_END_WITH_CONTROLLER"] == "true"
    assert int(controller["stop_grace_period"].removesuffix("s")) >= 75
