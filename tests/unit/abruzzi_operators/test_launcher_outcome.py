"""The attempt's code from its ranks' codes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from abruzzi.contracts import stage as contract
from abruzzi_operators.launcher import environment
from abruzzi_operators.launcher.outcome import RankExit, exit_code, significance, summary
from abruzzi_operators.launcher.procfs import identity, is_same_process


def ended(*codes: int, by_launcher: tuple[int, ...] = ()) -> list[RankExit]:
    return [
        RankExit(rank=r, code=code, by_launcher=r in by_launcher, ended_at=float(r)) for r, code in enumerate(codes)
    ]


@pytest.mark.parametrize(
    ("exits", "expected"),
    [
        (ended(0, 0), 0),
        (ended(64, 1), 64),
        (ended(137, 65), 65),
        (ended(75, 76), 76),
        (ended(75, 137), 75),
        (ended(1, 137), 1),
        (ended(143, 0), 143),
        (ended(143, 137), 137),
        (ended(1, 137, by_launcher=(0,)), 137),  # rank 0 only complained that rank 1 had been killed
        (ended(143, 143, by_launcher=(0, 1)), 143),
        (ended(0, 137, by_launcher=(1,)), 137),
        (ended(137, 64, by_launcher=(1,)), 64),  # a deliberate code stands whenever it comes
    ],
)
def test_the_most_significant_code_is_the_attempts(exits: list[RankExit], expected: int) -> None:
    assert exit_code(exits) == expected


def test_the_order_is_the_documented_one() -> None:
    assert sorted([0, 143, 137, 1, 139, 75, 76, 65, 64], key=significance) == [64, 65, 76, 75, 1, 139, 137, 143, 0]


def test_a_memory_kill_is_named_with_its_rank() -> None:
    exits = [RankExit(rank=0, code=1, by_launcher=True), RankExit(rank=1, code=137, signal=9, out_of_memory=True)]
    outcome = summary(exits, started_at=0.0, ended_at=1.0, stop_requested=False)
    assert outcome["exit_code"] == 137
    assert outcome["out_of_memory"]
    assert outcome["reason"] == "The kernel killed rank 1 for memory."


def test_the_launchers_names_are_the_contracts() -> None:
    names = [name for name in vars(contract) if name.startswith("ENV_")]
    assert {name: getattr(environment, name) for name in names} == {name: getattr(contract, name) for name in names}


def spec(**changes: object) -> dict[str, object]:
    return {
        "kind": "container",
        "run_id": "r",
        "stage_id": "s",
        "attempt_id": "r-s-1",
        "epoch": 3,
        "world_size": 2,
        "resume": None,
        "config": {"container": {"command": ["true"], "env": {"GREETING": "hello"}}},
        **changes,
    }


def test_a_stage_gets_the_contract_and_no_secret_of_the_control_plane(tmp_path: Path) -> None:
    base = {"PATH": "/bin", "ABRUZZI_CONTROLLER_DATABASE_URL": "secret", "PGPASSWORD": "secret", "LANG": "C"}
    made = environment.attempt_environment(base, directory=tmp_path, spec=spec(), url="http://127.0.0.1:1", port=5)
    assert "secret" not in made.values()
    assert made["ABRUZZI_SPEC"] == str(tmp_path / "spec.json")
    assert (made["ABRUZZI_EPOCH"], made["ABRUZZI_RESUME"], made["WORLD_SIZE"], made["MASTER_PORT"]) == (
        "3",
        "",
        "2",
        "5",
    )
    assert (made["LANG"], made["GREETING"]) == ("C", "hello")
    assert environment.rank_environment(made, rank=1)["RANK"] == "1"


def test_threads_are_the_recipes_or_an_equal_share() -> None:
    assert environment.threads({"config": {}, "world_size": 2}, cores=5) == 2
    assert environment.threads({"config": {}, "world_size": 8}, cores=2) == 1
    assert environment.threads({"config": {"resources": {"threads": 3}}, "world_size": 8}, cores=2) == 3


def test_a_pid_that_now_belongs_to_another_process_is_not_the_same_process() -> None:
    mine = identity(os.getpid())
    assert is_same_process(mine)
    assert not is_same_process({**mine, "start_time": "1"})
    assert not is_same_process({**mine, "boot_id": "another boot"})
