"""The mlflow side of bench/ingest.py, run in mlflow's own environment. A line of JSON in, a line of JSON out.

Metrics are made before the clock starts: what is timed is `MlflowClient.log_batch` alone, with the 1000 metrics that one call may take.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric


def main() -> None:
    client, runs, batch_points = MlflowClient(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    experiment = client.create_experiment(f"ingest-{time.time_ns()}")
    ids = [client.create_run(experiment).info.run_id for _ in range(runs)]
    with ThreadPoolExecutor(runs) as pool:
        _answer({"version": mlflow.__version__})
        for line in sys.stdin:
            asked = json.loads(line)
            work = [(run_id, _batches(asked, batch_points)) for run_id in ids[: asked["writers"]]]
            began = time.perf_counter()
            list(pool.map(lambda one: _send(client, *one), work))
            _answer({"seconds": time.perf_counter() - began})


def _batches(asked: dict[str, Any], batch_points: int) -> list[list[Metric]]:
    """The same points as ours: every key at every step."""
    points = [
        Metric(key, asked["value"] + step * 1e-6, 1_700_000_000_000 + step, step)
        for step in range(asked["first_step"], asked["first_step"] + asked["steps"])
        for key in asked["keys"]
    ]
    return [points[i : i + batch_points] for i in range(0, len(points), batch_points)]


def _send(client: MlflowClient, run_id: str, batches: list[list[Metric]]) -> None:
    for batch in batches:
        client.log_batch(run_id, metrics=batch, synchronous=True)


def _answer(body: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
