"""Credentials of an attempt: a session of the object store that reaches its own prefix, read from a file that is renewed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server, minio_binary

from abruzzi.contracts.artifact import ArtifactRef
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import open_store, sessions


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


def attempt_spec(store: S3Config, **changes: object) -> StageSpec:
    plain = {
        "project_id": "default", "run_id": "0123456789", "stage_id": "work", "attempt_id": "0123456789-work-1", "epoch": 1, "kind": "container",
        "config": {}, "store": store, "output_prefix": "projects/default/runs/0123456789/work/",
    }  # fmt: skip
    return StageSpec.model_validate(plain | changes)


@pytest.mark.s3
@pytest.mark.skipif(minio_binary() is None, reason="session policies need the minio binary (ABRUZZI_CLUSTER_TOOLS)")
def test_an_attempts_credentials_reach_its_stages_prefix_and_what_it_was_given(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3.new_bucket()
    platform = open_store(config)
    given = "projects/default/runs/0123456789/corpus/e1/corpus/manifest.json"
    platform.put(given, b"{}")
    platform.put("projects/other/runs/9876543210/corpus/e1/corpus/manifest.json", b"secret")
    reference = ArtifactRef(kind=ArtifactKind.CORPUS, manifest_key=given, digest="sha256:" + "0" * 64)
    spec = attempt_spec(config, inputs={"corpus": reference})
    file = tmp_path / "credentials.json"
    file.write_text(sessions.to_json(sessions.assume_role(spec, seconds=3600)))
    assert sessions.expires_at(file.read_text()) is not None
    monkeypatch.setenv("ABRUZZI_STORE_CREDENTIALS", str(file))
    store = open_store(config)
    mine = f"{spec.output_prefix}e1/files/manifest.json"
    assert store.get(given) == b"{}"
    assert store.put_if_absent(mine, b"made")
    assert not store.put_if_absent(mine, b"again")
    assert list(store.list(spec.output_prefix)) == [mine]
    for forbidden in (
        lambda: store.get("projects/other/runs/9876543210/corpus/e1/corpus/manifest.json"),
        lambda: store.put(given, b"changed"),
        lambda: store.put("projects/default/runs/0123456789/work-2/e1/x/manifest.json", b"x"),
        lambda: store.put_if_absent("projects/other/runs/9876543210/x/e1/x/manifest.json", b"x"),
    ):
        with pytest.raises(AbruzziError, match=r"AccessDenied|403"):
            forbidden()


@pytest.mark.s3
@pytest.mark.skipif(minio_binary() is None, reason="session policies need the minio binary (ABRUZZI_CLUSTER_TOOLS)")
def test_renewed_credentials_are_seen_without_a_restart(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3.new_bucket()
    spec = attempt_spec(config)
    file = tmp_path / "credentials.json"
    monkeypatch.setenv("ABRUZZI_STORE_CREDENTIALS", str(file))
    store = open_store(config)
    with pytest.raises(AbruzziError, match="holds no credentials"):
        store.put(f"{spec.output_prefix}a", b"x")
    monkeypatch.delenv("ABRUZZI_STORE_CREDENTIALS")
    good = sessions.to_json(sessions.assume_role(spec))
    file.write_text(good.replace('"access_key": "', '"access_key": "X'))
    with pytest.raises(AbruzziError, match="InvalidAccessKeyId"):
        store.put(f"{spec.output_prefix}a", b"x")
    renewed = tmp_path / "renewed"
    renewed.write_text(good)
    os.utime(renewed, ns=(time.time_ns() + 1_000_000_000, time.time_ns() + 1_000_000_000))
    renewed.replace(file)
    store.put(f"{spec.output_prefix}a", b"x")
    assert store.get(f"{spec.output_prefix}a") == b"x"


def test_own_texts_in_other_buckets_are_readable_and_the_platforms_bucket_is_none_of_them() -> None:
    config = S3Config(endpoint="minio:9000", bucket="abruzzi")
    sources = ["python-stdlib", "s3://texts/wiki/", "s3://abruzzi/projects/other/"]
    policy = json.dumps(sessions.session_policy(attempt_spec(config, config={"data": {"sources": sources}})))
    assert "arn:aws:s3:::texts/*" in policy
    assert "projects/other" not in policy
    assert '"arn:aws:s3:::abruzzi/*"' not in policy
