"""The evaluation of one checkpoint: all numbers of report.json, computed from local directories."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import EvaluationConfig
from abruzzi_jobs.data.cloze import ClozeItem, read_items
from abruzzi_jobs.data.corpus import CLOZE_FILE, Progress, silent
from abruzzi_jobs.data.text_shards import TextRecord, read_corpus, read_split
from abruzzi_jobs.data.tokenizer import end_of_text_id, load_tokenizer
from abruzzi_jobs.evals.bits_per_byte import document_bits
from abruzzi_jobs.evals.checkpoint_model import load_model, training_window
from abruzzi_jobs.evals.cloze_scores import ClozeResult, score_items
from abruzzi_jobs.evals.intervals import Interval, ratio, wilson
from abruzzi_jobs.evals.kneser_ney import KneserNeyBytes
from abruzzi_jobs.evals.own_answers import answer_items, is_right
from abruzzi_jobs.models import Decoder, generate

SAMPLE_TEMPERATURE = 0.8
SAMPLE_TOP_P = 0.95
SHOWN = 10
"""Answers of the model's own that the report prints."""
OVERLAP_SHARE = 0.5
"""Of the window: what a scored token has at least before it, away from a document's start."""


@dataclass(frozen=True, kw_only=True)
class _Scored:
    domains: list[str]
    sizes: NDArray[np.float64]
    model_bits: NDArray[np.float64]
    ngram_bits: NDArray[np.float64] | None


def evaluate(
    checkpoint: Path,
    tokenizer: Path,
    corpus: Path,
    config: EvaluationConfig,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What report.json says. Raises AbruzziError bad_data when an input is unfit or nothing is held out."""
    model, state = load_model(checkpoint)
    encoder = load_tokenizer(tokenizer)
    if encoder.get_vocab_size() > model.config.vocab_size:
        raise AbruzziError(
            "bad_data",
            f"The tokenizer has {encoder.get_vocab_size()} tokens, the model {model.config.vocab_size}.",
            hint="Evaluate with the tokenizer that the model was trained with.",
        )
    window = training_window(state, model.config)
    records = choose_held_out(corpus, max_bytes=config.max_bytes)
    scored = _score_text(model, encoder, records, corpus, config, window=window, progress=progress)
    report: dict[str, Any] = {
        "version": 1,
        "step": state.get("step"),
        "tokens": state.get("tokens"),
        "window": window,
        "overlap": int(window * OVERLAP_SHARE),
        "held_out": _text_numbers(scored),
        "ngram_order": config.ngram_baseline,
    }
    items = read_items(corpus / CLOZE_FILE)[: config.cloze_items]
    results = score_items(
        model, encoder, items, window=window, tell=lambda done, total: progress(done, total, "cloze items")
    )
    cloze = _cloze_numbers(results) if results else None
    asked = items[: config.answered_items]
    if cloze is not None and asked:
        said = answer_items(
            model, encoder, asked, window=window, tell=lambda done, total: progress(done, total, "answers of its own")
        )
        cloze["answered"] = _answered_numbers(asked, said)
    report["cloze"] = cloze
    report["samples"] = _samples(model, encoder, config, seed=seed, progress=progress)
    return report


def facts(report: dict[str, Any]) -> dict[str, float]:
    """The numbers that gates and people look at: the manifest's meta."""
    found: dict[str, float] = {}
    for domain, entry in report["held_out"].items():
        # Domains of own files are any text; metric keys and gates are not.
        suffix = "" if domain == "all" else "/" + (re.sub(r"[^a-z0-9_.-]+", "-", domain.lower()).strip("-") or "domain")
        found[f"bits_per_byte{suffix}"] = entry["bits_per_byte"]["value"]
        if "ngram_bits_per_byte" in entry:
            found[f"ngram_bits_per_byte{suffix}"] = entry["ngram_bits_per_byte"]["value"]
    if report["cloze"] is not None:
        found["cloze_accuracy"] = report["cloze"]["accuracy"]["value"]
        found["cloze_chance"] = report["cloze"]["chance"]
        if "answered" in report["cloze"]:
            found["answered_accuracy"] = report["cloze"]["answered"]["accuracy"]["value"]
    return {name: round(value, 6) for name, value in found.items()}


def choose_held_out(corpus: Path, *, max_bytes: int) -> list[TextRecord]:
    """Up to `max_bytes` of held-out text a domain: whole documents in the order of their ids, the last one cut at a character.

    Raises AbruzziError bad_data when the corpus has no held-out text.
    """
    chosen: list[TextRecord] = []
    room: dict[str, int] = defaultdict(lambda: max_bytes)
    for record in sorted(read_split(corpus, "heldout"), key=lambda r: r.id):
        if room[record.domain] <= 0:
            continue
        content = record.text.encode()
        text = (
            record.text
            if len(content) <= room[record.domain]
            else content[: room[record.domain]].decode("utf-8", "ignore")
        )
        room[record.domain] -= len(content)
        if text:
            chosen.append(TextRecord(**{**record.__dict__, "text": text}))
    if not chosen:
        raise AbruzziError(
            "bad_data",
            f"{corpus}: there is no held-out text in this corpus.",
            hint="Set data.held_out_fraction higher in the corpus stage, or evaluation.max_bytes here.",
        )
    return chosen


def _score_text(
    model: Decoder,
    tokenizer: Tokenizer,
    records: list[TextRecord],
    corpus: Path,
    config: EvaluationConfig,
    *,
    window: int,
    progress: Progress,
) -> _Scored:
    eot = end_of_text_id(tokenizer)
    encodings = tokenizer.encode_batch_fast([r.text for r in records], add_special_tokens=False)
    model_bits = document_bits(
        model,
        [np.array([eot, *e.ids], dtype=np.int64) for e in encodings],
        window=window,
        overlap=int(window * OVERLAP_SHARE),
        tell=lambda done, total: progress(done, total, "bits per byte of held-out text"),
    )
    ngram_bits = None
    if config.ngram_baseline:
        total = int(read_corpus(corpus)["train_bytes"])
        ngram = KneserNeyBytes.train(
            (r.text.encode() for r in read_split(corpus, "train")),
            order=config.ngram_baseline,
            tell=lambda done: progress(done, total, f"counting byte {config.ngram_baseline}-grams"),
        )
        ngram_bits = np.array([ngram.bits(r.text.encode()) for r in records])
    return _Scored(
        domains=[r.domain for r in records],
        sizes=np.array([len(r.text.encode()) for r in records], dtype=np.float64),
        model_bits=model_bits,
        ngram_bits=ngram_bits,
    )


def _text_numbers(scored: _Scored) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for domain in ["all", *sorted(set(scored.domains))]:
        here = np.array([domain in ("all", d) for d in scored.domains])
        sizes, bits = scored.sizes[here], scored.model_bits[here]
        entry: dict[str, Any] = {
            "documents": int(here.sum()),
            "bytes": int(sizes.sum()),
            "bits_per_byte": asdict(ratio(bits, sizes)),
        }
        if scored.ngram_bits is not None:
            ngram = scored.ngram_bits[here]
            entry["ngram_bits_per_byte"] = asdict(ratio(ngram, sizes))
            entry["better_by"] = asdict(ratio(ngram - bits, sizes))
        entries[domain] = entry
    return entries


def _cloze_numbers(results: list[ClozeResult]) -> dict[str, Any]:
    return {
        "chance": sum(1 / len(r.scores) for r in results) / len(results),
        **_by_relation([(r.item.relation, r.correct) for r in results]),
    }


def _answered_numbers(items: list[ClozeItem], said: list[str]) -> dict[str, Any]:
    pairs = list(zip(items, said, strict=True))
    return {
        **_by_relation([(item.relation, is_right(text, item.answer)) for item, text in pairs]),
        "examples": [{"id": i.id, "answer": i.answer.strip(), "said": text} for i, text in pairs[:SHOWN]],
    }


def _by_relation(right: list[tuple[str, bool]]) -> dict[str, Any]:
    relations: dict[str, list[bool]] = defaultdict(list)
    for relation, is_correct in right:
        relations[relation].append(is_correct)
    return {
        "items": len(right),
        "accuracy": asdict(_accuracy([is_correct for _, is_correct in right])),
        "relations": {
            name: {"items": len(found), "accuracy": asdict(_accuracy(found))}
            for name, found in sorted(relations.items())
        },
    }


def _accuracy(right: list[bool]) -> Interval:
    return wilson(sum(right), len(right))


def _samples(
    model: Decoder, tokenizer: Tokenizer, config: EvaluationConfig, *, seed: int, progress: Progress
) -> list[dict[str, str]]:
    eot = end_of_text_id(tokenizer)
    samples = []
    for number, prompt in enumerate(config.prompts if config.sample_tokens else ()):
        progress(number, len(config.prompts), "sample text")
        # Tokens carry the space before a word: a space at the prompt's end would leave the next word without its own.
        prompt = prompt.rstrip(" ")
        ids = [eot, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        room = model.config.max_position - len(ids)
        tokens_BL = generate(
            model,
            torch.tensor([ids], dtype=torch.int64),
            max_new_tokens=max(0, min(config.sample_tokens, room)),
            temperature=SAMPLE_TEMPERATURE,
            top_p=SAMPLE_TOP_P,
            end_token=eot,
            generator=generator,
        )
        known = [t for t in tokens_BL[0].tolist() if t < tokenizer.get_vocab_size()]
        samples.append({"prompt": prompt, "text": tokenizer.decode(known, skip_special_tokens=True)})
    return samples
