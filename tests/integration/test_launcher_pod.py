"""The launcher as the first process of a pod, as plain processes here: one directory a pod, a Secret's files, a termination log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from executor_bench import WAITS_FOR_FILE, LogApi, end_processes_of

from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import PHASE_ENDED, StageKind
from abruzzi_operators.launcher.outcome import exit_code, from_message

DEADLINE_SECONDS = 240.0
SAYS_WHO_IT_IS = """
import os
print(" ".join(os.environ[n] for n in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")), flush=True)
print(open(os.environ["ABRUZZI_TOKEN"]).read(), os.environ.get("ABRUZZI_STORE_CREDENTIALS"), os.environ.get("ABRUZZI_SECRET_DIR"), flush=True)
"""


class Pod:
    """One pod of an attempt: what the kubelet would mount and set."""

    def __init__(self, folder: Path, spec: StageSpec, url: str, *, index: int = 0, ranks_per_node: int = 1) -> None:
        self.folder, self.spec = folder / f"pod-{index}", spec
        self.attempt = self.folder / "attempt"
        for name in ("secret", "pod"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "secret" / "spec.json").write_text(spec.model_dump_json())
        (self.folder / "secret" / "token").write_text("its-token")
        (self.folder / "pod" / "stacks").write_text("")
        self.environment = {
            **os.environ,
            "ABRUZZI_URL": url,
            "ABRUZZI_ATTEMPT_DIR": str(self.attempt),
            "ABRUZZI_SECRET_DIR": str(self.folder / "secret"),
            "ABRUZZI_STORE_CREDENTIALS": str(self.folder / "secret" / "credentials.json"),
            "ABRUZZI_POD_DIR": str(self.folder / "pod"),
            "ABRUZZI_TERMINATION_LOG": str(self.folder / "termination-log"),
            "ABRUZZI_RANKS_PER_NODE": str(ranks_per_node),
            "MASTER_ADDR": "master-0",
            "MASTER_PORT": "23456",
            "RANK": str(index),
        }

    def start(self) -> Pod:
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "abruzzi_operators.launcher.pod"], env=self.environment, stdout=out, stderr=err
            )
        return self

    @property
    def printed(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def message(self) -> str:
        path = self.folder / "termination-log"
        return path.read_text() if path.exists() else ""

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "stderr").read_text()
            time.sleep(0.02)


@pytest.fixture
def api() -> Iterator[LogApi]:
    made = LogApi()
    yield made
    made.close()


@pytest.fixture
def pods(tmp_path: Path, api: LogApi) -> Iterator[Callable[..., list[Pod]]]:
    def make(code: str, *, ranks: int = 1, ranks_per_node: int = 1) -> list[Pod]:
        spec = StageSpec(
            project_id="default", run_id="0123456789", stage_id="work", attempt_id="0123456789-work-1", epoch=1, kind=StageKind.CONTAINER,
            config={"container": {"command": ["python", "-u", "-c", code]}}, world_size=ranks,
            store=DirectoryStore(root=str(tmp_path / "store")), output_prefix="projects/default/runs/0123456789/work/",
        )  # fmt: skip
        count = -(-ranks // ranks_per_node)
        return [Pod(tmp_path, spec, api.url, index=i, ranks_per_node=ranks_per_node).start() for i in range(count)]

    yield make
    end_processes_of(str(tmp_path))


def test_each_pod_runs_the_ranks_of_its_node_and_ships_their_logs(pods: Callable[..., list[Pod]], api: LogApi) -> None:
    made = pods(SAYS_WHO_IT_IS, ranks=3, ranks_per_node=2)
    assert [pod.process.wait(DEADLINE_SECONDS) for pod in made] == [0, 0]
    seen = [api.of("0123456789-work-1", rank).splitlines() for rank in range(3)]
    assert [lines[0] for lines in seen] == [
        "0 0 3 2 127.0.0.1 23456",
        "1 1 3 2 127.0.0.1 23456",
        "2 0 3 1 master-0 23456",
    ]
    credentials = made[1].environment["ABRUZZI_STORE_CREDENTIALS"]
    assert seen[2][1] == f"its-token {credentials} None", "of the launcher's own settings only what the contract names"
    assert api.tokens == {"Bearer its-token"}
    assert "[rank-1] 1 1 3 2" in made[0].printed
    assert made[1].printed.startswith("2 0 3 1"), "a single rank's output is not dressed"
    assert [rank.rank for pod in made for rank in from_message(pod.message) or []] == [0, 1, 2]


def test_a_rank_that_ends_while_others_of_its_pod_go_on_is_told_of_once(
    pods: Callable[..., list[Pod]], api: LogApi
) -> None:
    [pod] = pods(
        f"import os\nif os.environ['RANK'] == '1':\n    raise SystemExit\n{WAITS_FOR_FILE}", ranks=2, ranks_per_node=2
    )
    pod.until(lambda: api.beats)
    (pod.attempt / "go").touch()
    assert pod.process.wait(DEADLINE_SECONDS) == 0
    [told] = api.beats
    beat = Heartbeat.model_validate(told)
    assert (beat.rank, beat.phase) == (1, PHASE_ENDED)
    [ended] = [rank for rank in from_message(pod.message) or [] if rank.rank == 1]
    assert beat.at == ended.ended_at


@pytest.mark.parametrize("code", [0, 65, 76, 3])
def test_the_exit_code_is_the_ranks_and_the_message_says_so(code: int, pods: Callable[..., list[Pod]]) -> None:
    [pod] = pods(f"raise SystemExit({code})")
    assert pod.process.wait(DEADLINE_SECONDS) == code
    assert exit_code(from_message(pod.message) or []) == code


def test_a_deleted_pod_saves_and_ends_with_143(pods: Callable[..., list[Pod]], api: LogApi) -> None:
    [pod] = pods(WAITS_FOR_FILE)
    pod.until(lambda: "ready" in pod.printed)
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(DEADLINE_SECONDS) == 143
    assert api.of("0123456789-work-1") == "ready\nsaved\n"
    [rank] = from_message(pod.message) or []
    assert (rank.code, rank.by_launcher) == (143, True)


def test_stacks_are_kept_when_the_pods_annotation_asks_for_them(pods: Callable[..., list[Pod]], api: LogApi) -> None:
    [pod] = pods(WAITS_FOR_FILE)
    pod.until(lambda: "ready" in pod.printed)
    (pod.folder / "pod" / "stacks").write_text("0 1764115200")
    pod.until(lambda: "abruzzi: no progress; stacks at" in api.of("0123456789-work-1"))
    (pod.attempt / "go").touch()
    assert pod.process.wait(DEADLINE_SECONDS) == 0


def test_the_outcome_does_not_wait_for_an_api_that_is_away(pods: Callable[..., list[Pod]], api: LogApi) -> None:
    api.is_away = True
    [pod] = pods("print('last words'); raise SystemExit(64)")
    pod.until(lambda: pod.message)
    assert exit_code(from_message(pod.message) or []) == 64
    assert pod.process.poll() is None, "it goes on shipping"
    api.is_away = False
    assert pod.process.wait(DEADLINE_SECONDS) == 64
    assert api.of("0123456789-work-1") == "last words\n"


def test_without_the_secrets_files_it_asks_to_be_tried_again(pods: Callable[..., list[Pod]]) -> None:
    [pod] = pods("pass")
    pod.process.wait(DEADLINE_SECONDS)
    (pod.folder / "secret" / "spec.json").unlink()
    assert pod.start().process.wait(DEADLINE_SECONDS) == 75
    assert "spec.json" in (pod.folder / "stderr").read_text()
