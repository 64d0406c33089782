"""One evaluation by one harness in this process, with a model that answers at once: `python eval_runner_worker.py WHO ITEMS.jsonl WARMUP.jsonl FOLDER`
prints JSON.

All do the same: read the items, ask, compare exactly, keep every answer with its score, and give the mean. What they import and cache is not timed: each
runs over the items of WARMUP first. Ours is the stage's whole path but for the network: roles with their log of calls, journal, rows, summary.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

SAID = "4"
Run = Callable[[Path, Path], float]
"""(items, an empty folder for what is kept) → the mean score."""


class Memory(threading.Thread):
    """The most that this process has held since `reset`, in MiB, looked at every 20 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.base = self.most = self._now()
        self.start()

    def run(self) -> None:
        while True:
            self.most = max(self.most, self._now())
            time.sleep(0.02)

    def _now(self) -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20


def ours() -> Run:
    from abruzzi.contracts.endpoint import RoleConfig
    from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
    from abruzzi.store import DirectoryStore
    from abruzzi_jobs.chat.calls import CallLog
    from abruzzi_jobs.chat.request import ChatResponse, Usage
    from abruzzi_jobs.chat.roles import RoleClient
    from abruzzi_jobs.data.row_shards import RowShardWriter
    from abruzzi_jobs.evals.runner.run import run_suite, summarize
    from abruzzi_jobs.evals.suites.suite import QuestionSuite

    class Questions(QuestionSuite):
        name, summary, licence, source = "questions", "Questions of a file.", "ours", "this bench"
        place: ClassVar[Path]

        def items(self) -> Iterator[Item]:
            with self.place.open(encoding="utf-8") as lines:
                for row in map(json.loads, lines):
                    yield Item(id=row["id"], prompt=row["question"], gold=row["answer"])

        async def score(self, item: Any, transcript: Any, helpers: Any) -> Verdict:
            return Verdict(score=float(transcript.answer == item.gold))

    class Stub:
        """An endpoint that answers at once."""

        name = "stub"
        limits = SimpleNamespace(kind="openai")
        address = SimpleNamespace(model="stub")

        async def ask(self, question: Any, request: Any, body: bytes, **_: Any) -> ChatResponse:
            return ChatResponse(text=SAID, usage=Usage(7, 1), model="stub", generator="stub", is_llm=True)

    async def evaluate(place: Path, folder: Path) -> float:
        Questions.place = place
        suite, store, out = Questions(SuiteSettings()), DirectoryStore(folder / "store"), folder / "report"
        out.mkdir()
        log = CallLog(store, "out/calls/", writer="w")
        await log.open()
        target = RoleClient("target", RoleConfig(endpoint="stub"), Stub(), log, seed=0)
        asked = await run_suite(suite, {"target": target}, store=store, prefix="out/", ahead=32)
        writer = RowShardWriter(out, "answers")
        with (out / "scores.json").open("w") as scores:

            def score(item: str, value: float | None) -> None:
                scores.write(f"{item} {value}\n")

            summary = summarize(asked, foreign=None, take=writer.write, score=score)
        writer.close(suites=["questions@1"])
        await log.close()
        log.write(out)
        asked.discard()
        log.discard()
        mean: Any = summary.score
        return mean.value

    return lambda place, folder: asyncio.run(evaluate(place, folder))


def lm_eval() -> Run:
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Stub(LM):
        def generate_until(self, requests: Any) -> list[str]:
            return [SAID] * len(requests)

        def loglikelihood(self, requests: Any) -> Any:
            raise RuntimeError("the task of this bench generates; it asks for no likelihoods")

        loglikelihood_rolling = loglikelihood

    def run(place: Path, folder: Path) -> float:
        files = {"data_files": {"test": str(place)}, "cache_dir": str(folder / "cache")}
        task = {
            "task": "questions", "dataset_path": "json", "dataset_kwargs": files, "test_split": "test", "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}", "output_type": "generate_until", "generation_kwargs": {"until": ["\n"]},
            "metric_list": [{"metric": "exact_match"}],
        }  # fmt: skip
        manager = TaskManager(include_defaults=False)
        found = simple_evaluate(model=Stub(), tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True)
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
            for sample in found["samples"]["questions"]:
                file.write(json.dumps(sample, default=str) + "\n")
        return found["results"]["questions"]["exact_match,none"]

    return run


def inspect_ai() -> Run:
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample, json_dataset
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import exact

    def read(row: dict[str, Any]) -> Sample:
        return Sample(id=row["id"], input=row["question"], target=row["answer"])

    def said(*_: Any) -> ModelOutput:
        found = ModelOutput.from_content("mockllm/model", SAID)
        found.usage = ModelUsage(input_tokens=7, output_tokens=1, total_tokens=8)
        return found

    def run(place: Path, folder: Path) -> float:
        model = get_model("mockllm/model", custom_outputs=said)
        task = Task(dataset=json_dataset(str(place), read), scorer=exact())
        (log,) = evaluate(
            task,
            model=model,
            log_dir=str(folder),
            display="none",
            max_connections=32,
            max_samples=32,
            log_realtime=False,
        )
        assert log.status == "success", log.error
        results: Any = log.results
        return results.scores[0].metrics["mean"].value

    return run


def main() -> None:
    who, place, warmup, folder = sys.argv[1], *map(Path, sys.argv[2:])
    logging.disable(logging.WARNING)
    run = {"ours": ours, "lm-eval": lm_eval, "inspect-ai": inspect_ai}[who]()
    for name in ("warmup", "timed"):
        (folder / name).mkdir(parents=True)
    run(warmup, folder / "warmup")
    memory = Memory()
    begun, used = time.perf_counter(), time.process_time()
    score = run(place, folder / "timed")
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    told = {"seconds": seconds, "cpu_seconds": cpu, "score": score, "base_mib": memory.base, "peak_mib": memory.most}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
