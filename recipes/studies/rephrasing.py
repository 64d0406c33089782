"""Writes recipes/studies/rephrasing.toml: three arms × seeds, stage by stage, so that what runs is plain to read.

    python recipes/studies/rephrasing.py > recipes/studies/rephrasing.toml
    python recipes/studies/rephrasing.py --seeds 5 --endpoint openai --base-url https://llm.example.org/v1 --model kimi-k2 > mine.toml

What differs between arms is the text; tokens, model, optimizer, seeds and questions are the same.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    key: str
    label: str
    published: float
    rewrites: int
    """Of each document; 0: the text as it is."""


ARMS = (
    Arm("raw", "raw text, 10 epochs", 23.76, 0),
    Arm("one", "1 rewrite, 10 epochs", 27.39, 1),
    Arm("ten", "10 rewrites, 1 epoch", 28.94, 10),
)
"""Labels and figures: paper, section 2.2.1, table 1."""

ENDPOINTS = {
    "standin": 'kind = "standin"                        # rules, no language model; a real one: docs/how-to/run-the-rephrase-ablation.md',
    "smollm2": 'kind = "smollm2"\nconcurrency = 8\ncontext = 1024',
    "openai": 'kind = "openai"\nbase_url = "{base_url}"\nmodel = "{model}"\napi_key = "secret:teacher-key"\nconcurrency = 64',
}

HEAD = """\
# The paper's rephrasing ablation in small (section 2.2.1): the same facts as raw text, as one rewrite, as ten rewrites; equal training tokens.
# Written by recipes/studies/rephrasing.py, which says how to make it larger. Run it: `abruzzi run recipes/studies/rephrasing.toml --wait`.
# The last stage draws the table and the picture beside the paper's figures, whatever comes out.
version = 1
name = "study-rephrasing"
description = "Raw x10 epochs, 1 rewrite x10 epochs, 10 rewrites x1 epoch, on facts with held-out questions; {seeds} seeds each"

[endpoint.teacher]
{endpoint}

[[stage]]
id = "corpus"
kind = "corpus"
[stage.data]
sources = ["{source}"]{cut}
held_out_fraction = 0.02                # no text has the wordings that the questions are asked in

# The early checkpoint that all arms go on from: it has read about other subjects, and knows nothing that is asked.
[[stage]]
id = "early-corpus"
kind = "corpus"
[stage.data]
sources = ["{early_source}"]{cut}
held_out_fraction = 0.02
"""

REPHRASE = """
[[stage]]
id = "{stage}"
kind = "rephrase"
needs = ["{corpus}"]
[stage.roles]
rephraser = {{ endpoint = "teacher", temperature = 0.8, max_tokens = 400 }}
[stage.rephrase]
rewrites_per_document = {rewrites}
keep_raw = "{keep_raw}"{why}
max_rejected = 1.0
decontamination = {{ against = ["cloze"] }}
"""

TOKENIZE = """
[[stage]]
id = "tokens-{key}"
kind = "tokenize"
needs = [{needs}]
tokenizer = {{ vocab_size = {vocab_size} }}
"""

TRAIN = """
[[stage]]
id = "{stage}"
kind = "pretrain"
needs = [{needs}]
seed = {seed}
model = {model}
optimizer = {optimizer}
schedule = {schedule}
batch = {batch}
checkpoint = {{ every = "1h" }}
telemetry = {{ spectral_every_steps = 0, held_out_every_steps = 0 }}
retry = {{ hang = "20m" }}                # a laptop starts all of them at once, and that may take it long
resources = {{ threads = 1 }}
"""

ASK = """
[[stage]]
id = "ask-{stage}"
kind = "evaluate"
needs = ["{stage}"]
inputs = {{ corpus = "corpus.corpus" }}
evaluation = {{ max_bytes = "4 KB", cloze_items = 4000, answered_items = 4000, ngram_baseline = 0, sample_tokens = 0 }}
resources = {{ threads = 1 }}
"""

COMPARE = """
[[stage]]
id = "compare"
kind = "container"
needs = [{needs}]
[stage.container]
command = [
  "python", "-m", "abruzzi_jobs.evals.comparison",
  "--study", "rephrasing",
{arms}
]
[stage.inputs]
{inputs}
"""


def recipe(arguments: argparse.Namespace) -> str:
    endpoint = ENDPOINTS[arguments.endpoint].format(base_url=arguments.base_url, model=arguments.model)
    trained = [(arm, seed) for arm in ARMS for seed in range(arguments.seeds)]
    cut = f'\nmax_bytes = "{arguments.max_bytes}"' if arguments.max_bytes else ""
    sources = {"source": arguments.source, "early_source": arguments.early_source, "cut": cut}
    return "".join(
        [
            HEAD.format(seeds=arguments.seeds, endpoint=endpoint, **sources),
            *_texts(arguments),
            _train(arguments, "early", ['"tokens-early"'], seed=0, tokens=arguments.early_tokens, sequences=8),
            *(part for arm, seed in trained for part in _trained(arguments, arm, seed)),
            _compare(trained),
        ]
    )


def _texts(arguments: argparse.Namespace) -> list[str]:
    early = {"stage": "early-rephrase", "corpus": "early-corpus", "rewrites": arguments.early_rewrites}
    parts = [REPHRASE.format(**early, keep_raw="all", why="")]
    for arm in ARMS:
        if arm.rewrites:
            why = "                   # a document without a good rewrite stays as it was: no arm loses facts"
            texts = {"stage": f"rephrase-{arm.key}", "corpus": "corpus", "rewrites": arm.rewrites}
            parts.append(REPHRASE.format(**texts, keep_raw="rejected", why=why))
    # One tokenizer for all: tokens of one arm are worth the tokens of another.
    parts.append(TOKENIZE.format(key="early", needs='"early-rephrase"', vocab_size=arguments.vocab_size))
    for arm in ARMS:
        corpus = f"rephrase-{arm.key}" if arm.rewrites else "corpus"
        parts.append(TOKENIZE.format(key=arm.key, needs=f'"{corpus}", "tokens-early"', vocab_size=arguments.vocab_size))
    return parts


def _trained(arguments: argparse.Namespace, arm: Arm, seed: int) -> list[str]:
    stage = f"{arm.key}-{seed}"
    needs = [f'"tokens-{arm.key}"', '"early"']
    return [
        _train(arguments, stage, needs, seed=seed, tokens=arguments.tokens, sequences=arguments.sequences),
        ASK.format(stage=stage),
    ]


def _train(
    arguments: argparse.Namespace, stage: str, needs: list[str], *, seed: int, tokens: str, sequences: int
) -> str:
    return TRAIN.format(
        stage=stage,
        needs=", ".join(needs),
        seed=seed,
        model=arguments.model_table,
        optimizer=f"{{ peak_lr = {arguments.peak_lr} }}",
        schedule=f'{{ tokens = "{tokens}", warmup_steps = 20 }}',
        batch=f"{{ sequences = {sequences}, sequence_length = 128 }}",
    )


def _compare(trained: list[tuple[Arm, int]]) -> str:
    inputs = [f'"{arm.key}.{seed}" = "ask-{arm.key}-{seed}.report"' for arm, seed in trained]
    inputs += [f'"{arm.key}.dataset" = "tokens-{arm.key}.dataset"' for arm in ARMS]
    inputs += [f'"{arm.key}.corpus" = "rephrase-{arm.key}.corpus"' for arm in ARMS if arm.rewrites]
    return COMPARE.format(
        needs=", ".join(f'"ask-{arm.key}-{seed}"' for arm, seed in trained),
        arms="\n".join(f'  "--arm", "{arm.key}", "{arm.label}", "{arm.published}",' for arm in ARMS),
        inputs="\n".join(inputs),
    )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings an arm")
    parser.add_argument(
        "--tokens", default="115k", help="of each training: one epoch of what the stage tokens-ten makes"
    )
    parser.add_argument("--source", default="fact-sheets", help="with facts: what is taught and asked")
    parser.add_argument("--early-source", default="more-fact-sheets", help="what the early checkpoint has read")
    parser.add_argument("--max-bytes", default="", help="of each of the two, such as 6KB; absent: all")
    parser.add_argument("--early-tokens", default="400k")
    parser.add_argument("--early-rewrites", type=int, default=4)
    parser.add_argument("--endpoint", choices=sorted(ENDPOINTS), default="standin", help="who rewrites")
    parser.add_argument("--base-url", default="https://llm.example.org/v1")
    parser.add_argument("--model", default="kimi-k2", help="of the endpoint")
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--peak-lr", type=float, default=6e-3)
    parser.add_argument("--sequences", type=int, default=2, help="a step, of 128 tokens")
    parser.add_argument(
        "--model-table",
        default='{ preset = "nano", vocab_size = 1024, hidden_size = 128, num_layers = 3, num_heads = 4, q_lora_rank = 48, '
        "kv_lora_rank = 48, intermediate_size = 384, moe_intermediate_size = 64 }",
        help="TOML of the model's table",
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.stdout.write(recipe(parse()))
