"""Answers of the model's own: greedy text, right where it is the answer and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from abruzzi.contracts.recipe import CorpusData, TokenizerConfig
from abruzzi.contracts.training import MODEL_PRESETS
from abruzzi_jobs.data.cloze import ClozeItem
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.data.tokenizer import end_of_text_id, train_tokenizer
from abruzzi_jobs.evals.own_answers import answer_items, is_right
from abruzzi_jobs.models import KimiK2, ModelConfig


@pytest.mark.parametrize(
    ("said", "answer", "right"),
    [
        (" Fe. Iron is", " Fe", True),
        (" fe", " Fe", True),
        (" Feb.", " Fe", False),
        (" Fe and more.", " Fe", False),
        (" Åland Islands.", " Aland islands", True),
        (" 26", " 26", True),
        (" 267.", " 26", False),
        (" the Fe.", " Fe", False),
        ("", " Fe", False),
        (" transition metals\nThe", " transition metals", True),
    ],
)
def test_right_is_the_answer_and_nothing_else(said: str, answer: str, right: bool) -> None:
    assert is_right(said, answer) is right


def test_answers_are_greedy_text_in_the_order_of_the_items(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "tokenizer").mkdir()
    config = CorpusData(sources=("fact-sheets",), held_out_fraction=0.02)
    build_corpus([resolve("fact-sheets", text_field="text")], config, out=tmp_path / "corpus")
    tokenizer = train_tokenizer(tmp_path / "corpus", TokenizerConfig(vocab_size=400), out=tmp_path / "tokenizer")
    model = KimiK2(ModelConfig.from_dict({**MODEL_PRESETS["nano"], "init_std": 0.3}), seed=0)
    model = model.eval().requires_grad_(False)
    prompts = ["The symbol of Iron is", "Iron", "The number of it is", "Neon", "word " * 60]
    items = [
        ClozeItem(id=str(n), relation="r", prompt=p, answer=" Fe", distractors=(" O",)) for n, p in enumerate(prompts)
    ]
    said = answer_items(model, tokenizer, items, window=48)
    room = 2 + len(tokenizer.encode(" Fe").ids)
    for prompt, text in zip(prompts, said, strict=True):
        tokens = [end_of_text_id(tokenizer), *tokenizer.encode(prompt).ids][-(48 - room) :]
        new: list[int] = []
        while len(new) < room and end_of_text_id(tokenizer) not in new:
            new.append(int(model.logits(torch.tensor([tokens + new]))[0, -1].argmax()))
        known = [t for t in new if t < tokenizer.get_vocab_size()]
        assert text == tokenizer.decode(known, skip_special_tokens=True)
