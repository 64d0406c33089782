"""The attempt's code from its ranks' codes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abruzzi.contracts import stage as contract
from abruzzi_operators.launcher import environment
from abruzzi_operators.launcher.node import Node, from_pod, whole
from abruzzi_operators.launcher.outcome import RankExit, exit_code, from_message, significance, summary, to_message
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
    assert outcome["failed_rank"] == 1


@pytest.mark.parametrize(
    ("exits", "rank"), [(ended(0, 0), None), (ended(1, 64), 1), (ended(137, 1, 1, by_launcher=(0, 2)), 1)]
)
def test_the_rank_that_failed_is_the_one_that_the_sentence_names(exits: list[RankExit], rank: int | None) -> None:
    outcome = summary(exits, started_at=0.0, ended_at=1.0, stop_requested=False)
    assert outcome["failed_rank"] == rank
    assert rank is None or f"Rank {rank} " in outcome["reason"]


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
        "store": {"kind": "directory", "root": "/store"},
        **changes,
    }


def test_a_stage_gets_the_contract_and_no_secret_of_the_control_plane(tmp_path: Path) -> None:
    base = {"PATH": "/bin", "ABRUZZI_CONTROLLER_DATABASE_URL": "secret", "PGPASSWORD": "secret", "LANG": "C"}
    here = whole(2)
    made = environment.attempt_environment(
        base, directory=tmp_path, spec=spec(), url="http://127.0.0.1:1", node=here, port=5
    )
    assert "secret" not in made.values()
    assert "ABRUZZI_SANDBOXES_URL" not in made
    told = base | {"ABRUZZI_SANDBOXES_URL": "http://sandboxes:8602"}
    there = environment.attempt_environment(told, directory=tmp_path, spec=spec(), url="http://a", node=here, port=5)
    assert there["ABRUZZI_SANDBOXES_URL"] == "http://sandboxes:8602", "that there are sandboxes is no secret"
    assert made["ABRUZZI_SPEC"] == str(tmp_path / "spec.json")
    assert (made["ABRUZZI_EPOCH"], made["ABRUZZI_RESUME"], made["WORLD_SIZE"], made["MASTER_PORT"]) == (
        "3",
        "",
        "2",
        "5",
    )
    assert (made["LANG"], made["GREETING"]) == ("C", "hello")
    assert environment.rank_environment(made, rank=1, node=here)["RANK"] == "1"


STEPS_OF_MEMORY = """
import resource
def step(): return len([bytearray(8 << 20) for _ in range(5)])
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = faults()
for _ in range(10): step()
print(faults() - before)
"""


@pytest.mark.parametrize("chosen", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}])
def test_a_stage_takes_its_steps_memory_from_the_kernel_once_unless_the_operator_chose_otherwise(
    tmp_path: Path, chosen: dict[str, str]
) -> None:
    base = {"PATH": os.environ["PATH"], **chosen}
    made = environment.attempt_environment(
        base, directory=tmp_path, spec=spec(), url="http://127.0.0.1:1", node=whole(2), port=5
    )
    done = subprocess.run([sys.executable, "-c", STEPS_OF_MEMORY], env=made, capture_output=True, text=True, check=True)
    pages = 10 * 5 * (8 << 20) // resource.getpagesize()
    assert (int(done.stdout) > 0.9 * pages) == bool(chosen)
    assert (int(done.stdout) < 0.1 * pages) == (not chosen)


@pytest.mark.parametrize(("asked", "ranks", "cores", "expected"), [(None, 2, 5, 2), (None, 8, 2, 1), (3, 8, 2, 3)])
def test_threads_are_the_recipes_or_an_equal_share_of_the_nodes_cores(
    asked: int | None, ranks: int, cores: int, expected: int
) -> None:
    config = {"resources": {"threads": asked}} if asked else {}
    assert environment.threads({"config": config}, Node(first_rank=0, ranks=ranks, cores=cores)) == expected


PYTORCH_JOB = {"MASTER_ADDR": "abruzzi-x-master-0", "MASTER_PORT": "23456", "PET_MASTER_ADDR": "abruzzi-x-master-0"}
TRAIN_JOB = {"PET_MASTER_ADDR": "x-node-0-0.x", "PET_MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("given", "ranks", "address", "port"),
    [
        ({}, range(4), "127.0.0.1", None),
        ({**PYTORCH_JOB, "RANK": "0", "ABRUZZI_RANKS_PER_NODE": "2"}, range(2), "127.0.0.1", 23456),
        ({**PYTORCH_JOB, "RANK": "1", "ABRUZZI_RANKS_PER_NODE": "2"}, range(2, 4), "abruzzi-x-master-0", 23456),
        ({**TRAIN_JOB, "PET_NODE_RANK": "1", "ABRUZZI_RANKS_PER_NODE": "3"}, range(3, 4), "x-node-0-0.x", 29500),
    ],
    ids=["job", "master", "worker", "train job, fewer ranks on the last node"],
)
def test_a_pod_runs_the_ranks_of_its_node(given: dict[str, str], ranks: range, address: str, port: int | None) -> None:
    node = from_pod({"ABRUZZI_RANKS_PER_NODE": "4", "ABRUZZI_CPUS": "6", **given}, world_size=4)
    assert (node.all_ranks, node.master_address, node.master_port, node.cores) == (ranks, address, port, 6)
    made = environment.rank_environment({}, rank=ranks[-1], node=node)
    assert made == {"RANK": str(ranks[-1]), "LOCAL_RANK": str(len(ranks) - 1)}


def outcome_of(exits: list[RankExit]) -> dict[str, Any]:
    return summary(exits, started_at=0.0, ended_at=1.0, stop_requested=False)


def test_a_pods_last_message_tells_how_each_of_its_ranks_ended() -> None:
    exits = [*ended(0, 137), RankExit(rank=2, code=137, signal=9, out_of_memory=True, ended_at=2.5)]
    assert sorted(from_message(to_message(outcome_of(exits))) or [], key=lambda e: e.rank) == exits


def test_the_message_of_many_ranks_fits_the_kubelets_limit_and_keeps_the_cause() -> None:
    exits = [RankExit(rank=r, code=143, by_launcher=True, ended_at=1764115200.123456) for r in range(500)]
    exits[321] = RankExit(rank=321, code=65, ended_at=1764115200.5)
    text = to_message(outcome_of(exits))
    assert len(text.encode()) <= 4096
    told = from_message(text) or []
    assert exits[321] in told
    assert exit_code(told) == 65


@pytest.mark.parametrize("text", ["", "Killed", "{}", '{"abruzzi": 2, "ranks": []}', '{"abruzzi": 1, "ranks": [[1]]}'])
def test_a_message_that_no_launcher_wrote_is_none(text: str) -> None:
    assert from_message(text) is None


CLOUD = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "https://s3"}


@pytest.mark.parametrize(
    ("changes", "reaches"),
    [
        ({}, False),
        ({"store": {"kind": "s3", "endpoint": "s3", "bucket": "b"}}, True),
        ({"kind": "corpus", "config": {"data": {"sources": ["python-stdlib"]}}}, False),
        ({"kind": "corpus", "config": {"data": {"sources": ["python-stdlib", "s3://texts/*.txt"]}}}, True),
    ],
)
def test_cloud_credentials_reach_a_stage_that_uses_a_bucket_and_no_other(
    changes: dict[str, object], reaches: bool, tmp_path: Path
) -> None:
    made = environment.attempt_environment(
        CLOUD, directory=tmp_path, spec=spec(**changes), url="http://a", node=whole(2), port=5
    )
    assert ("AWS_SECRET_ACCESS_KEY" in made, "AWS_ENDPOINT_URL" in made) == (reaches, reaches)


def test_a_pid_that_now_belongs_to_another_process_is_not_the_same_process() -> None:
    mine = identity(os.getpid())
    assert is_same_process(mine)
    assert not is_same_process({**mine, "start_time": "1"})
    assert not is_same_process({**mine, "boot_id": "another boot"})
