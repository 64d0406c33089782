"""Telemetry never hurts the stage: nothing blocks, nothing raises, nothing is lost while there is room, everything lost is counted."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from abruzzi.client.stage.delivery import Delivery
from abruzzi.client.stage.reporter import Reporter
from abruzzi.client.stage.spool import Spool


class Platform:
    """The routes that a reporter posts to. `status` is what it answers; None: it hangs up without a word."""

    def __init__(self) -> None:
        self.status: int | None = 202
        self.code = ""
        self.ended = False
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.asked = 0
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                platform.asked += 1
                if platform.status is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                if platform.status < 300:
                    platform.taken.append((self.path.rpartition("/")[2], body))
                answer = json.dumps({"code": platform.code, "attempt_ended": platform.ended}).encode()
                self.send_response(platform.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def points(self) -> dict[tuple[str, int], float | str]:
        """{(key, step): first value}: the platform keeps the first."""
        found: dict[tuple[str, int], float | str] = {}
        for what, body in self.taken:
            if what == "metrics":
                for key, series in body["series"].items():
                    for step, value in zip(series["steps"], series["values"], strict=True):
                        found.setdefault((key, step), value)
        return found

    def beats(self) -> list[dict[str, Any]]:
        """Posted by themselves or with points."""
        alone = [body if what == "heartbeats" else body.get("heartbeat") for what, body in self.taken]
        return [beat for beat in alone if beat is not None]


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform = Platform()
    yield platform
    platform.server.shutdown()
    platform.server.server_close()


def delivery(platform: Platform, **options: Any) -> Delivery:
    return Delivery(attempt_id="run-stage-1", url=platform.url, token="secret", **options)


def quick(**options: Any) -> Reporter:
    """Sends ten times a second: what is waited for comes at once."""
    made = Reporter(rank=0, **options)
    made.flush_seconds = 0.1
    return made


def until(condition: Any, *, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        time.sleep(0.01)


def test_points_arrive_as_columns_with_every_kind_of_number(platform: Platform, tmp_path: Path) -> None:
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform)) as reporter:
        for step in range(100):
            reporter.log({"train/loss": 2.0 + step, "train/lr": 1e-3}, step=step)
        reporter.log({"train/loss": math.nan}, step=100)
        reporter.log({"train/loss": math.inf}, step=101)
    assert reporter.points_sent == 202
    found = platform.points()
    assert found[("train/loss", 7)] == 9.0
    assert (found[("train/loss", 100)], found[("train/loss", 101)]) == ("NaN", "Infinity")
    assert len(found) == 202


def test_while_the_platform_is_away_points_are_spooled_and_sent_on_its_return(
    platform: Platform, tmp_path: Path
) -> None:
    platform.status = None
    reporter = quick(rank_dir=tmp_path, delivery=delivery(platform))
    for step in range(50):
        reporter.log({"train/loss": float(step)}, step=step)
    until(lambda: reporter.points_spooled == 50)
    assert list((tmp_path / "spool").glob("*.jsonl"))
    platform.status = 503
    reporter.log({"train/loss": 50.0}, step=50)
    until(lambda: reporter.points_spooled == 51)
    platform.status = 202
    until(lambda: reporter.points_sent == 51)
    reporter.close()
    assert platform.points() == {("train/loss", step): float(step) for step in range(51)}
    assert list((tmp_path / "spool").glob("*.jsonl")) == []


def test_what_a_killed_process_left_in_the_spool_is_sent_by_the_next(platform: Platform, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.add(b'{"series":{"train/loss":{"steps":[1],"values":[2.5],"at":[0.0]}}}')
    with next((tmp_path / "spool").glob("*.jsonl")).open("ab") as segment:
        segment.write(b'{"series":{"train/lo')  # cut by a crash
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform)):
        pass
    assert platform.points() == {("train/loss", 1): 2.5}


def test_close_keeps_its_deadline_when_the_platform_is_away(platform: Platform, tmp_path: Path) -> None:
    platform.status = None
    reporter = Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform))
    reporter.log({"train/loss": 1.0}, step=1)
    began = time.monotonic()
    reporter.close(deadline_seconds=0.5)
    assert time.monotonic() - began < 8.0  # and not the ten of the default
    until(lambda: reporter.points_spooled == 1)


def test_bad_keys_and_values_are_dropped_and_counted_and_nothing_else_with_them(
    platform: Platform, tmp_path: Path
) -> None:
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform)) as reporter:
        reporter.log({"Not A Key": 1.0, "good": 2.0, "text": "three"}, step=1)  # type: ignore[dict-item]
        reporter.log({"good": 4.0}, step=-1)
        reporter.heartbeat(1, "No Phase")
        reporter.heartbeat(-5, "train")
    assert platform.points() == {("good", 1): 2.0}
    assert reporter.points_dropped == 3


def test_a_full_spool_drops_and_counts_new_points(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=300)
    reporter = quick(rank_dir=tmp_path, delivery=None, spool=spool)
    reporter.log({"train/loss": 1.0}, step=1)
    until(lambda: reporter.points_spooled == 1)
    reporter.log({f"train/{i}": 1.0 for i in range(50)}, step=2)
    until(lambda: reporter.points_dropped == 50)
    reporter.close()
    assert (reporter.points_spooled, reporter.points_dropped) == (1, 50)


def test_a_disk_that_refuses_is_counted_and_the_stage_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    monkeypatch.setattr(spool, "add", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    reporter = quick(rank_dir=tmp_path, delivery=None, spool=spool)
    reporter.log({"train/loss": 1.0}, step=1)
    until(lambda: reporter.points_dropped == 1)
    reporter.log({"train/loss": 1.0}, step=2)
    reporter.close()
    assert (reporter.points_spooled, reporter.points_dropped) == (0, 2)


def test_more_than_memory_holds_is_dropped_and_counted(tmp_path: Path) -> None:
    reporter = Reporter(rank=0, rank_dir=tmp_path, delivery=None, queue_entries=0)
    reporter.log({"a": 1.0, "b": 2.0}, step=1)
    assert reporter.points_dropped == 2
    reporter.close()


def test_points_that_the_platform_refuses_for_good_are_not_tried_again(platform: Platform, tmp_path: Path) -> None:
    platform.status = 422
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform)) as reporter:
        reporter.log({"train/loss": 1.0}, step=1)
    assert (platform.asked, reporter.points_dropped) == (1, 1)


def test_the_heartbeat_file_is_written_at_once_and_the_newest_is_posted(platform: Platform, tmp_path: Path) -> None:
    with Reporter(rank=3, rank_dir=tmp_path, delivery=delivery(platform)) as reporter:
        reporter.heartbeat(0, "setup")
        assert json.loads((tmp_path / "heartbeat.json").read_text())["phase"] == "setup"
        for step in range(30):
            reporter.heartbeat(step, "train", total_steps=60, message="m" * 500)
    written = json.loads((tmp_path / "heartbeat.json").read_text())
    assert (written["rank"], written["step"], written["progress"]) == (3, 29, 29 / 60)
    assert platform.beats()[-1] == written


def test_points_and_heartbeat_travel_in_one_request(platform: Platform, tmp_path: Path) -> None:
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform)) as reporter:
        reporter.log({"train/loss": 1.0}, step=7)
        reporter.heartbeat(7, "train")  # a new phase may be sent at once
    assert [what for what, _ in platform.taken] == ["metrics"]
    assert [beat["step"] for beat in platform.beats()] == [7]


def test_spooled_points_keep_no_heartbeat_which_would_be_an_old_one(platform: Platform, tmp_path: Path) -> None:
    platform.status = 503
    reporter = Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform))
    reporter.heartbeat(1, "train")
    reporter.log({"train/loss": 1.0}, step=1)
    reporter.flush_soon()
    until(lambda: reporter.points_spooled == 1)
    reporter.heartbeat(2, "train")
    platform.status = 202
    reporter.close()
    assert platform.points() == {("train/loss", 1): 1.0}
    assert [beat["step"] for beat in platform.beats()] == [2]


def test_a_heartbeat_that_fits_nothing_is_left_out(
    platform: Platform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform)) as reporter:
        reporter.heartbeat(1, "Not a phase")
        reporter.heartbeat(2, "train")
    assert [beat["step"] for beat in platform.beats()] == [2]
    assert "heartbeat in phase 'Not a phase' at step 1" in caplog.text


def test_the_file_follows_the_steps_without_the_training_thread(tmp_path: Path) -> None:
    with Reporter(rank=0, rank_dir=tmp_path, delivery=None) as reporter:
        reporter.heartbeat(1, "train")
        reporter.heartbeat(2, "train")
        until(lambda: json.loads((tmp_path / "heartbeat.json").read_text())["step"] == 2, seconds=120)
        written = (tmp_path / "heartbeat.json").read_bytes()
    assert (tmp_path / "heartbeat.json").read_bytes() == written  # closing had nothing left to write


def test_an_attempt_that_the_platform_has_given_up_is_told_to_stop(platform: Platform, tmp_path: Path) -> None:
    platform.status, platform.code = 409, "attempt_ended"
    fenced = threading.Event()
    reporter = quick(rank_dir=tmp_path, delivery=delivery(platform), on_fenced=fenced.set)
    reporter.heartbeat(1, "train")
    assert fenced.wait(240)
    reporter.close()


def test_an_attempt_is_told_so_too_where_its_points_are_taken(platform: Platform, tmp_path: Path) -> None:
    platform.ended = True
    fenced = threading.Event()
    with Reporter(rank=0, rank_dir=tmp_path, delivery=delivery(platform), on_fenced=fenced.set) as reporter:
        reporter.log({"train/loss": 1.0}, step=1)
    assert fenced.is_set()
    assert reporter.points_sent == 1


def test_after_a_failure_the_address_is_read_anew(platform: Platform, tmp_path: Path) -> None:
    address = tmp_path / "launch.json"
    address.write_text(json.dumps({"url": platform.url}))
    gone = Delivery(attempt_id="run-stage-1", url="http://127.0.0.1:9", token="secret", address_file=address)
    with quick(rank_dir=tmp_path, delivery=gone) as reporter:
        reporter.log({"train/loss": 1.0}, step=1)
        until(lambda: reporter.points_sent == 1)
    assert platform.points() == {("train/loss", 1): 1.0}


def test_an_outage_draws_none_of_the_stages_random_numbers(platform: Platform, tmp_path: Path) -> None:
    platform.status = 503
    random.seed(1)
    before = random.getstate()
    reporter = quick(rank_dir=tmp_path, delivery=delivery(platform))
    reporter.log({"train/loss": 1.0}, step=1)
    until(lambda: platform.asked >= 2)
    reporter.close(deadline_seconds=0.2)
    assert random.getstate() == before
