"""The user's own files: every format reads back, every kind of nonsense is named with its file and a remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from s3_server import S3Server

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sources import looks_like_files
from abruzzi.store import open_store
from abruzzi_jobs.data.own_files import PIECE_BYTES, find_files, read_file
from abruzzi_jobs.data.sources import resolve

TEXTS = ["first text, with ünïcode", "second\ntext", "\u2028 third"]


def _lines(texts: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({field: t}, ensure_ascii=False) + "\n" for t in texts).encode()


def _write(path: Path, texts: list[str]) -> None:
    if path.name.endswith(".jsonl"):
        path.write_bytes(_lines(texts))
    elif path.name.endswith(".jsonl.zst"):
        path.write_bytes(b"".join(zstandard.compress(_lines([t])) for t in texts))  # several frames
    elif path.name.endswith(".parquet"):
        pq.write_table(pa.table({"text": texts, "other": [1] * len(texts)}), path, row_group_size=2)
    else:
        path.write_text("\n".join(texts), encoding="utf-8")


def _read(source: str, **values: str) -> list[str]:
    return [d.text for d in resolve(source, text_field=values.get("text_field", "text")).read()]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet"])
def test_formats_of_records_round_trip(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, TEXTS)
    assert _read(str(tmp_path / name)) == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "b.md", "C.TXT"])
def test_plain_files_are_one_document(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name, TEXTS)
    assert _read(str(tmp_path / name)) == ["\n".join(TEXTS)]


def test_a_directory_and_a_glob_give_the_same_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.jsonl", "deep/c.md", "note.pdf"):
        _write(tmp_path / name, [name])
    assert _read(str(tmp_path)) == ["a.jsonl", "b.txt", "deep/c.md"]
    assert _read(f"{tmp_path}/**/*.[tm]*") == ["b.txt", "deep/c.md"]
    assert [f.name for f in find_files(str(tmp_path))] == ["a.jsonl", "b.txt", "deep/c.md"]


def test_a_long_plain_file_is_divided_at_blank_lines_with_nothing_lost(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {n} " + "x" * 500 for n in range(400)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    pieces = _read(str(tmp_path / "book.txt"))
    assert len(pieces) > 2
    assert all(len(p) <= PIECE_BYTES for p in pieces)
    assert "\n\n".join(pieces).split("\n\n") == paragraphs


def test_other_fields_and_domains_are_taken_where_named(tmp_path: Path) -> None:
    record = {"body": "the text", "domain": "poems"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n\n")
    (document,) = list(resolve(str(tmp_path), text_field="body").read())
    assert (document.text, document.domain, document.name) == ("the text", "poems", "a.jsonl:1")
    pq.write_table(pa.table({"body": ["x"], "domain": ["rhymes"]}), tmp_path / "a.parquet")
    documents = list(resolve(f"{tmp_path}/*.parquet", text_field="body").read())
    assert documents[0].domain == "rhymes"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "ok"}\n{"text": \n', r"a\.jsonl: line 2 is not JSON"),
        (
            "a.jsonl",
            b'{"text": "ok"}\n{"txt": "no"}\n',
            r"a\.jsonl:2: there is no text in the field 'text'; the record has txt",
        ),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: .* has a list"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a\.jsonl: line 1 is not UTF-8"),
        ("a.jsonl", b"", r"a\.jsonl: the file is empty"),
        ("a.txt", b"abc\xff", r"a\.txt: byte 3 is not UTF-8"),
        ("a.jsonl.zst", b"no zstd at all", r"a\.jsonl\.zst: no whole zstd stream"),
        ("a.jsonl.zst", zstandard.compress(_lines(["x" * 999]))[:-4], r"a\.jsonl\.zst: no whole zstd stream"),
        ("a.parquet", b"PAR1 nonsense PAR1", r"a\.parquet: not a parquet file"),
        ("a.pdf", b"%PDF", r"a\.pdf: this kind of file is not read"),
    ],
)
def test_nonsense_is_named_with_file_and_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AbruzziError, match=message) as error:
        _read(f"{tmp_path}/a.*")
    assert error.value.code == "bad_data"
    assert error.value.hint
    assert str(tmp_path) not in str(error.value)


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(AbruzziError, match="no column 'text'") as error:
        _read(str(tmp_path))
    assert "body" in (error.value.hint or "")


@pytest.mark.parametrize("source", ["./nowhere/*.jsonl", "nothing.txt", "./empty-folder/"])
def test_no_file_is_an_error_that_repeats_the_pattern(source: str) -> None:
    assert looks_like_files(source)
    with pytest.raises(AbruzziError, match="no file is there") as error:
        resolve(source, text_field="text")
    assert source in error.value.message


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "a.txt", ["x"])
    (file,) = find_files(str(tmp_path))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(AbruzziError, match=r"a\.txt: the file cannot be opened"):
        list(read_file(file, text_field="text"))


def test_names_of_shipped_sources_are_no_files() -> None:
    assert not looks_like_files("python-stdlib")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.mark.s3
def test_a_prefix_of_a_bucket_is_read_like_a_directory(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket()
    store = open_store(bucket)
    for name in ("a.jsonl", "b.parquet", "c.jsonl.zst"):
        _write(tmp_path / name, [f"{name} {number} " + "x" * 3000 for number in range(400)])
        store.put(f"texts/{name}", tmp_path / name)
    store.put("texts/z.txt", b"plain")
    store.put("texts/picture.png", b"-")
    store.put("other/c.txt", b"elsewhere")

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{bucket.endpoint}")
    texts = _read(f"s3://{bucket.bucket}/texts/")
    assert [text.partition(" x")[0] for text in texts] == [
        *(f"{name} {number}" for name in ("a.jsonl", "b.parquet", "c.jsonl.zst") for number in range(400)),
        "plain",
    ]
    assert _read(f"s3://{bucket.bucket}/texts/z.txt") == ["plain"]
    with pytest.raises(AbruzziError, match=f"s3://{bucket.bucket}/nothing/: no file is there"):
        _read(f"s3://{bucket.bucket}/nothing/")

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    run_store = bucket.model_copy(update={"bucket": "artifacts"})  # the run's own store says which server
    source = resolve(f"s3://{bucket.bucket}/texts/c.jsonl.zst", text_field="text", store=run_store)
    assert len(list(source.read())) == 400
