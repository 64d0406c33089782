"""bench/rl_kills.py adds lots to what it has of the same commit only: figures of other code are no figures of this one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[4] / "bench"


@pytest.mark.parametrize(
    ("written", "kills"),
    [({"commit": "aaa"}, 20), ({"commit": "bbb"}, None), ({}, None)],
    ids=["same", "other", "none"],
)
def test_it_goes_on_from_what_the_same_commit_has_and_else_begins_anew(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    written: dict[str, str],
    kills: int | None,
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    bench = importlib.import_module("rl_kills")
    out = tmp_path / "rl_kills.json"
    out.write_text(json.dumps({"bench": "rl_kills", **written, "service": {"kills": 20}}))
    found = bench.begun(out, "aaa")
    assert (found["commit"], found.get("service", {}).get("kills")) == ("aaa", kills)
    assert ("begins anew" in capsys.readouterr().err) is (kills is None)
    assert bench.begun(tmp_path / "nothing.json", "aaa") == {"bench": "rl_kills", "commit": "aaa"}
