"""Telemetry that can never hurt the stage (design section 4.7).

`log()` is one append to a queue, `heartbeat()` leaves a note. A thread makes batches, posts them, writes the heartbeat's file, and spools to
disk while the API is away. Nothing here raises into the stage: what goes wrong is counted. The platform takes each (attempt, key, step) once,
so sending again is always right.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pydantic import ValidationError

from abruzzi.client.stage.context import StageContext
from abruzzi.client.stage.delivery import Answer, Delivery
from abruzzi.client.stage.spool import Spool
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.metric import Heartbeat, MetricBatch, Series

logger = logging.getLogger(__name__)

_KEY = re.compile(r"^[a-z0-9][a-z0-9_./-]{0,127}$")
FLUSH_SECONDS = 3.0
"""Every request costs the platform some milliseconds of a machine that, embedded, is also the one that trains (bench/telemetry.py)."""
_SOONEST_SECONDS = 1.0
"""After the last flush, for what people wait to see: that another phase has begun."""
_BATCH_POINTS = 10_000
_BEAT_FILE_SECONDS = 1.0
"""As often as the executor looks. Replacing a file takes most of a millisecond where the disk is busy."""
_EAGER_BEAT_SECONDS = 0.1
"""In the first minute, which somebody may be watching: a sixtieth of the reporter's age, and at least this."""
_QUEUE_ENTRIES = 200_000
"""Log calls that are kept in memory; beyond, new ones are dropped and counted."""


class _Note(NamedTuple):
    """What the stage said last. It becomes a heartbeat when one is due: the training loop says it at every step."""

    step: int
    phase: str
    total_steps: int | None
    progress: float | None
    message: str
    even_steps: bool
    at: float


class Reporter:
    """One a rank. Without `delivery` everything stays in the spool and the heartbeat file."""

    def __init__(
        self,
        *,
        rank: int,
        rank_dir: Path,
        delivery: Delivery | None,
        on_fenced: Callable[[], None] | None = None,
        queue_entries: int = _QUEUE_ENTRIES,
        spool: Spool | None = None,
    ) -> None:
        self.rank = rank
        self.flush_seconds = FLUSH_SECONDS
        """Between two sendings; infinite: only when `flush_soon` asks."""
        self._rank_dir = rank_dir
        self._delivery = delivery
        self._on_fenced = on_fenced
        self._queue: deque[tuple[int, float, Mapping[str, float]]] = deque()
        self._queue_entries = queue_entries
        self._note: _Note | None = None
        self._note_written: _Note | None = None
        self._beat: Heartbeat | None = None
        self._beat_sent: Heartbeat | None = None
        self._beat_lock = threading.Lock()
        self._began_at = self._flushed_at = time.monotonic()
        self._artifacts: deque[tuple[str, str]] = deque()
        self._spool = spool or Spool(rank_dir / "spool")
        self._closing = threading.Event()
        self._wake = threading.Event()
        self.thread_seconds = 0.0
        """Processor time of the thread so far."""
        self.points_sent = 0
        """Taken by the platform, directly or from the spool."""
        self.points_spooled = 0
        self.points_dropped = 0
        """Lost: no room in memory or on disk, a bad key, no number, or refused by the platform for good."""
        self._complained: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="abruzzi-reporter", daemon=True)
        self._thread.start()

    @classmethod
    def from_context(cls, context: StageContext) -> Reporter:
        """Also registers what the context commits, and asks the stage to stop when the platform has given its attempt up."""
        reporter = cls(
            rank=context.rank,
            rank_dir=context.rank_dir,
            delivery=Delivery.from_env(context.spec.attempt_id, context.attempt_dir),
            on_fenced=context.stop_requested.set,
        )
        context.on_commit.append(reporter.artifact)
        return reporter

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Plain floats by key. The mapping must not be changed afterwards."""
        if len(self._queue) < self._queue_entries:
            self._queue.append((step, time.time(), metrics))
        else:
            self.points_dropped += len(metrics)

    def heartbeat(
        self,
        step: int,
        phase: str,
        *,
        total_steps: int | None = None,
        progress: float | None = None,
        message: str = "",
        even_steps: bool = False,
    ) -> None:
        """Say where this rank is: a new phase at once, and every second, into the file that the executor reads; to the API with the points.

        `even_steps`: the steps of this phase take about the same time each, so that a hang deadline can be fitted from them.
        """
        last = self._note
        self._note = _Note(step, phase, total_steps, progress, message, even_steps, time.time())
        if last is None or last.phase != phase:
            self._write_beat()
            if time.monotonic() - self._flushed_at >= _SOONEST_SECONDS:
                self._wake.set()

    def artifact(self, key: str, manifest: Manifest) -> None:
        """Tell the platform of a committed manifest. It would find it by itself when the attempt ends."""
        self._artifacts.append((key, manifest.digest()))
        self._wake.set()

    def flush_soon(self) -> None:
        """Send what there is now, without waiting for it."""
        self._wake.set()

    def close(self, *, deadline_seconds: float = 10.0) -> None:
        """Send what is left; what the API does not take in time stays in the spool."""
        self._closing.set()
        self._wake.set()
        self._thread.join(deadline_seconds)
        if (self._spool.size_bytes and self._delivery is not None) or self.points_dropped:
            logger.warning(
                "telemetry: %d bytes stay in the spool, %d points were dropped",
                self._spool.size_bytes, self.points_dropped,
            )  # fmt: skip

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The thread

    def _work(self) -> None:
        while True:
            asked = self._wake.wait(self._pause())
            self._wake.clear()
            closing, delivered = self._closing.is_set(), False
            try:
                if asked or closing or time.monotonic() - self._flushed_at >= self.flush_seconds:
                    self._flushed_at = time.monotonic()
                    delivered = self._flush()
                else:
                    self._write_beat()
            except Exception:  # whatever it is, it must not end the thread, let alone the stage
                logger.exception("telemetry failed; the stage goes on")
            self.thread_seconds = time.thread_time()
            if closing and (delivered or self._delivery is None):
                self._finish()
                return
            if closing:
                self._wake.wait(0.1)

    def _pause(self) -> float:
        """Seconds until there may be something to do."""
        now = time.monotonic()
        to_file = min(_BEAT_FILE_SECONDS, max(_EAGER_BEAT_SECONDS, (now - self._began_at) / 60))
        return max(0.0, min(to_file, self._flushed_at + self.flush_seconds - now))

    def _finish(self) -> None:
        try:
            self._spool.seal()
        except OSError as error:
            self._complain(f"the spool cannot be closed: {error}")
        if self._delivery is not None:
            self._delivery.close()

    def _flush(self) -> bool:
        """True: nothing is left here."""
        self._write_beat()
        while self._queue:
            batch, points = self._take()
            if points:
                self._post_or_spool(batch, points)
        if self._delivery is None:
            return True
        if not self._spool_is_empty() and not self._spool.replay(self._post_spooled):
            return False
        beat = self._beat
        if beat is not None and beat is not self._beat_sent:
            answer = self._delivery.post("heartbeats", beat.model_dump_json().encode())
            if answer is Answer.LATER:
                return False
            self._heard(answer, beat)
        while self._artifacts:
            key, digest = self._artifacts[0]
            body = json.dumps({"manifest_key": key, "digest": digest}).encode()
            if self._delivery.post("artifacts", body) is Answer.LATER:
                return False
            self._artifacts.popleft()
        return not self._queue

    def _post_or_spool(self, batch: MetricBatch, points: int) -> None:
        """With the newest heartbeat. Not into the spool: it would be an old one when it is sent."""
        beat = self._beat if self._beat is not self._beat_sent else None
        answer = Answer.LATER
        if self._delivery is not None:
            answer = self._delivery.post("metrics", _body(batch.model_copy(update={"heartbeat": beat})))
        if answer in (Answer.TAKEN, Answer.FENCED):
            self.points_sent += points
            self._heard(answer, beat)
        elif answer is Answer.REFUSED:
            self.points_dropped += points
        else:
            try:
                kept = self._spool.add(_body(batch))
            except OSError as error:
                self._complain(f"the spool cannot be written: {error}")
                kept = False
            self.points_spooled += points if kept else 0
            self.points_dropped += 0 if kept else points

    def _heard(self, answer: Answer, beat: Heartbeat | None) -> None:
        if beat is not None:
            self._beat_sent = beat
        if answer is Answer.FENCED and self._on_fenced is not None:
            self._complain("the platform has given this attempt up; stopping")
            self._on_fenced()

    def _post_spooled(self, body: bytes) -> bool:
        answer = self._delivery.post("metrics", body) if self._delivery is not None else Answer.LATER
        if answer is Answer.LATER:
            return False
        points = sum(len(series["steps"]) for series in json.loads(body)["series"].values())
        if answer is Answer.REFUSED:
            self.points_dropped += points
        else:
            self.points_sent += points
        return True

    def _spool_is_empty(self) -> bool:
        return self._spool.size_bytes == 0

    def _take(self) -> tuple[MetricBatch, int]:
        """The oldest entries as one batch."""
        columns: dict[str, Series] = {}
        points = 0
        while self._queue and points < _BATCH_POINTS:
            step, at, metrics = self._queue.popleft()
            for key, value in metrics.items():
                series = columns.get(key)
                if series is None:
                    if not _KEY.match(key):
                        self.points_dropped += 1
                        self._complain(f"metric key {key!r} does not fit [a-z0-9][a-z0-9_./-]*; it is dropped")
                        continue
                    series = columns[key] = Series.model_construct(steps=[], values=[], at=[])
                try:
                    number = float(value)
                    if step < 0:
                        raise ValueError(f"step {step}")
                except (TypeError, ValueError) as error:
                    self.points_dropped += 1
                    self._complain(f"metric {key!r} is dropped: {error}")
                    continue
                series.steps.append(int(step))
                series.values.append(number)
                series.at.append(at)
                points += 1
        filled = {key: series for key, series in columns.items() if series.steps}
        return MetricBatch.model_construct(series=filled), points

    def _write_beat(self) -> None:
        """Make a heartbeat of the newest note, unless that is made, and write its file."""
        with self._beat_lock:
            note = self._note
            if note is None or note is self._note_written:
                return
            self._note_written = note
            progress = note.progress
            if progress is None and note.total_steps:
                progress = min(1.0, max(0.0, note.step / note.total_steps))
            try:
                self._beat = Heartbeat(
                    rank=self.rank, step=note.step, total_steps=note.total_steps, phase=note.phase, progress=progress,
                    message=note.message[:200], at=note.at, even_steps=note.even_steps,
                )  # fmt: skip
            except ValidationError as error:
                where = f"heartbeat in phase {note.phase!r} at step {note.step}"
                self._complain(f"{where}: {error.errors()[0]['msg']}")
                return
            path = self._rank_dir / "heartbeat.json"
            partial = path.with_suffix(".part")
            try:
                partial.write_text(self._beat.model_dump_json())
                os.replace(partial, path)
            except OSError as error:
                self._complain(f"the heartbeat cannot be written: {error}")

    def _complain(self, sentence: str) -> None:
        """Once each."""
        if sentence not in self._complained:
            self._complained.add(sentence)
            logger.warning("telemetry: %s", sentence)


def _body(batch: MetricBatch) -> bytes:
    return batch.model_dump_json(exclude_none=True).encode()
