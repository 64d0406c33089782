"""Documents in other languages go to the translator; what it gives must keep numbers, formulas and the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_server import chat_server, said
from rephrase_lab import Lab, small_corpus

from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.data.text_shards import read_split

TRANSLATIONS = {
    "Un tren recorre 120 kilómetros en 2 horas. La velocidad media es 120 / 2 = 60 kilómetros por hora. Respuesta: 60": (
        "A train travels 120 kilometres in 2 hours. The mean speed is 120 / 2 = 60 kilometres per hour. Answer: 60"
    ),
    "Ana tiene 15 manzanas y regala 6 de ellas a su hermano. Le quedan 15 - 6 = 9 manzanas en la cesta. Respuesta: 9": (
        "Ana has 15 apples and gives 6 of them to her brother. There remain 15 - 6 = 9 apples in the basket. Answer: 9"
    ),
}


def stage(url: str) -> dict:
    endpoint = {"kind": "openai", "base_url": url, "model": "m", "max_tries": 1}
    config = {
        "translate_from": ["es"],
        "domains": ["own"],
        "max_rejected": 1.0,
        "retries": 0,
        "decontamination": {"against": ["cloze"]},
    }
    return {"roles": {"rephraser": "far", "translator": "far"}, "endpoint": {"far": endpoint}, "rephrase": config}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.jsonl").write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in TRANSLATIONS))
    return small_corpus(tmp_path / "corpus", sources=[f"{texts}/*.jsonl"], min_document_bytes=8)


@pytest.mark.parametrize(
    ("change", "fate"), [(("", ""), "kept"), (("Answer: ", "Answer: 1"), "number"), (("= ", "≈ "), "answer")]
)
async def test_a_translation_is_kept_where_numbers_formulas_and_answer_are(
    tmp_path: Path, corpus: Path, change: tuple[str, str], fate: str
) -> None:
    (document,) = read_split(corpus, "train")
    async with chat_server(said(TRANSLATIONS[document.text].replace(*change))) as server:
        out = await Lab(tmp_path, corpus).run_async(stage(server.url))
    (row,) = read_rows(out, "rewrites")
    assert (row["fate"], row["style"], row["language"]) == (fate, "translation", "es"), row["faults"]
    assert "from Spanish into English" in server.requests[0]["messages"][0]["content"]


def test_without_a_translator_the_recipe_is_refused(tmp_path: Path, corpus: Path) -> None:
    lacking = stage("http://127.0.0.1:9/v1")
    lacking["roles"] = {"rephraser": "far"}
    with pytest.raises(ValueError, match="needs a translator"):
        Lab(tmp_path, corpus).run(lacking)
