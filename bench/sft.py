"""Fine-tuning a tiny model to call tools: share of held-out tasks answered by a call in the right form, before and after, generating freely.

The platform's own stages run as processes: corpus, tokenize, pretrain (on plain text that has no marker and no tool of a held-out application), then `sft` with three
seeds on single calls of synthetic tools. Held-out tasks are requests that no training conversation has: of the same tools, and of applications that none
has. Each is answered greedily by the
platform's engine with no constrained decoding; a call is valid where the template's parser takes the turn, the tool was declared, and the arguments fit the
tool's whole JSON Schema. The rubric is stricter: the right tool, exactly the stated arguments, and in the tool's world the very change that the right call makes.

    python bench/sft.py --out bench/results/sft.json          (about ten minutes on two idle cores; --until base stops half-way, and whatever stops it, it goes on from there)
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interleaved import machine, report
from sft_documents import documents, manuals
from sft_tasks import GENERATOR, HELD_OUT_PERCENT, TRAINING_APPLICATIONS, Task, tasks

from abruzzi.contracts.artifact import ArtifactRef
from abruzzi.contracts.recipe import STAGE_CLASSES
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import list_manifests, materialize, open_store, prefix_of, read_manifest
from abruzzi_jobs.evals.intervals import wilson
from abruzzi_jobs.serve.asked import read_asked
from abruzzi_jobs.serve.engine import Engine
from abruzzi_jobs.sft.markers import marker_sets, write_chat_tokenizer
from abruzzi_jobs.synthesis.schemas import value_fault

VOCABULARY, LENGTH = 1024, 384
MODEL = {
    "preset": "tiny", "vocab_size": VOCABULARY + 16, "hidden_size": 128, "num_layers": 3, "num_heads": 4, "q_lora_rank": 64,
    "kv_lora_rank": 48, "intermediate_size": 384, "moe_intermediate_size": 64, "num_experts": 8, "max_position": 512,
}  # fmt: skip
"""Sixteen rows more than the tokenizer has tokens: room for the markers, so that the model before fine-tuning can be asked in the same way."""
OPTIMIZER = {"peak_lr": 4e-3, "adamw_lr": 8e-3}
DOCUMENTS, CONVERSATIONS, HELD_OUT = 24_000, 12_000, 150
MOST_TOOLS, MOST_BYTES = 2, 400
SEEDS = (0, 1, 2)
SETS, HEADLINE = ("new_tasks", "new_tools"), "new_tasks"
"""Held-out tasks: other calls of the tools that were trained on, and calls of tools whose applications were not. The first is the figure; the second
says how far it carries over."""
TARGET_BEFORE, TARGET_AFTER = 0.05, 0.90


def main() -> int:
    arguments = _arguments()
    home: Path = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    prepare(home, arguments)
    if arguments.until == "prepare":
        return 0
    base = make_base(home, arguments)
    if arguments.until == "base":
        return 0
    began, load = time.monotonic(), os.getloadavg()
    with ProcessPoolExecutor(len(SEEDS)) as pool:
        tuned = list(pool.map(tune, itertools.repeat(home), SEEDS, itertools.repeat(arguments)))
        folders = [base["folders"], *(made["folders"] for made in tuned)]
        judging = {
            name: [pool.submit(evaluate, each, home, name, arguments.held_out) for each in folders] for name in SETS
        }
        found = {name: [future.result() for future in futures] for name, futures in judging.items()}
    before, *after = found[HEADLINE]
    valid = [run["format_valid"]["value"] for run in after]
    result = {
        "bench": "sft",
        "machine": {**machine(threads=1), "load_average": list(load)},
        "model": MODEL,
        "parameters": base["parameters"],
        "base": {"tokens": base["tokens"], "text": "manuals of the training applications' tools; made-up functions and calls in plain text (sft-documents-v1)"},
        "tuning": [{key: made[key] for key in ("seed", "facts", "steps", "loss", "valid_loss")} for made in tuned],
        "tasks": {
            "generator": GENERATOR, "held_out_applications_percent": HELD_OUT_PERCENT, "held_out_tasks": arguments.held_out,
            "training_applications": TRAINING_APPLICATIONS, "declarations": f"JSON of at most {MOST_BYTES} bytes a tool, cut to names, types, choices and first sentence; one or two tools",
            "headline": HEADLINE, "calls": 1, "decoding": "greedy, free",
        },
        "held_out": {name: {"before": runs[0], "after": runs[1:]} for name, runs in found.items()},
        "last_start_s": time.monotonic() - began,
        "targets": {"format_valid_before_below": TARGET_BEFORE, "format_valid_after_at_least": TARGET_AFTER},
        "format_valid_after_median": statistics.median(valid),
        "ok": before["format_valid"]["value"] < TARGET_BEFORE and min(valid) >= TARGET_AFTER,
    }  # fmt: skip
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def prepare(home: Path, arguments: argparse.Namespace) -> None:
    """Texts and conversations: not what is measured."""
    text, chats = home / "documents.jsonl", home / "chats.jsonl"
    if chats.exists():
        return
    made = itertools.chain(manuals(MOST_BYTES), itertools.islice(documents(0), arguments.documents))
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in made), encoding="utf-8")
    wanted = itertools.islice(_tasks(0, held_out=False), arguments.conversations)
    lines = "".join(json.dumps(task.conversation()) + "\n" for task in wanted)
    (home / "part").write_text(lines, encoding="utf-8")
    (home / "part").rename(chats)


def make_base(home: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    done = home / "base.json"
    if done.exists():
        return json.loads(done.read_text())
    run_stage(home, "corpus", {"data": {"sources": [str(home / "documents.jsonl")], "dedup": "none"}}, {})
    tokenizer = {"tokenizer": {"vocab_size": VOCABULARY, "train_bytes": 2 << 20}}
    run_stage(home, "tokenize", tokenizer, {"corpus": ("corpus", ArtifactKind.CORPUS)})
    config = {
        "model": MODEL, "optimizer": OPTIMIZER, "schedule": {"tokens": arguments.base_tokens, "warmup_steps": 20},
        "batch": {"sequences": 6, "sequence_length": LENGTH}, "checkpoint": {"every": "20s", "min_free_bytes": 0},
        "telemetry": {"spectral_every_steps": 0, "held_out_every_steps": 0}, "resources": {"threads": 2},
    }  # fmt: skip
    run_stage(home, "pretrain", config, {"dataset": ("tokenize", ArtifactKind.DATASET)})
    checkpoint = fetched(home, "pretrain", ArtifactKind.CHECKPOINT)
    chat = home / "chat-tokenizer"
    chat.mkdir(exist_ok=True)
    write_chat_tokenizer(fetched(home, "tokenize", ArtifactKind.TOKENIZER), chat, marker_sets()["shipped"], "json")
    engine = Engine.load(checkpoint, chat, thread_count=1)
    made = {
        "folders": [str(checkpoint), str(chat)],
        "tokens": arguments.base_tokens,
        "parameters": sum(p.numel() for p in engine.model.parameters()),
    }
    done.write_text(json.dumps(made))
    return made


def tune(home: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One seed, on one thread."""
    stage = f"sft-{seed}"
    config = {
        "data": {"sources": [str(home / "chats.jsonl")]}, "template": {"json_fraction": 1.0}, "optimizer": OPTIMIZER,
        "schedule": {"epochs": arguments.epochs, "warmup_steps": 20}, "seed": seed,
        "batch": {"sequences": 6, "sequence_length": LENGTH}, "checkpoint": {"every": "20s", "min_free_bytes": 0},
        "telemetry": {"spectral_every_steps": 0, "held_out_every_steps": 0}, "resources": {"threads": 1},
    }  # fmt: skip
    inputs = {"checkpoint": ("pretrain", ArtifactKind.CHECKPOINT), "tokenizer": ("tokenize", ArtifactKind.TOKENIZER)}
    run_stage(home, stage, config, inputs)
    checkpoint = newest(home, stage, ArtifactKind.CHECKPOINT)[1]
    examples = next(m for _, m in list_manifests(_store(home), _prefix(stage)) if m.name == "examples")
    return {
        "seed": seed,
        "facts": examples.meta,
        "steps": checkpoint.step,
        "loss": checkpoint.meta["loss"],
        "valid_loss": checkpoint.meta.get("valid_loss"),
        "folders": [str(fetched(home, stage, ArtifactKind.CHECKPOINT)), str(home / "chat-tokenizer")],
    }


def evaluate(folders: list[str], home: Path, name: str, held_out: int) -> dict[str, Any]:
    """Held-out tasks, each asked once, greedily."""
    engine = Engine.load(Path(folders[0]), Path(folders[1]), thread_count=1)
    fates: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    with (home / "chats.jsonl").open(encoding="utf-8") as lines:
        trained = {json.loads(line)["messages"][1]["content"] for line in lines}
    drawn = _tasks(2, held_out=name == "new_tools")
    wanted = (task for task in drawn if task.request not in trained and _fits(engine, task))
    for task in itertools.islice(wanted, held_out):
        fate, verdicts, said = judged(engine, task)
        fates[fate] += 1
        passed.update(name for name, holds in verdicts.items() if holds)
        if not all(verdicts.values()) and len(wrong) < 5:
            wrong.append(
                {"request": task.request, "wanted": task.arguments, "tool": task.tool.name, "said": said[:300]}
            )
    shares = {name: asdict(wilson(passed[name], held_out)) for name in ("format_valid", "tool", "arguments", "rubric")}
    return {**shares, "fates": dict(fates.most_common()), "examples_of_failures": wrong}


def _fits(engine: Engine, task: Task) -> bool:
    """Whether a conversation of this length would have been trained on: the stage leaves out what is longer than a row."""
    conversation = read_asked(task.conversation(), has_template=True).conversation
    assert engine.template is not None
    assert conversation is not None
    return len(engine.template.encode(conversation, "json").tokens) <= LENGTH + 1


def judged(engine: Engine, task: Task) -> tuple[str, dict[str, bool], str]:
    """(what the answer is, verdicts, the answer as text)"""
    body = {**task.prompt(), "temperature": 0, "max_tokens": 120}
    answer = engine.answer(read_asked(body, has_template=True))
    assert engine.template is not None
    said = engine.template.shown(answer.tokens)
    verdicts = dict.fromkeys(("format_valid", "tool", "arguments", "rubric"), False)
    if len(answer.tool_calls) != 1:
        return "no_call" if not answer.tool_calls else "several_calls", verdicts, said
    function = answer.tool_calls[0]["function"]
    called = next((tool for tool in task.declared if tool.name == function["name"]), None)
    if called is None:
        return "undeclared_tool", verdicts, said
    arguments = json.loads(function["arguments"])
    if value_fault(arguments, called.input_schema):
        return "breaks_schema", verdicts, said
    verdicts["format_valid"] = True
    verdicts["tool"] = called.name == task.tool.name
    verdicts["arguments"] = verdicts["tool"] and arguments == task.arguments
    wanted, got = (task.world().call(tool, given) for tool, given in ((task.tool, task.arguments), (called, arguments)))
    verdicts["rubric"] = verdicts["arguments"] and got.ok and got.changes == wanted.changes
    return "valid", verdicts, said


def run_stage(home: Path, stage: str, config: dict[str, Any], inputs: dict[str, tuple[str, ArtifactKind]]) -> None:
    """As the platform's launcher would, in a process of its own, going on from the newest checkpoint; what is made is not made again.
    Raises RuntimeError with the end of its log."""
    kind = StageKind(stage.partition("-")[0])
    if not kind.trains and any(list_manifests(_store(home), _prefix(stage))):
        return
    resolved = STAGE_CLASSES[kind].model_validate({"id": stage, "kind": kind, **config}).model_dump(mode="json")
    epoch = 1 + len(list((home / "attempts").glob(f"{stage}-e*")))
    has_checkpoint = any(m.kind is ArtifactKind.CHECKPOINT for _, m in list_manifests(_store(home), _prefix(stage)))
    spec = StageSpec(
        project_id="default", run_id="bench", stage_id=stage, attempt_id=f"bench-{stage}-{epoch}", epoch=epoch, kind=kind,
        config=resolved, inputs={name: _reference(home, *source) for name, source in inputs.items()},
        store=DirectoryStore(root=str(home / "store")), output_prefix=_prefix(stage), seed=resolved["seed"],
        resume=_reference(home, stage, ArtifactKind.CHECKPOINT) if has_checkpoint else None,
    )  # fmt: skip
    folder = home / "attempts" / f"{stage}-e{epoch}"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(spec.model_dump_json())
    threads = str(resolved["resources"]["threads"] or 2)
    variables = {
        "ABRUZZI_SPEC": str(folder / "spec.json"),
        "ABRUZZI_ATTEMPT_DIR": str(folder),
        "OMP_NUM_THREADS": threads,
    }
    with (folder / "output.log").open("wb") as log:
        command = [sys.executable, "-m", "abruzzi_jobs.entrypoints.main"]
        code = subprocess.run(command, env={**os.environ, **variables}, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        raise RuntimeError(f"stage {stage} ended with {code}: {(folder / 'output.log').read_text()[-2000:]}")


def newest(home: Path, stage: str, kind: ArtifactKind) -> Any:
    """(key, manifest)"""
    found = [(key, m) for key, m in list_manifests(_store(home), _prefix(stage)) if m.kind is kind]
    return max(found, key=lambda item: item[1].step or 0)


def fetched(home: Path, stage: str, kind: ArtifactKind) -> Path:
    key, _ = newest(home, stage, kind)
    folder = home / "fetched" / f"{stage}-{kind.value}"
    folder.mkdir(parents=True, exist_ok=True)
    materialize(_store(home), read_manifest(_store(home), key), prefix_of(key), folder)
    return folder


def _reference(home: Path, stage: str, kind: ArtifactKind) -> ArtifactRef:
    key, manifest = newest(home, stage, kind)
    return ArtifactRef(kind=kind, manifest_key=key, digest=manifest.digest())


def _store(home: Path) -> Any:
    return open_store(DirectoryStore(root=str(home / "store")))


def _prefix(stage: str) -> str:
    return f"projects/default/runs/bench/{stage}/"


def _tasks(seed: int, *, held_out: bool) -> Any:
    return tasks(seed, held_out=held_out, most_tools=MOST_TOOLS, most_bytes=MOST_BYTES)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--home", type=Path, default=Path("/tmp/abruzzi-bench-sft"), help="where it works, and goes on from"
    )
    parser.add_argument("--until", choices=("prepare", "base", "end"), default="end")
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--conversations", type=int, default=CONVERSATIONS)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--base-tokens", type=int, default=3_000_000)
    parser.add_argument("--epochs", type=float, default=1.0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
