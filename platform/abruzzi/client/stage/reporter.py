"""Telemetry that can never hurt the stage (design section 4.7).

`log()` is one append to a queue. A thread makes batches, posts them, and spools to disk while the API is away. Nothing here raises into
the stage: what goes wrong is counted. The platform takes each (attempt, key, step) once, so sending again is always right.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx

from abruzzi.client.stage.context import StageContext
from abruzzi.client.stage.spool import Spool
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.metric import Heartbeat, MetricBatch, Series
from abruzzi.contracts.stage import ENV_TOKEN, ENV_URL

logger = logging.getLogger(__name__)

_KEY = re.compile(r"^[a-z0-9][a-z0-9_./-]{0,127}$")
_FLUSH_SECONDS = 0.5
_BATCH_POINTS = 10_000
_BEAT_FILE_SECONDS = 0.2
_AWAY_SECONDS = 1.0
"""Between two tries while the API does not answer."""
_QUEUE_ENTRIES = 1_000_000
"""Entries (log calls) that are kept in memory; beyond, the oldest go and are counted."""


class Reporter:
    """One a rank. `url` None: everything stays in the spool and the heartbeat file."""

    def __init__(self, *, attempt_id: str, rank: int, rank_dir: Path, url: str | None, token: str | None) -> None:
        self.attempt_id, self.rank = attempt_id, rank
        self._rank_dir = rank_dir
        self._queue: deque[tuple[int, float, Mapping[str, float]]] = deque(maxlen=_QUEUE_ENTRIES)
        self._beat: Heartbeat | None = None
        self._beat_sent: Heartbeat | None = None
        self._beat_written_at = 0.0
        self._beat_phase = ""
        self._artifacts: deque[tuple[str, str]] = deque()
        self._spool = Spool(rank_dir / "spool")
        self._away_until = 0.0
        self._closing = threading.Event()
        self._wake = threading.Event()
        self.points_sent = 0
        self.points_dropped = 0
        self._bad_keys: set[str] = set()
        self._http = (
            httpx.Client(
                base_url=f"{url}/api/v1/attempts/{attempt_id}/",
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                timeout=httpx.Timeout(10.0, connect=2.0),
            )
            if url and token
            else None
        )
        self._thread = threading.Thread(target=self._work, name="abruzzi-reporter", daemon=True)
        self._thread.start()

    @classmethod
    def from_context(cls, context: StageContext) -> Reporter:
        """Also registers what the context commits."""
        token_file = os.environ.get(ENV_TOKEN)
        token = Path(token_file).read_text().strip() if token_file else None
        reporter = cls(
            attempt_id=context.spec.attempt_id,
            rank=context.rank,
            rank_dir=context.rank_dir,
            url=os.environ.get(ENV_URL),
            token=token,
        )
        context.on_commit.append(reporter.artifact)
        return reporter

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Plain floats by key. The mapping must not be changed afterwards."""
        self._queue.append((step, time.time(), metrics))

    def heartbeat(
        self, step: int, phase: str, *, total_steps: int | None = None, progress: float | None = None, message: str = ""
    ) -> None:
        """Say where this rank is: into the file that the executor reads, at once, and to the API from the thread."""
        now = time.time()
        self._beat = Heartbeat(
            rank=self.rank,
            step=step,
            total_steps=total_steps,
            phase=phase,
            progress=progress,
            message=message[:200],
            at=now,
        )
        if phase != self._beat_phase or now - self._beat_written_at >= _BEAT_FILE_SECONDS:
            self._beat_phase, self._beat_written_at = phase, now
            self._write_beat(self._beat)

    def artifact(self, key: str, manifest: Manifest) -> None:
        """Tell the platform of a committed manifest. It would find it by itself when the attempt ends."""
        self._artifacts.append((key, manifest.digest()))
        self._wake.set()

    def close(self, *, deadline_seconds: float = 30.0) -> None:
        """Send what is left; what the API does not take in time stays in the spool."""
        if self._beat is not None:
            self._write_beat(self._beat)
        self._closing.set()
        self._wake.set()
        self._thread.join(deadline_seconds)
        if self._http is not None:
            self._http.close()
        left = len(self._spool)
        if left or self.points_dropped:
            logger.warning("telemetry: %d batches stay in the spool, %d points were dropped", left, self.points_dropped)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The thread

    def _work(self) -> None:
        while True:
            self._wake.wait(_FLUSH_SECONDS)
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                self._flush()
            except Exception:
                logger.exception("telemetry failed; the stage goes on")
            if closing and not self._queue and not self._artifacts and (len(self._spool) == 0 or self._http is None):
                return
            if closing:
                time.sleep(0.05)

    def _flush(self) -> None:
        while self._queue:
            body, points = self._take()
            if points and not self._send("metrics", body):
                if self._spool.add(body):
                    continue
                self.points_dropped += points
            self.points_sent += points
        if self._away():
            return
        for path, body in self._spool.waiting():
            if not self._send("metrics", body):
                return
            self._spool.done(path)
        if self._beat is not None and self._beat is not self._beat_sent:
            beat = self._beat
            if self._send("heartbeats", beat.model_dump_json().encode()):
                self._beat_sent = beat
        while self._artifacts:
            key, digest = self._artifacts[0]
            if not self._send("artifacts", json.dumps({"manifest_key": key, "digest": digest}).encode()):
                return
            self._artifacts.popleft()

    def _take(self) -> tuple[bytes, int]:
        """The oldest entries as one batch."""
        columns: dict[str, Series] = {}
        points = 0
        while self._queue and points < _BATCH_POINTS:
            step, at, metrics = self._queue.popleft()
            for key, value in metrics.items():
                if not _KEY.match(key):
                    self._complain(key)
                    continue
                series = columns.get(key)
                if series is None:
                    series = columns[key] = Series.model_construct(steps=[], values=[], at=[])
                series.steps.append(step)
                series.values.append(float(value))
                series.at.append(at)
                points += 1
        return MetricBatch.model_construct(series=columns).model_dump_json().encode(), points

    def _send(self, what: str, body: bytes) -> bool:
        """False: not now, keep it. True: taken, or refused for good (then keeping it would help nobody)."""
        if self._http is None or self._away():
            return False
        try:
            answer = self._http.post(what, content=body)
        except httpx.HTTPError:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return False
        if answer.is_success:
            return True
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            return False
        logger.warning("the platform refused %s with %d: %s", what, answer.status_code, answer.text[:300])
        return True

    def _away(self) -> bool:
        return time.monotonic() < self._away_until

    def _write_beat(self, beat: Heartbeat) -> None:
        path = self._rank_dir / "heartbeat.json"
        partial = path.with_suffix(".part")
        try:
            partial.write_text(beat.model_dump_json())
            os.replace(partial, path)
        except OSError as error:
            logger.warning("cannot write the heartbeat: %s", error)

    def _complain(self, key: str) -> None:
        if key not in self._bad_keys:
            self._bad_keys.add(key)
            logger.warning("metric key %r does not fit [a-z0-9][a-z0-9_./-]*; it is dropped", key)
