"""Rows that people look at: what is written is read again, byte for byte the same, and damage is found."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.row_shards import RowShardWriter, read_described, read_rows

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.uuids().map(str),
            "fate": st.sampled_from(["kept", "number", "copy"]),
            "text": st.text(),
            "more": JSON,
        }
    ),
    unique_by=lambda row: row["id"],
    max_size=12,
)


def write(folder: Path, rows: list[dict], shard_bytes: int = 1 << 20, **described: object) -> dict:
    folder.mkdir(exist_ok=True)
    writer = RowShardWriter(folder, "rewrites", shard_bytes=shard_bytes)
    for row in rows:
        writer.write(row)
    return writer.close(**described)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(rows=ROWS, shard_bytes=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_rows_come_back_in_their_order_and_make_the_same_bytes(rows: list[dict], shard_bytes: int) -> None:
    with TemporaryDirectory() as name:
        first, second = Path(name, "a"), Path(name, "b")
        described = write(first, rows, shard_bytes, seed=7)
        write(second, rows, shard_bytes, seed=7)
        assert list(read_rows(first, "rewrites")) == rows
        assert contents(first) == contents(second)
    assert (
        described["rows"]
        == len(rows)
        == sum(described["fates"].values())
        == sum(s["rows"] for s in described["shards"])
    )
    assert described["fates"]["kept"] == sum(row["fate"] == "kept" for row in rows)
    assert described["seed"] == 7


@given(rows=ROWS.filter(bool), damage=st.integers(0, 10**6), cut=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_shard_that_was_cut_short_or_changed_is_not_read(rows: list[dict], damage: int, cut: bool) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name, "a")
        shard = folder / write(folder, rows)["shards"][0]["name"]
        packed = bytearray(shard.read_bytes())
        place = damage % len(packed)
        packed[place] ^= 1
        shard.write_bytes(packed[:place] if cut else packed)
        with pytest.raises(AbruzziError) as raised:
            list(read_rows(folder, "rewrites"))
    assert raised.value.code == "bad_data"


def test_nothing_written_is_no_rows_and_a_description(tmp_path: Path) -> None:
    described = write(tmp_path, [])
    assert (described["rows"], described["fates"], described["shards"]) == (0, {"kept": 0}, [])
    assert list(read_rows(tmp_path, "rewrites")) == []
    assert read_described(tmp_path, "rewrites") == described


def test_a_shard_ends_before_the_row_that_would_make_it_too_long(tmp_path: Path) -> None:
    rows = [{"id": str(n), "fate": "kept", "text": "x" * 100} for n in range(10)]
    assert [shard["rows"] for shard in write(tmp_path, rows, shard_bytes=450)["shards"]] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": "a", "fate": "kept"}, {"id": "a", "fate": "number"}], "two rows"),
        ([{"id": "a"}], "no fate"),
        ([{"fate": "kept"}], "no id"),
        ([{"id": "a", "fate": "kept", "score": float("nan")}], "JSON compliant"),
    ],
)
def test_rows_that_nobody_could_name_or_read_are_refused(tmp_path: Path, rows: list[dict], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write(tmp_path, rows)


LLM = {"id": "l", "fate": "kept", "generator": "smollm2-135m", "is_llm": True}
STANDIN = {"id": "s", "fate": "kept", "generator": "standin-rule-v1", "is_llm": False}
SOURCE = {"id": "t", "fate": "kept", "generator": "source", "is_llm": False}


@pytest.mark.parametrize("rows", [[LLM, STANDIN], [STANDIN, SOURCE, LLM]])
def test_rows_of_the_standin_are_never_mixed_with_a_models(tmp_path: Path, rows: list[dict]) -> None:
    with pytest.raises(AbruzziError, match="does not belong") as raised:
        write(tmp_path, rows)
    assert raised.value.code == "mixed_teachers"


def test_the_description_claims_no_other_teacher_than_the_rows(tmp_path: Path) -> None:
    assert write(tmp_path / "a", [SOURCE, LLM])["teacher"] == "llm"
    assert write(tmp_path / "b", [SOURCE, STANDIN], teacher="standin")["teacher"] == "standin"
    assert write(tmp_path / "c", [SOURCE])["teacher"] is None
    with pytest.raises(AbruzziError, match="teacher: llm"):
        write(tmp_path / "d", [STANDIN], teacher="llm")


def test_a_folder_without_a_description_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(AbruzziError, match=r"rewrites\.json.*no description of rewrites"):
        list(read_rows(tmp_path, "rewrites"))
