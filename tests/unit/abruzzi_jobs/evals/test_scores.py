"""Scores of text and of cloze items: every byte once, windows that change nothing where all fits, options compared fairly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from abruzzi.cli.report import _print_evaluation
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import CorpusData, EvaluationConfig, TokenizerConfig
from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.data.cloze import ClozeItem
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.data.text_shards import read_split
from abruzzi_jobs.data.tokenizer import end_of_text_id, load_tokenizer, train_tokenizer
from abruzzi_jobs.evals.bits_per_byte import document_bits, plan_windows
from abruzzi_jobs.evals.checkpoint_model import load_model
from abruzzi_jobs.evals.cloze_scores import ClozeResult, score_items
from abruzzi_jobs.evals.evaluation import choose_held_out, evaluate, facts
from abruzzi_jobs.evals.kneser_ney import KneserNeyBytes
from abruzzi_jobs.evals.report import markdown
from abruzzi_jobs.models import KimiK2, ModelConfig


@pytest.fixture(scope="module")
def model() -> KimiK2:
    # Larger weights than at a training's start, so that the model has opinions to compare.
    config = ModelConfig.from_dict({**MODEL_PRESETS["nano"], "init_std": 0.3})
    return KimiK2(config, seed=0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, model: KimiK2) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    paths = {name: root / name for name in ("corpus", "tokenizer", "checkpoint")}
    for path in paths.values():
        path.mkdir()
    names = ("mendeleev", "python-docs")
    config = CorpusData(sources=names, held_out_fraction=0.1)
    build_corpus([resolve(n, text_field="text") for n in names], config, out=paths["corpus"])
    train_tokenizer(paths["corpus"], TokenizerConfig(vocab_size=512), out=paths["tokenizer"])
    save_file(model.state_dict(), paths["checkpoint"] / "model.safetensors")
    state = {"step": 7, "tokens": 900, "config": {"model": model.config.to_dict(), "batch": {"sequence_length": 64}}}
    (paths["checkpoint"] / "state.json").write_text(json.dumps(state))
    return paths


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=5), window=st.integers(1, 20), data=st.data())
def test_every_target_is_counted_once_with_the_promised_context(
    lengths: list[int], window: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    counted: list[tuple[int, int]] = []
    for w in plan_windows(lengths, window=window, overlap=overlap):
        assert 0 <= w.start <= w.first < w.stop
        assert w.stop - w.start <= window
        assert w.first - w.start >= min(overlap, w.first)
        counted += [(w.document, t) for t in range(w.first, w.stop)]
    assert sorted(counted) == [(d, t) for d, n in enumerate(lengths) for t in range(n - 1)]


def test_a_document_that_fits_the_window_scores_as_one_forward_pass(model: KimiK2) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 512, n) for n in (1, 2, 33, 64, 65)]
    bits = document_bits(model, documents, window=64, overlap=32, batch_tokens=100)
    for document, found in zip(documents, bits, strict=True):
        tokens = torch.from_numpy(document)[None]
        log_p = torch.log_softmax(model.logits(tokens), -1)
        expected = -log_p[0, :-1].gather(1, tokens[0, 1:, None]).sum().item() / math.log(2)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_batching_does_not_change_scores(model: KimiK2) -> None:
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 512, n) for n in (200, 5, 90, 130)]
    alone = np.concatenate([document_bits(model, [d], window=48, overlap=24, batch_tokens=48) for d in documents])
    together = document_bits(model, documents, window=48, overlap=24, batch_tokens=5000)
    assert np.allclose(alone, together, rtol=1e-5)


def test_cloze_scores_are_log_probabilities_a_byte_of_the_option(model: KimiK2, inputs: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    item = ClozeItem(
        id="x", relation="r", prompt="The symbol of Iron is", answer=" Fe", distractors=(" Copper", " O", " Sn")
    )
    (result,) = score_items(model, tokenizer, [item], window=64)
    for option, score in zip((item.answer, *item.distractors), result.scores, strict=True):
        before = [end_of_text_id(tokenizer), *tokenizer.encode(item.prompt).ids]
        after = tokenizer.encode(option).ids
        log_p = torch.log_softmax(model.logits(torch.tensor([before + after])), -1)[0]
        expected = sum(log_p[len(before) - 1 + i, t].item() for i, t in enumerate(after)) / len(option)
        assert score == pytest.approx(expected, rel=1e-4)


def test_long_prompts_lose_their_beginning_and_ties_are_not_correct(model: KimiK2, inputs: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    long = ClozeItem(id="x", relation="r", prompt="word " * 200, answer=" a", distractors=(" b",))
    (result,) = score_items(model, tokenizer, [long], window=16)
    assert all(math.isfinite(s) for s in result.scores)
    assert not ClozeResult(item=long, scores=(-1.0, -1.0)).correct
    assert ClozeResult(item=long, scores=(-0.5, -1.0)).correct


def test_held_out_text_is_cut_at_a_character_and_by_domain(inputs: dict[str, Path]) -> None:
    everything = choose_held_out(inputs["corpus"], max_bytes=10**9)
    assert {r.id for r in everything} == {r.id for r in read_split(inputs["corpus"], "heldout")}
    for limit in (1, 999, 5000):
        sizes: dict[str, int] = {}
        for record in choose_held_out(inputs["corpus"], max_bytes=limit):
            sizes[record.domain] = sizes.get(record.domain, 0) + len(record.text.encode())
        assert set(sizes) == {"knowledge", "web"}
        assert all(limit - 3 <= size <= limit for size in sizes.values())


def test_the_report_agrees_with_its_parts_and_reads_well(model: KimiK2, inputs: dict[str, Path]) -> None:
    config = EvaluationConfig(max_bytes=4000, cloze_items=40, sample_tokens=12, prompts=("The ``` element ",))
    heard: list[str] = []
    report = evaluate(**inputs, config=config, progress=lambda done, total, message: heard.append(message))
    records = choose_held_out(inputs["corpus"], max_bytes=4000)
    size = sum(len(r.text.encode()) for r in records)
    assert report["held_out"]["all"]["bytes"] == size
    ngram = KneserNeyBytes.train((r.text.encode() for r in read_split(inputs["corpus"], "train")), order=4)
    numbers = facts(report)
    assert numbers["ngram_bits_per_byte"] == pytest.approx(
        sum(ngram.bits(r.text.encode()) for r in records) / size, abs=1e-6
    )
    tokenizer = load_tokenizer(inputs["tokenizer"])
    documents = [np.array([0, *tokenizer.encode(r.text).ids]) for r in records]
    assert numbers["bits_per_byte"] == pytest.approx(
        document_bits(model, documents, window=64, overlap=32).sum() / size, abs=1e-4
    )
    assert set(numbers) >= {"bits_per_byte/web", "ngram_bits_per_byte/knowledge", "cloze_accuracy", "cloze_chance"}
    gain = report["held_out"]["all"]["better_by"]
    assert gain["value"] == pytest.approx(numbers["ngram_bits_per_byte"] - numbers["bits_per_byte"], abs=1e-4)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert report["cloze"]["items"] == 40
    assert report["cloze"]["chance"] == pytest.approx(0.25)
    text = markdown(json.loads(json.dumps(report)))
    assert "Kneser-Ney 4-gram byte model" in text
    assert "| web |" in text
    assert "````text" in text
    assert {"cloze items", "sample text", "bits per byte of held-out text"} <= set(heard)


def test_a_domain_of_few_documents_is_reported_without_an_interval(
    inputs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluationConfig(max_bytes=60, cloze_items=0, sample_tokens=0)
    report = json.loads(json.dumps(evaluate(**inputs, config=config)))
    few = [name for name, entry in report["held_out"].items() if entry["documents"] < 5]
    assert few
    for name in few:
        entry = report["held_out"][name]
        assert entry["bits_per_byte"]["low"] is entry["better_by"]["high"] is None
    assert "[too few documents]" in markdown(report)
    _print_evaluation(report, "evaluate")
    assert "too few documents" in capsys.readouterr().out


def test_the_same_evaluation_gives_the_same_report(inputs: dict[str, Path]) -> None:
    config = EvaluationConfig(max_bytes=1500, cloze_items=8, sample_tokens=8)
    assert evaluate(**inputs, config=config, seed=3) == evaluate(**inputs, config=config, seed=3)


def test_parts_can_be_left_out(inputs: dict[str, Path]) -> None:
    report = evaluate(
        **inputs, config=EvaluationConfig(max_bytes=1500, cloze_items=0, sample_tokens=0, ngram_baseline=0)
    )
    assert report["cloze"] is None
    assert report["samples"] == []
    assert "ngram_bits_per_byte" not in facts(report)
    assert "bits a byte" in markdown(report)


def test_a_damaged_or_foreign_checkpoint_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AbruzziError, match="no model can be loaded") as error:
        load_model(tmp_path)
    assert error.value.code == "bad_data"
    state = json.loads((inputs["checkpoint"] / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state))
    (tmp_path / "model.safetensors").write_bytes((inputs["checkpoint"] / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(AbruzziError, match="no model can be loaded"):
        load_model(tmp_path)
    state["config"]["model"]["num_layers"] = 3
    (tmp_path / "state.json").write_text(json.dumps(state))
    (tmp_path / "model.safetensors").write_bytes((inputs["checkpoint"] / "model.safetensors").read_bytes())
    with pytest.raises(AbruzziError, match="missing"):
        load_model(tmp_path)
